//! The fleet's metrics as Prometheus text, under the names that dashboards for Celery exporters use.
//!
//! Computed from the ledger's roll-ups, so every replica could show the same and a restart sets nothing back. Labels are bounded: pairs
//! of task name and queue beyond the most frequent ones, and exceptions beyond the most frequent ones of a pair, are counted under
//! `other`. A counter of a pair that nothing was counted for is zero, because a quotient with a missing operand shows nothing. What
//! cannot be read (the ledger or Redis is away) is left out.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;
use std::time::Duration;

use crate::usecase::Gateway;
use crate::usecase::queues::Queue;
use crate::usecase::stats::Histogram;
use ledger::{Figure, Worker, raised_parts};
use runtime::clock;

/// Maximum number of pairs of task name and queue with their own labels.
const MAX_PAIRS: usize = 150;
/// Exceptions of one pair.
const MAX_EXCEPTIONS: usize = 20;
const MAX_QUEUES: usize = 200;
const MAX_WORKERS: usize = 500;
const OTHER: &str = "other";
/// How long a scrape waits for each source.
const PATIENCE: Duration = Duration::from_secs(3);

/// Measure, name of the counter, Celery's word for `celery_tasks_total`, help.
const COUNTERS: [(&str, &str, &str, &str); 12] = [
    ("accepted", "celery_task_sent_total", "PENDING", "Tasks that were submitted or first seen"),
    ("received", "celery_task_received_total", "RECEIVED", "Times that a worker received a task"),
    ("started", "celery_task_started_total", "STARTED", "Times that a task started"),
    ("retried", "celery_task_retried_total", "RETRY", "Retries"),
    ("rejected", "celery_task_rejected_total", "REJECTED", "Times that a worker rejected a task's message"),
    ("succeeded", "celery_task_succeeded_total", "SUCCESS", "Tasks that succeeded"),
    ("failed", "celery_task_failed_total", "FAILURE", "Tasks that failed"),
    ("revoked", "celery_task_revoked_total", "REVOKED", "Tasks that were revoked"),
    ("expired", "taskgate_task_expired_total", "EXPIRED", "Tasks that expired before they started"),
    ("skipped", "taskgate_task_skipped_total", "SKIPPED", "Tasks of branches that were not taken"),
    ("lost", "taskgate_task_lost_total", "LOST", "Tasks whose message was lost"),
    (
        "ignored",
        "taskgate_task_ignored_total",
        "IGNORED",
        "Tasks that a live worker took and acknowledged, and then no longer reported on",
    ),
];
/// Measure, its sum, name of the histogram, help.
const HISTOGRAMS: [(&str, &str, &str, &str); 3] = [
    ("run", "run_us", "celery_task_runtime", "Seconds from start to end"),
    ("run", "run_us", "celery_task_duration_seconds", "Seconds from start to end"),
    ("wait", "wait_us", "celery_task_wait_seconds", "Seconds from when it could run until it started"),
];

/// All metrics of the fleet.
pub async fn text(gateway: &Gateway) -> String {
    let mut out = String::new();
    if let Ok(Ok(figures)) = tokio::time::timeout(PATIENCE, gateway.ever()).await {
        let raised = tokio::time::timeout(PATIENCE, gateway.ever_raised()).await;
        tasks(&mut out, &Figures::of(figures).with_failures(raised.ok().and_then(Result::ok).unwrap_or_default()));
    }
    let workers = tokio::time::timeout(PATIENCE, gateway.workers()).await.ok().and_then(Result::ok);
    if let Ok(Ok(queues)) = tokio::time::timeout(PATIENCE, gateway.queues()).await {
        let now = clock::now();
        write_queues(&mut out, &queues, |queue| queue.oldest.map_or(0.0, |at| now.since(at).as_secs_f64()));
        write_processes(&mut out, &queues, workers.as_deref().unwrap_or_default());
    }
    if let Some(workers) = workers {
        write_workers(&mut out, &workers);
    }
    out
}

/// Task name and queue.
type Pair = (String, String);

/// Amounts by measure and pair.
#[derive(Default)]
struct Figures {
    counts: BTreeMap<(String, Pair), i64>,
    histograms: BTreeMap<(String, Pair), Histogram>,
    /// Failures by pair and exception.
    failures: BTreeMap<Pair, BTreeMap<String, i64>>,
}

