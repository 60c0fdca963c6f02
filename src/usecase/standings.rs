//! How queues and workers stood over time: averages of the looks that [`crate::tell::samples`] has written down.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

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
    /// Queues with their waiting messages. The names that were asked for are all answered; else the [`MOST_SERIES`] in which most waited.
    pub async fn queue_history(&self, question: &Question, now: Time) -> Result<Vec<Series<QueuePoint>>, Error> {
        let measures = ["samples", "queue_waiting", "queue_age_ms"];
        let mut window = Window { by_queue: true, ..question.window(now, &measures) };
        if question.queues.is_empty() {
            let totals = self.ledger.figures(&Window { measures: vec!["queue_waiting"], ..whole(&window) }).await?;
            window.queues = largest(&totals);
        }
        let names: BTreeSet<String> = window.queues.iter().cloned().collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        // The number of looks has no queue.
        window.queues.push(String::new());
        let figures = self.ledger.figures(&window).await?;
        Ok(queues(&window, names, &figures))
    }

    /// Workers with their busy slots and their memory: the first [`MOST_SERIES`] by name.
    pub async fn worker_history(&self, question: &Question, now: Time) -> Result<Vec<Series<WorkerPoint>>, Error> {
        let measures = ["worker_samples", "worker_active", "worker_slots", "worker_kib"];
        let mut window = Window { by_name: true, ..question.window(now, &measures) };
        let seen = self.ledger.figures(&Window { measures: vec!["worker_samples"], ..whole(&window) }).await?;
        let names: BTreeSet<String> = seen.into_iter().map(|figure| figure.name).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        window.names = names.into_iter().take(MOST_SERIES).collect();
        let figures = self.ledger.figures(&window).await?;
        Ok(workers(&window, &figures))
    }
}

/// The same time as one step, to learn which names there are without reading all their points.
fn whole(window: &Window) -> Window {
    Window { step_micros: i64::MAX, ..window.clone() }
}

/// The names with the largest sums.
fn largest(totals: &[Figure]) -> Vec<String> {
    let mut names: Vec<(i64, &str)> = totals.iter().map(|figure| (figure.amount, figure.queue.as_str())).collect();
    names.retain(|(_, name)| !name.is_empty());
    names.sort_unstable_by_key(|(total, name)| (Reverse(*total), *name));
    names.truncate(MOST_SERIES);
    names.into_iter().map(|(_, name)| name.to_owned()).collect()
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

fn queues(window: &Window, names: BTreeSet<String>, figures: &[Figure]) -> Vec<Series<QueuePoint>> {
    let sums = sums(figures, |figure| &figure.queue);
    let total = |name: &str| -> i64 {
        let steps = sums.get(name).into_iter().flat_map(BTreeMap::values);
        steps.filter_map(|step| step.get("queue_waiting")).sum()
    };
    let mut names: Vec<String> = names.into_iter().collect();
    // Stable: names with the same total stay in order.
    names.sort_by_cached_key(|name| Reverse(total(name)));
    let point = |name: &str, at: Time| {
        let looks = amount(&sums, "", at, "samples").filter(|looks| *looks > 0);
        let average = |measure| looks.map(|looks| amount(&sums, name, at, measure).unwrap_or(0) as f64 / looks as f64);
        let waited = amount(&sums, name, at, "queue_waiting").is_some();
        let is_age_known = !waited || amount(&sums, name, at, "queue_age_ms").is_some();
        let oldest_secs = average("queue_age_ms").filter(|_| is_age_known).map(|millis| millis / 1_000.0);
        (at, QueuePoint { waiting: average("queue_waiting"), oldest_secs })
    };
    let series = |name: String| {
        let points = steps(window).map(|at| point(&name, at)).collect();
        (name, points)
    };
    names.into_iter().map(series).collect()
}

fn workers(window: &Window, figures: &[Figure]) -> Vec<Series<WorkerPoint>> {
    let sums = sums(figures, |figure| &figure.name);
    let point = |name: &str, at: Time| {
        let looks = amount(&sums, name, at, "worker_samples").filter(|looks| *looks > 0);
        let average = |measure| Some(amount(&sums, name, at, measure)? as f64 / looks? as f64);
        let memory_bytes = average("worker_kib").map(|kib| kib * 1_024.0);
        (at, WorkerPoint { active: average("worker_active"), slots: average("worker_slots"), memory_bytes })
    };
    sums.keys().map(|name| ((*name).to_owned(), steps(window).map(|at| point(name, at)).collect())).collect()
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

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn of_many_queues_those_are_shown_in_which_most_waited_and_of_those_asked_for_all() {
        let many: Vec<String> = (0..MOST_SERIES + 10).map(|n| format!("queue-{n:03}")).collect();
        let totals: Vec<Figure> =
            many.iter().enumerate().map(|(n, name)| figure(0, "queue_waiting", "", name, n as i64)).collect();
        let shown = largest(&totals);
        assert_eq!((shown.len(), shown[0].as_str()), (MOST_SERIES, "queue-059"));
        assert!(!shown.contains(&"queue-009".to_owned()), "{shown:?}");
        let asked = queues(&window(), many.iter().cloned().collect(), &totals);
        assert_eq!((asked.len(), asked[0].0.as_str()), (many.len(), "queue-059"));
    }

    #[test]
    fn a_queue_is_empty_where_nothing_waited_and_unknown_where_nobody_looked() {
        let figures = [
            figure(0, "samples", "", "", 4),
            figure(0, "queue_waiting", "", "mail", 6),
            figure(0, "queue_age_ms", "", "mail", 8_000),
        ];
        let found = queues(&window(), names(&["mail", "quiet"]), &figures);
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
        let found = queues(&window(), names(&["mail"]), &figures);
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
