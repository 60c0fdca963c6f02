//! How queues and workers stood over time: averages of the looks that [`crate::tell::samples`] has written down.

use std::collections::BTreeMap;

use super::Gateway;
use super::stats::{Question, steps};
use ledger::{Error, Figure, Window};
use runtime::clock::Time;

/// Most series of an answer: those with the largest sums, or the names first in order.
pub const MOST_SERIES: usize = 50;

/// A queue during one step. `None` where nobody looked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueuePoint {
    pub waiting: Option<f64>,
    pub oldest_secs: Option<f64>,
}

/// A worker during one step. `None` where nobody looked, the worker was away, or it does not tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkerPoint {
    pub active: Option<f64>,
    pub slots: Option<f64>,
    pub memory_bytes: Option<f64>,
}

/// A name with its points, without gaps.
pub type Series<P> = (String, Vec<(Time, P)>);

impl Gateway {
    /// Queues with their waiting messages. The names that were asked for are all answered; else those in which something waited.
    pub async fn queue_history(&self, question: &Question, now: Time) -> Result<Vec<Series<QueuePoint>>, Error> {
        let measures = ["samples", "queue_waiting", "queue_age_ms"];
        let mut window = Window { by_queue: true, ..question.window(now, &measures) };
        if !window.queues.is_empty() {
            // The number of looks has no queue.
            window.queues.push(String::new());
        }
        let figures = self.ledger.figures(&window).await?;
        Ok(queues(&window, &question.queues, &figures))
    }

    /// Workers with their busy slots and their memory.
    pub async fn worker_history(&self, question: &Question, now: Time) -> Result<Vec<Series<WorkerPoint>>, Error> {
        let measures = ["worker_samples", "worker_active", "worker_slots", "worker_kib"];
        let window = Window { by_name: true, ..question.window(now, &measures) };
        let figures = self.ledger.figures(&window).await?;
        Ok(workers(&window, &figures))
    }
}

/// Amounts by series, step and measure.
type Sums<'a> = BTreeMap<&'a str, BTreeMap<Time, BTreeMap<&'a str, i64>>>;

fn sums<'a>(figures: &'a [Figure], of: fn(&'a Figure) -> &'a str) -> Sums<'a> {
    let mut sums = Sums::default();
    for figure in figures {
        let step = sums.entry(of(figure)).or_default().entry(figure.at).or_default();
        *step.entry(figure.measure.as_str()).or_default() += figure.amount;
    }
    sums
}

fn amount(sums: &Sums<'_>, name: &str, at: Time, measure: &str) -> Option<i64> {
    sums.get(name)?.get(&at)?.get(measure).copied()
}

fn queues(window: &Window, asked: &[String], figures: &[Figure]) -> Vec<Series<QueuePoint>> {
    let sums = sums(figures, |figure| &figure.queue);
    let total = |name: &str| -> i64 {
        let steps = sums.get(name).into_iter().flat_map(BTreeMap::values);
        steps.filter_map(|step| step.get("queue_waiting")).sum()
    };
    let mut names: Vec<&str> = sums.keys().copied().filter(|name| !name.is_empty()).collect();
    names.extend(asked.iter().map(String::as_str).filter(|name| !sums.contains_key(name)));
    names.sort_by_key(|name| (std::cmp::Reverse(total(name)), *name));
    names.dedup();
    names.truncate(MOST_SERIES);
    let point = |name: &str, at: Time| {
        let looks = amount(&sums, "", at, "samples").filter(|looks| *looks > 0);
        let average = |measure| looks.map(|looks| amount(&sums, name, at, measure).unwrap_or(0) as f64 / looks as f64);
        let waited = amount(&sums, name, at, "queue_waiting").is_some();
        let is_age_known = !waited || amount(&sums, name, at, "queue_age_ms").is_some();
        let oldest_secs = average("queue_age_ms").filter(|_| is_age_known).map(|millis| millis / 1_000.0);
        (at, QueuePoint { waiting: average("queue_waiting"), oldest_secs })
    };
    names.into_iter().map(|name| (name.to_owned(), steps(window).map(|at| point(name, at)).collect())).collect()
}

fn workers(window: &Window, figures: &[Figure]) -> Vec<Series<WorkerPoint>> {
    let sums = sums(figures, |figure| &figure.name);
    let point = |name: &str, at: Time| {
        let looks = amount(&sums, name, at, "worker_samples").filter(|looks| *looks > 0);
        let average = |measure| Some(amount(&sums, name, at, measure)? as f64 / looks? as f64);
        let memory_bytes = average("worker_kib").map(|kib| kib * 1_024.0);
        (at, WorkerPoint { active: average("worker_active"), slots: average("worker_slots"), memory_bytes })
    };
    let names = sums.keys().take(MOST_SERIES);
    names.map(|name| ((*name).to_owned(), steps(window).map(|at| point(name, at)).collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Span;

    fn window() -> Window {
        Window {
            span: Span::Minute,
            from: Time(0),
            to: Time(120_000_000),
            step_micros: 60_000_000,
            measures: Vec::new(),
            names: Vec::new(),
            queues: Vec::new(),
            by_name: true,
            by_queue: true,
        }
    }

    fn figure(at: i64, measure: &str, name: &str, queue: &str, amount: i64) -> Figure {
        let (name, queue) = (name.to_owned(), queue.to_owned());
        Figure { at: Time(at), measure: measure.to_owned(), bucket: -1, name, queue, amount }
    }

    #[test]
    fn a_queue_is_empty_where_nothing_waited_and_unknown_where_nobody_looked() {
        let figures = [
            figure(0, "samples", "", "", 4),
            figure(0, "queue_waiting", "", "mail", 6),
            figure(0, "queue_age_ms", "", "mail", 8_000),
        ];
        let found = queues(&window(), &["quiet".to_owned()], &figures);
        let point = |waiting: f64, age: f64| QueuePoint { waiting: Some(waiting), oldest_secs: Some(age) };
        assert_eq!(
            found[0],
            ("mail".into(), vec![(Time(0), point(1.5, 2.0)), (Time(60_000_000), QueuePoint::default())])
        );
        assert_eq!(found[1].0, "quiet");
        assert_eq!(found[1].1[0].1, point(0.0, 0.0));
    }

    #[test]
    fn an_age_that_the_broker_does_not_tell_is_unknown() {
        let figures = [figure(0, "samples", "", "", 1), figure(0, "queue_waiting", "", "mail", 6)];
        let found = queues(&window(), &[], &figures);
        assert_eq!(found[0].1[0].1, QueuePoint { waiting: Some(6.0), oldest_secs: None });
    }

    #[test]
    fn a_worker_has_averages_of_what_it_tells() {
        let figures = [
            figure(0, "worker_samples", "w@h", "", 2),
            figure(0, "worker_active", "w@h", "", 3),
            figure(0, "worker_slots", "w@h", "", 8),
        ];
        let found = workers(&window(), &figures);
        let point = WorkerPoint { active: Some(1.5), slots: Some(4.0), memory_bytes: None };
        assert_eq!(found, [("w@h".into(), vec![(Time(0), point), (Time(60_000_000), WorkerPoint::default())])]);
    }
}