impl Figures {
    fn of(figures: Vec<Figure>) -> Self {
        let frequent = frequent(&figures);
        let mut sums = Self::default();
        for Figure { measure, bucket, name, queue, amount, .. } in figures {
            let pair = (shown(name), shown(queue));
            let pair = if frequent.contains(&pair) { pair } else { (OTHER.to_owned(), OTHER.to_owned()) };
            if measure == "wait" || measure == "run" {
                sums.histograms.entry((measure, pair)).or_default().add(bucket, amount);
            } else {
                *sums.counts.entry((measure, pair)).or_default() += amount;
            }
        }
        sums
    }

    /// Adds which exceptions the failures were.
    fn with_failures(mut self, raised: Vec<Figure>) -> Self {
        let shown_pairs = self.pairs();
        for Figure { name, queue, amount, .. } in raised {
            let (exception, queue) = raised_parts(&queue);
            let pair = (shown(name), shown(queue.to_owned()));
            let pair = if shown_pairs.contains(&pair) { pair } else { (OTHER.to_owned(), OTHER.to_owned()) };
            *self.failures.entry(pair).or_default().entry(exception.to_owned()).or_default() += amount;
        }
        self
    }

    fn pairs(&self) -> BTreeSet<Pair> {
        self.counts.keys().map(|(_, pair)| pair.clone()).collect()
    }

    fn count(&self, measure: &str, pair: &Pair) -> i64 {
        self.counts.get(&(measure.to_owned(), pair.clone())).copied().unwrap_or(0)
    }

    fn counts<'a>(&'a self, measure: &'a str) -> impl Iterator<Item = (&'a Pair, i64)> + 'a {
        let found = self.counts.iter().filter(move |((name, _), _)| name == measure);
        found.map(|((_, pair), amount)| (pair, *amount))
    }
}

/// The label for a name or queue; a task that others sent is counted before they are known.
fn shown(text: String) -> String {
    if text.is_empty() { "unknown".to_owned() } else { text }
}

/// The pairs that were counted most often.
fn frequent(figures: &[Figure]) -> HashSet<Pair> {
    let mut counted: BTreeMap<Pair, i64> = BTreeMap::new();
    for figure in figures.iter().filter(|figure| figure.bucket < 0 && !figure.measure.ends_with("_us")) {
        *counted.entry((shown(figure.name.clone()), shown(figure.queue.clone()))).or_default() += figure.amount;
    }
    let mut pairs: Vec<(Pair, i64)> = counted.into_iter().collect();
    pairs.sort_by(|(left, most), (right, more)| more.cmp(most).then_with(|| left.cmp(right)));
    pairs.into_iter().take(MAX_PAIRS).map(|(pair, _)| pair).collect()
}

fn tasks(out: &mut String, figures: &Figures) {
    let pairs = figures.pairs();
    for (measure, metric, _, help) in COUNTERS {
        head(out, metric, "counter", help);
        for pair @ (name, queue) in &pairs {
            let amount = figures.count(measure, pair);
            match measure {
                "failed" => failures(out, metric, pair, amount, figures.failures.get(pair)),
                _ => line(out, metric, &[("name", name), ("queue_name", queue)], amount as f64),
            }
        }
    }
    head(out, "celery_tasks_total", "counter", "Tasks that came into a state");
    for (measure, _, state, _) in COUNTERS {
        for ((name, queue), amount) in figures.counts(measure) {
            let labels = [("state", state), ("name", name.as_str()), ("queue_name", queue.as_str())];
            line(out, "celery_tasks_total", &labels, amount as f64);
        }
    }
    for (measure, sum, metric, help) in HISTOGRAMS {
        head(out, metric, "histogram", help);
        for ((_, pair), histogram) in figures.histograms.iter().filter(|((name, _), _)| name == measure) {
            let micros = figures.counts.get(&(sum.to_owned(), pair.clone())).copied().unwrap_or(0);
            write_histogram(out, metric, pair, histogram, micros);
        }
    }
}

