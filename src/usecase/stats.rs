//! Statistics over time: throughput, latency, failures. Read from the ledger's roll-ups, so all replicas give the same answer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Gateway;
use crate::guard::tokens::Visibility;
use crate::tell::stats::{BOUNDS, KEEP_MINUTES};
use ledger::{Error, FailureKind, Figure, MEASURES, Span, Window};
use runtime::clock::Time;

/// The measures of throughput.
pub const FLOWS: [&str; 11] = [
    "accepted",
    "received",
    "started",
    "retried",
    "succeeded",
    "failed",
    "revoked",
    "expired",
    "skipped",
    "lost",
    "ignored",
];
/// Maximum number of failure kinds in an answer: the most frequent ones.
const MOST_KINDS: usize = 200;

/// The parameters of a query.
#[derive(Debug, Clone)]
pub struct Question {
    pub from: Time,
    pub to: Time,
    /// A multiple of 60 seconds.
    pub step: Duration,
    /// Task names; empty for all.
    pub names: Vec<String>,
    pub queues: Vec<String>,
    /// The caller's visibility: a limited caller gets figures of its own tasks only.
    pub visibility: Visibility,
}

impl Question {
    /// Which roll-ups to use: minutes are kept for two days, older figures only by the hour.
    fn span(&self, now: Time) -> Span {
        let whole_hours = self.step.as_secs().is_multiple_of(3_600);
        if whole_hours || now.since(self.from) > KEEP_MINUTES { Span::Hour } else { Span::Minute }
    }

    /// The step of the answer: the requested one, or an hour where only hours are kept.
    pub fn effective_step(&self, now: Time) -> Duration {
        self.step.max(Duration::from_secs(u64::from(self.span(now).secs().unsigned_abs())))
    }

    pub(super) fn window(&self, now: Time, measures: &[&'static str]) -> Window {
        let step_micros = i64::try_from(self.effective_step(now).as_micros()).unwrap_or(i64::MAX);
        Window {
            span: self.span(now),
            from: Time(self.from.0 - self.from.0.rem_euclid(step_micros)),
            to: self.to,
            step_micros,
            measures: measures.to_vec(),
            names: self.names.clone(),
            queues: self.queues.clone(),
            by_name: self.visibility.is_limited(),
            by_queue: false,
        }
    }
}

/// Counts of one step.
#[derive(Debug, Clone, Default)]
pub struct Flow(BTreeMap<String, i64>);

impl Flow {
    pub fn count(&self, measure: &str) -> i64 {
        self.0.get(measure).copied().unwrap_or(0)
    }
}

/// A histogram of seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram(BTreeMap<i16, i64>);

impl Histogram {
    pub fn add(&mut self, bucket: i16, amount: i64) {
        *self.0.entry(bucket).or_default() += amount;
    }

    pub fn count(&self) -> i64 {
        self.0.values().sum()
    }

    /// The percentile `part` in seconds, as precise as the buckets allow; `None` without values.
    pub fn percentile(&self, part: f64) -> Option<f64> {
        let wanted = part * self.count() as f64;
        let mut below = 0.0;
        for (&bucket, &amount) in &self.0 {
            let amount = amount as f64;
            if amount > 0.0 && below + amount >= wanted {
                let (low, high) = edges(bucket);
                return Some(low + (high - low) * ((wanted - below) / amount).clamp(0.0, 1.0));
            }
            below += amount;
        }
        None
    }

    /// The number of values at or below each bound.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, i64)> + '_ {
        BOUNDS.iter().enumerate().map(|(index, bound)| {
            let last = i16::try_from(index).unwrap_or(i16::MAX);
            (*bound, self.0.range(..=last).map(|(_, amount)| amount).sum())
        })
    }
}

fn edges(bucket: i16) -> (f64, f64) {
    let index = usize::try_from(bucket).unwrap_or(0);
    let low = index.checked_sub(1).and_then(|before| BOUNDS.get(before)).copied().unwrap_or(0.0);
    (low, BOUNDS.get(index).copied().unwrap_or(low))
}

/// How long tasks waited and ran.
#[derive(Debug, Clone, Default)]
pub struct Latency {
    pub wait: Histogram,
    pub run: Histogram,
}

impl Latency {
    fn add(&mut self, figure: &Figure) {
        let histogram = if figure.measure == "wait" { &mut self.wait } else { &mut self.run };
        histogram.add(figure.bucket, figure.amount);
    }
}

/// Failures of one kind within a time, with their trend.
#[derive(Debug)]
pub struct FailureGroup {
    pub kind: FailureKind,
    pub count: i64,
    pub trend: Vec<(Time, i64)>,
}

