//! Advice about sizes: tasks that are too short to be worth a message each, results that belong in a store, workers that have grown
//! large. Each is a sentence with its figures; [`super::incidents`] and `taskgate check` tell them.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::{Error, Figure, Ledger, Span, Window, Worker};
use runtime::clock::Time;

use super::incident_kind::Kind;
use crate::reconcile::workers::is_online;

/// What is looked back at.
const LOOK_BACK: Duration = Duration::from_hours(1);
/// So many tasks of one name in that time,
const MANY: i64 = 1_000;
/// each of which took less than this, cost more to carry than to run.
const SHORT_SECS: f64 = 1.0;
/// A result above this is carried through Redis, the ledger and every answer.
const LARGE_RESULT: i64 = 1 << 20;
/// The newest results of a name that are looked at,
const SAMPLE: i64 = 5;
/// that were submitted within this time,
const RESULTS_SINCE: Duration = Duration::from_hours(24);
/// of so many names, those with the most tasks first.
const NAMES: usize = 20;
/// From here on a worker is told of, in KiB.
const LARGE_WORKER: i64 = 1 << 20;

/// A piece of advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    pub kind: Kind,
    /// A task's name, or a worker.
    pub subject: String,
    pub detail: String,
}

/// Tasks of one name in the last hour.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Runs {
    count: i64,
    /// Together.
    micros: i64,
}

/// Asks the ledger.
///
/// # Errors
/// When it does not answer.
pub async fn look(ledger: &dyn Ledger, now: Time) -> Result<Vec<Advice>, Error> {
    let minute = i64::from(Span::Minute.secs()) * 1_000_000;
    let window = Window {
        span: Span::Minute,
        from: now.minus(LOOK_BACK),
        to: now,
        step_micros: minute * 60,
        measures: vec!["run", "run_us"],
        names: Vec::new(),
        queues: Vec::new(),
        by_name: true,
        by_queue: false,
    };
    let runs = by_name(&ledger.figures(&window).await?);
    let mut found: Vec<Advice> = runs.iter().filter_map(|(name, runs)| short(name, *runs)).collect();
    let mut names: Vec<(&String, &Runs)> = runs.iter().collect();
    names.sort_by_key(|(_, runs)| std::cmp::Reverse(runs.count));
    for (name, _) in names.into_iter().take(NAMES) {
        found.extend(large(name, &ledger.result_sizes(name, now.minus(RESULTS_SINCE), SAMPLE).await?));
    }
    let workers = ledger.workers().await?;
    found.extend(workers.iter().filter(|worker| is_online(worker, now)).filter_map(grown));
    Ok(found)
}

fn by_name(figures: &[Figure]) -> BTreeMap<String, Runs> {
    let mut runs: BTreeMap<String, Runs> = BTreeMap::new();
    for figure in figures.iter().filter(|figure| !figure.name.is_empty()) {
        let sum = runs.entry(figure.name.clone()).or_default();
        match figure.measure.as_str() {
            "run" => sum.count += figure.amount,
            _ => sum.micros += figure.amount,
        }
    }
    runs
}

fn short(name: &str, runs: Runs) -> Option<Advice> {
    let secs = runs.micros as f64 / 1e6 / runs.count.max(1) as f64;
    let detail = format!(
        "{name} ran {} times in the last hour, for {secs:.3} s each: let one task do many of them (`split` in the catalog cuts a list \
         into batches)",
        runs.count
    );
    let is_short = runs.count >= MANY && secs < SHORT_SECS;
    is_short.then(|| Advice { kind: Kind::ShortTasks, subject: name.to_owned(), detail })
}

fn large(name: &str, sizes: &[i64]) -> Option<Advice> {
    let count = sizes.iter().filter(|size| **size > LARGE_RESULT).count();
    let most = *sizes.iter().max()? as f64 / LARGE_RESULT as f64;
    let detail = format!(
        "{count} of the {} newest results of {name} have more than 1 MiB, the largest {most:.1} MiB: let the task store what it made, and \
         return where it is",
        sizes.len()
    );
    (count > 0).then(|| Advice { kind: Kind::LargeResults, subject: name.to_owned(), detail })
}

fn grown(worker: &Worker) -> Option<Advice> {
    let kib = worker.facts.memory_kib.filter(|kib| *kib >= LARGE_WORKER)?;
    let each = worker.facts.concurrency.filter(|count| *count > 0).map_or_else(String::new, |count| {
        format!(", {} MiB for each of the {count} tasks that it runs at once", kib / 1024 / count)
    });
    let detail = format!(
        "{} has {} MiB resident{each}: lower its concurrency, or let `max_memory_per_child` end children that grow",
        worker.hostname,
        kib / 1024
    );
    Some(Advice { kind: Kind::LargeWorker, subject: worker.hostname.clone(), detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::WorkerFacts;

    #[test]
    fn a_thousand_short_tasks_are_told_with_their_figures() {
        let short = |count, micros| short("a.b", Runs { count, micros });
        let told = short(2_000, 100_000_000).unwrap().detail;
        assert!(told.contains("a.b ran 2000 times") && told.contains("0.050 s each"), "{told}");
        assert_eq!(short(999, 1), None, "few");
        assert_eq!(short(2_000, 2_000_000_000), None, "a second each");
    }

    #[test]
    fn figures_are_summed_by_name() {
        let figure = |name: &str, measure: &str, bucket, amount| Figure {
            at: Time(0),
            measure: measure.into(),
            bucket,
            name: name.into(),
            queue: String::new(),
            amount,
        };
        let runs = by_name(&[figure("a", "run", 1, 3), figure("a", "run", 2, 4), figure("a", "run_us", -1, 9)]);
        assert_eq!(runs["a"], Runs { count: 7, micros: 9 });
    }

    #[test]
    fn large_results_are_told_with_their_size() {
        assert_eq!(large("a", &[10, LARGE_RESULT]), None);
        assert_eq!(large("a", &[]), None);
        let told = large("a", &[3 << 20, 10]).unwrap().detail;
        assert!(told.contains("1 of the 2 newest") && told.contains("3.0 MiB"), "{told}");
    }

    #[test]
    fn a_worker_that_has_grown_is_told_with_its_share_of_a_task() {
        let facts = |memory_kib| WorkerFacts { memory_kib, concurrency: Some(4), ..WorkerFacts::default() };
        let worker =
            |memory| Worker { hostname: "w@h".into(), seen_at: Time(0), offline_at: None, facts: facts(memory) };
        assert_eq!(grown(&worker(None)), None);
        assert_eq!(grown(&worker(Some(1000))), None);
        let told = grown(&worker(Some(2 << 20))).unwrap().detail;
        assert!(told.contains("2048 MiB resident") && told.contains("512 MiB for each of the 4"), "{told}");
    }
}