/// By exception, most first. The one without a name is always there and stays at zero: what failed without an exception that is known
/// is counted under `other`.
fn failures(out: &mut String, metric: &str, (name, queue): &Pair, amount: i64, raised: Option<&BTreeMap<String, i64>>) {
    let mut by_class: Vec<(&str, i64)> =
        raised.into_iter().flatten().map(|(class, amount)| (class.as_str(), *amount)).collect();
    by_class.sort_by(|(left, most), (right, more)| more.cmp(most).then_with(|| left.cmp(right)));
    by_class.truncate(MAX_EXCEPTIONS);
    let rest = amount - by_class.iter().map(|(_, amount)| amount).sum::<i64>();
    let rest = (rest > 0).then_some((OTHER, rest));
    for (class, amount) in [("", 0)].into_iter().chain(by_class).chain(rest) {
        line(out, metric, &[("name", name), ("queue_name", queue), ("exception", class)], amount as f64);
    }
}

fn write_histogram(out: &mut String, metric: &str, (name, queue): &Pair, histogram: &Histogram, sum_micros: i64) {
    let own = [("name", name.as_str()), ("queue_name", queue.as_str())];
    let bucket = format!("{metric}_bucket");
    for (bound, amount) in histogram.cumulative() {
        line(out, &bucket, &[own[0], own[1], ("le", &bound.to_string())], amount as f64);
    }
    line(out, &bucket, &[own[0], own[1], ("le", "+Inf")], histogram.count() as f64);
    line(out, &format!("{metric}_sum"), &own, sum_micros as f64 / 1_000_000.0);
    line(out, &format!("{metric}_count"), &own, histogram.count() as f64);
}

/// The function that reads a gauge's value from a queue.
type Value<'a> = &'a dyn Fn(&Queue) -> f64;

fn write_queues(out: &mut String, queues: &[Queue], age: impl Fn(&Queue) -> f64) {
    let queues = &queues[..queues.len().min(MAX_QUEUES)];
    let waiting = |queue: &Queue| queue.depth.total() as f64;
    let gauges: [(&str, &str, Value<'_>); 7] = [
        ("celery_queue_length", "Messages in the broker", &waiting),
        ("celery_active_consumer_count", "Online workers that serve the queue", &|queue| queue.consumers as f64),
        ("celery_active_worker_count", "Online workers that serve the queue", &|queue| queue.consumers as f64),
        ("taskgate_queue_held", "Tasks that are held back", &|queue| queue.held as f64),
        ("taskgate_queue_reserved", "Tasks that workers have", &|queue| queue.reserved as f64),
        ("taskgate_queue_oldest_seconds", "Age of the oldest waiting message, 0 without one", &age),
        ("taskgate_queue_paused", "1 while the queue is paused", &|queue| f64::from(u8::from(queue.paused))),
    ];
    for (metric, help, value) in gauges {
        head(out, metric, "gauge", help);
        for queue in queues {
            line(out, metric, &[("queue_name", &queue.name)], value(queue));
        }
    }
}

/// How many tasks of a queue can run at the same time.
fn write_processes(out: &mut String, queues: &[Queue], workers: &[(Worker, bool)]) {
    head(out, "celery_active_process_count", "gauge", "Pool processes of the online workers that serve the queue");
    for queue in queues.iter().take(MAX_QUEUES) {
        let serving = workers.iter().filter(|(worker, online)| *online && worker.facts.queues.contains(&queue.name));
        let processes: i64 = serving.filter_map(|(worker, _)| worker.facts.concurrency).sum();
        line(out, "celery_active_process_count", &[("queue_name", &queue.name)], processes as f64);
    }
}

fn write_workers(out: &mut String, workers: &[(Worker, bool)]) {
    head(out, "celery_worker_up", "gauge", "1 while the worker's heartbeats come");
    for (worker, online) in workers.iter().take(MAX_WORKERS) {
        line(out, "celery_worker_up", &[("hostname", &worker.hostname)], f64::from(u8::from(*online)));
    }
    head(out, "celery_worker_tasks_active", "gauge", "Tasks that the worker runs now");
    for (worker, online) in workers.iter().take(MAX_WORKERS) {
        let active = worker.facts.active.filter(|_| *online).unwrap_or(0);
        line(out, "celery_worker_tasks_active", &[("hostname", &worker.hostname)], active as f64);
    }
}

fn head(out: &mut String, metric: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} {kind}");
}