impl Gateway {
    /// Counts by step, without gaps.
    pub async fn throughput(&self, question: &Question, now: Time) -> Result<Vec<(Time, Flow)>, Error> {
        let window = question.window(now, &FLOWS);
        let mut points: BTreeMap<Time, Flow> = steps(&window).map(|at| (at, Flow::default())).collect();
        for figure in self.figures(question, &window).await? {
            *points.entry(figure.at).or_default().0.entry(figure.measure).or_default() += figure.amount;
        }
        Ok(points.into_iter().collect())
    }

    /// Histograms by step, without gaps.
    pub async fn latency(&self, question: &Question, now: Time) -> Result<Vec<(Time, Latency)>, Error> {
        let window = question.window(now, &["wait", "run"]);
        let mut points: BTreeMap<Time, Latency> = steps(&window).map(|at| (at, Latency::default())).collect();
        for figure in self.figures(question, &window).await? {
            points.entry(figure.at).or_default().add(&figure);
        }
        Ok(points.into_iter().collect())
    }

    /// Histograms of the whole time, by task.
    pub async fn latency_by_task(&self, question: &Question, now: Time) -> Result<Vec<(String, Latency)>, Error> {
        let window = Window { by_name: true, ..question.window(now, &["wait", "run"]) };
        let mut tasks: BTreeMap<String, Latency> = BTreeMap::new();
        for figure in self.figures(question, &window).await? {
            tasks.entry(figure.name.clone()).or_default().add(&figure);
        }
        Ok(tasks.into_iter().collect())
    }

    /// The figures that the caller may see.
    async fn figures(&self, question: &Question, window: &Window) -> Result<Vec<Figure>, Error> {
        let mut figures = self.ledger.figures(window).await?;
        if question.visibility.is_limited() {
            figures.retain(|figure| question.visibility.sees(Some(&figure.name)));
        }
        Ok(figures)
    }

    /// The all-time counts, by task and queue.
    pub async fn ever(&self) -> Result<Vec<Figure>, Error> {
        let measures = MEASURES.into_iter().filter(|measure| !["error", "raised"].contains(measure)).collect();
        self.ever_counted(measures).await
    }

    /// The same of failures, by exception: `queue` is what [`ledger::raised_parts`] takes apart.
    pub async fn ever_raised(&self) -> Result<Vec<Figure>, Error> {
        self.ever_counted(vec!["raised"]).await
    }

    async fn ever_counted(&self, measures: Vec<&'static str>) -> Result<Vec<Figure>, Error> {
        let (from, to) = (Time(0), Time(1));
        let (names, queues) = (Vec::new(), Vec::new());
        let window = Window {
            span: Span::Ever,
            from,
            to,
            step_micros: 1,
            measures,
            names,
            queues,
            by_name: true,
            by_queue: true,
        };
        self.ledger.figures(&window).await
    }

    /// Kinds of failures, most frequent first.
    pub async fn failures(&self, question: &Question, now: Time) -> Result<Vec<FailureGroup>, Error> {
        let all = Question { names: Vec::new(), queues: Vec::new(), ..question.clone() };
        let window = Window { by_name: true, ..all.window(now, &["error"]) };
        let mut trends: BTreeMap<String, BTreeMap<Time, i64>> = BTreeMap::new();
        for figure in self.ledger.figures(&window).await? {
            *trends.entry(figure.name).or_default().entry(figure.at).or_default() += figure.amount;
        }
        let fingerprints: Vec<String> = trends.keys().cloned().collect();
        let mut groups = Vec::new();
        for kind in self.ledger.failure_kinds(&fingerprints).await? {
            let is_asked_for = question.names.is_empty() || question.names.contains(&kind.name);
            if !is_asked_for || !question.visibility.sees(Some(&kind.name)) {
                continue;
            }
            let found = trends.remove(&kind.fingerprint).unwrap_or_default();
            let trend = steps(&window).map(|at| (at, found.get(&at).copied().unwrap_or(0))).collect();
            groups.push(FailureGroup { kind, count: found.values().sum(), trend });
        }
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| b.kind.last_at.cmp(&a.kind.last_at)));
        groups.truncate(MOST_KINDS);
        Ok(groups)
    }
}

/// The beginnings of the steps of a window.
pub(super) fn steps(window: &Window) -> impl Iterator<Item = Time> + use<> {
    let (from, to, step) = (window.from.0, window.to.0, window.step_micros.max(1));
    std::iter::successors(Some(from), move |at| at.checked_add(step)).take_while(move |at| *at < to).map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_inside_their_bucket() {
        let mut histogram = Histogram::default();
        histogram.add(3, 90); // 5 to 10 ms
        histogram.add(9, 10); // 0.5 to 1 s
        let median = histogram.percentile(0.5).unwrap();
        assert!((0.005..=0.01).contains(&median), "{median}");
        let high = histogram.percentile(0.95).unwrap();
        assert!((0.5..=1.0).contains(&high), "{high}");
        assert_eq!(Histogram::default().percentile(0.5), None);
        assert_eq!(histogram.cumulative().last(), Some((100_000.0, 100)));
    }
}
