//! Computes what each event adds to the statistics. Pure.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use celery::task::Phase;
use ledger::{Count, Counted, End, Ended, FailureKind, REJECTED, Span, Tally, raised};
use runtime::clock::Time;

/// Upper bounds of the histogram buckets in seconds; a value above the last bound falls into an extra bucket.
pub const BOUNDS: [f64; 25] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0,
    1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0, 100_000.0,
];
/// The bucket for events that are counted but not measured.
pub const COUNT: i16 = -1;
/// Longest error message kept for a kind of failure, in characters.
const MAX_MESSAGE: usize = 500;
/// Longest task or queue name kept, in characters, because it is part of an index.
const MAX_NAME: usize = 255;
/// Longest name of an exception kept beside a queue, in characters.
const MAX_EXCEPTION: usize = 100;

/// The bucket for a number of seconds.
pub fn bound_of(secs: f64) -> i16 {
    i16::try_from(BOUNDS.iter().take_while(|bound| secs > **bound).count()).expect("there are 25 bounds")
}

/// The task and queue that a figure is counted for.
#[derive(Clone, Copy)]
struct Owner<'a> {
    at: Time,
    name: &'a str,
    queue: &'a str,
}

#[derive(Default)]
struct Sums(BTreeMap<Counted, i64>);

impl Sums {
    fn add(&mut self, owner: Owner<'_>, measure: &'static str, bucket: i16, amount: i64) {
        self.add_to(&Span::ALL, owner, measure, bucket, amount);
    }

    fn add_to(&mut self, spans: &[Span], owner: Owner<'_>, measure: &'static str, bucket: i16, amount: i64) {
        for &span in spans {
            let counted = Counted {
                span,
                at: span.start(owner.at),
                measure,
                bucket,
                name: owner.name.chars().take(MAX_NAME).collect(),
                queue: owner.queue.chars().take(MAX_NAME).collect(),
            };
            *self.0.entry(counted).or_default() += amount;
        }
    }
}

/// The amounts and kinds of failures in a section of the feed.
pub fn fold(tally: Tally) -> (Vec<(Counted, i64)>, Vec<FailureKind>) {
    let mut sums = Sums::default();
    let mut kinds: BTreeMap<String, FailureKind> = BTreeMap::new();
    for count in &tally.counts {
        let owner = owner(count.at, &count.name, &count.queue);
        if count.is_first {
            sums.add(owner, "accepted", COUNT, count.amount);
        }
        if let Some(measure) = measure(count) {
            sums.add(owner, measure, COUNT, count.amount);
        }
    }
    for end in tally.ends {
        let owner = owner(end.at, &end.name, &end.queue);
        sums.add(owner, end.phase.as_str(), COUNT, 1);
        times(&mut sums, owner, &end.ended);
        if matches!(end.phase, Phase::Failed | Phase::Lost) {
            let kind = kind(&end);
            sums.add(Owner { name: &kind.fingerprint, queue: "", ..owner }, "error", COUNT, 1);
            if end.phase == Phase::Failed {
                let exception: String = kind.kind.chars().take(MAX_EXCEPTION).collect();
                let queue = raised(&exception, owner.queue);
                sums.add_to(&[Span::Ever], Owner { queue: &queue, ..owner }, "raised", COUNT, 1);
            }
            match kinds.get_mut(&kind.fingerprint) {
                Some(known) => known.merge(kind),
                None => drop(kinds.insert(kind.fingerprint.clone(), kind)),
            }
        }
    }
    (sums.0.into_iter().collect(), kinds.into_values().collect())
}

fn owner<'a>(at: Time, name: &'a Option<String>, queue: &'a Option<String>) -> Owner<'a> {
    Owner { at, name: name.as_deref().unwrap_or(""), queue: queue.as_deref().unwrap_or("") }
}

/// The measure that counts a phase before the end.
fn measure(count: &Count) -> Option<&'static str> {
    match count.phase {
        Phase::Received => Some("received"),
        // A custom state is a report of a task that has started.
        Phase::Running if count.status == REJECTED => Some("rejected"),
        Phase::Running => (count.status == Phase::Running.status()).then_some("started"),
        Phase::Retrying => Some("retried"),
        _ => None,
    }
}

/// Adds how long the task waited for a worker (from when it could run) and how long it ran.
fn times(sums: &mut Sums, owner: Owner<'_>, ended: &Ended) {
    let Some(started) = ended.started_at else { return };
    let ready = ended.due_at.map_or(ended.submitted_at, |due| due.max(ended.submitted_at));
    let wait = started.since(ready).as_secs_f64();
    add_time(sums, owner, ("wait", "wait_us"), wait);
    let measured = ended.finished_at.map(|finished| finished.since(started).as_secs_f64());
    if let Some(run) = ended.runtime.filter(|run| run.is_finite() && *run >= 0.0).or(measured) {
        add_time(sums, owner, ("run", "run_us"), run);
    }
}

fn add_time(sums: &mut Sums, owner: Owner<'_>, (histogram, total): (&'static str, &'static str), secs: f64) {
    sums.add(owner, histogram, bound_of(secs), 1);
    sums.add(owner, total, COUNT, (secs * 1_000_000.0) as i64);
}

fn kind(end: &End) -> FailureKind {
    let name = end.name.clone().unwrap_or_default();
    let kind = end.ended.failure_type.clone().unwrap_or_else(|| end.phase.to_string());
    let frame = end.ended.traceback.as_deref().and_then(innermost);
    let fingerprint = digest(&name, &kind, frame.as_deref());
    let message = end.ended.failure_message.as_deref().unwrap_or("").chars().take(MAX_MESSAGE).collect();
    let (first_at, last_at, last_task_id) = (end.at, end.at, end.task_id.clone());
    FailureKind { fingerprint, name, kind, frame, message, first_at, last_at, last_task_id }
}

/// The fingerprint of a failure's kind: the task's name, the error's type and the innermost frame.
pub fn fingerprint(name: &str, phase: Phase, ended: &Ended) -> String {
    let frame = ended.traceback.as_deref().and_then(innermost);
    digest(name, ended.failure_type.as_deref().unwrap_or(phase.as_str()), frame.as_deref())
}

fn digest(name: &str, kind: &str, frame: Option<&str>) -> String {
    let mut hash = Sha256::new();
    for part in [name, kind, frame.unwrap_or("")] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// `app/tasks.py in crawl` from the last frame of a Python traceback, without the line number, which changes with every release.
fn innermost(traceback: &str) -> Option<String> {
    let line = traceback.lines().rev().find(|line| line.trim_start().starts_with("File \""))?;
    let (file, rest) = line.trim_start().strip_prefix("File \"")?.split_once('"')?;
    let function = rest.rsplit_once(" in ").map_or("", |(_, function)| function.trim());
    let mut parts: Vec<&str> = file.rsplit('/').take(2).collect();
    parts.reverse();
    Some(format!("{} in {function}", parts.join("/")).chars().take(MAX_NAME).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_frame_is_told_without_its_line() {
        let text = "Traceback (most recent call last):\n  File \"/a/b/app.py\", line 3, in run\n    x()\n  File \"/a/b/deep.py\", line 9, in x\n    raise ValueError\nValueError";
        assert_eq!(innermost(text).unwrap(), "b/deep.py in x");
        assert_eq!(innermost("no frames"), None);
    }

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        assert_eq!(bound_of(0.0), 0);
        assert_eq!(bound_of(0.001), 0);
        assert_eq!(bound_of(0.0011), 1);
        assert_eq!(bound_of(1e9), 25);
    }
}