fn line(out: &mut String, metric: &str, labels: &[(&str, &str)], value: f64) {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
    let _ = writeln!(out, "{metric}{{{}}} {value}", labels.join(","));
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::clock::Time;

    fn figure(measure: &str, bucket: i16, name: &str, amount: i64) -> Figure {
        let (measure, name, queue) = (measure.to_owned(), name.to_owned(), "celery".to_owned());
        Figure { at: Time(0), measure, bucket, name, queue, amount }
    }

    #[test]
    fn counters_and_histograms_carry_the_exporters_names() {
        let found = vec![
            figure("accepted", -1, "tasks.add", 3),
            figure("succeeded", -1, "tasks.add", 2),
            figure("run", 0, "tasks.add", 1),
            figure("run", 25, "tasks.add", 1),
            figure("run_us", -1, "tasks.add", 1_500_000),
        ];
        let mut out = String::new();
        tasks(&mut out, &Figures::of(found));
        for line in [
            "celery_task_succeeded_total{name=\"tasks.add\",queue_name=\"celery\"} 2",
            "celery_tasks_total{state=\"SUCCESS\",name=\"tasks.add\",queue_name=\"celery\"} 2",
            "celery_task_runtime_bucket{name=\"tasks.add\",queue_name=\"celery\",le=\"0.001\"} 1",
            "celery_task_runtime_bucket{name=\"tasks.add\",queue_name=\"celery\",le=\"100000\"} 1",
            "celery_task_runtime_bucket{name=\"tasks.add\",queue_name=\"celery\",le=\"+Inf\"} 2",
            "celery_task_duration_seconds_sum{name=\"tasks.add\",queue_name=\"celery\"} 1.5",
        ] {
            assert!(out.lines().any(|known| known == line), "{line} is missing in\n{out}");
        }
    }

    #[test]
    fn failures_say_their_exceptions_and_what_never_happened_is_zero() {
        let raised = |class: &str, amount| Figure {
            queue: ledger::raised(class, "celery"),
            ..figure("raised", -1, "tasks.add", amount)
        };
        let found = vec![figure("accepted", -1, "tasks.add", 9), figure("failed", -1, "tasks.add", 5)];
        let mut out = String::new();
        tasks(&mut out, &Figures::of(found).with_failures(vec![raised("KeyError", 1), raised("ValueError", 3)]));
        let of = |class: &str| {
            format!("celery_task_failed_total{{name=\"tasks.add\",queue_name=\"celery\",exception=\"{class}\"}}")
        };
        for (class, amount) in [("", 0), ("ValueError", 3), ("KeyError", 1), ("other", 1)] {
            let line = format!("{} {amount}", of(class));
            assert!(out.lines().any(|shown| shown == line), "{line} is missing in\n{out}");
        }
        let zero = "celery_task_rejected_total{name=\"tasks.add\",queue_name=\"celery\"} 0";
        assert!(out.lines().any(|shown| shown == zero), "{out}");
    }

    #[test]
    fn rare_exceptions_are_counted_together() {
        let raised = |n: i64| Figure {
            queue: ledger::raised(&format!("E{n:02}"), "celery"),
            ..figure("raised", -1, "tasks.add", 100 - n)
        };
        let mut out = String::new();
        let found = vec![figure("failed", -1, "tasks.add", (0..30).map(|n| 100 - n).sum())];
        tasks(&mut out, &Figures::of(found).with_failures((0..30).map(raised).collect()));
        let rest: i64 = (20..30).map(|n| 100 - n).sum();
        assert!(out.contains(&format!("exception=\"other\"}} {rest}\n")), "{out}");
        assert_eq!(out.matches("exception=\"E").count(), MAX_EXCEPTIONS);
    }

    #[test]
    fn rare_names_are_counted_together() {
        let mut found: Vec<Figure> = (0..200).map(|n| figure("accepted", -1, &format!("t{n}"), 1_000 - n)).collect();
        found.push(figure("failed", -1, "t199", 7));
        let figures = Figures::of(found);
        assert_eq!(figures.counts("accepted").count(), MAX_PAIRS + 1);
        assert_eq!(figures.counts("failed").collect::<Vec<_>>(), [(&(OTHER.to_owned(), OTHER.to_owned()), 7)]);
    }

    #[test]
    fn labels_cannot_break_a_line() {
        let mut out = String::new();
        line(&mut out, "m", &[("name", "a\"b\\c\nd")], 1.0);
        assert_eq!(out, "m{name=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
