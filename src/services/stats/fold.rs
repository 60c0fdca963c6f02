//! What events add to the figures: pure.

use std::collections::BTreeMap;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::store::{Counted, Ended, Event, FailureKind, Span};
use crate::task::Phase;

/// Upper bounds of the histograms' buckets in seconds; a value above the last one falls into one more bucket.
pub const BOUNDS: [f64; 25] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0,
    1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0, 100_000.0,
];
/// The bucket of what is only counted.
pub const COUNT: i16 = -1;
/// The longest message that a kind of failure keeps, in characters.
const MAX_MESSAGE: usize = 500;
/// The longest name or queue that a figure keeps, in characters: it is part of an index.
const MAX_NAME: usize = 255;

/// Which bucket a number of seconds falls into.
pub fn bound_of(secs: f64) -> i16 {
    i16::try_from(BOUNDS.iter().take_while(|bound| secs > **bound).count()).expect("there are 25 bounds")
}

#[derive(Default)]
struct Sums(BTreeMap<Counted, i64>);

impl Sums {
    fn add(&mut self, event: &Event, measure: &'static str, bucket: i16, amount: i64) {
        let (name, queue) = (event.name.as_deref().unwrap_or(""), event.queue.as_deref().unwrap_or(""));
        self.add_as(event, measure, bucket, amount, (name, queue));
    }

    fn add_as(&mut self, event: &Event, measure: &'static str, bucket: i16, amount: i64, (name, queue): (&str, &str)) {
        for span in Span::ALL {
            let counted = Counted {
                span,
                at: span.start(event.at),
                measure,
                bucket,
                name: name.chars().take(MAX_NAME).collect(),
                queue: queue.chars().take(MAX_NAME).collect(),
            };
            *self.0.entry(counted).or_default() += amount;
        }
    }
}

/// The amounts and kinds of failures of a page of events; `ended` are the finished tasks among them.
pub fn fold(events: &[Event], ended: Vec<Ended>) -> (Vec<(Counted, i64)>, Vec<FailureKind>) {
    let ended: HashMap<i64, Ended> = ended.into_iter().map(|one| (one.task_no, one)).collect();
    let mut sums = Sums::default();
    let mut kinds: BTreeMap<String, FailureKind> = BTreeMap::new();
    for event in events {
        if event.seq == 1 {
            sums.add(event, "accepted", COUNT, 1);
        }
        if let Some(measure) = measure(event) {
            sums.add(event, measure, COUNT, 1);
        }
        let Some(ended) = ended.get(&event.task_no).filter(|_| event.phase.is_final()) else { continue };
        times(&mut sums, event, ended);
        if matches!(event.phase, Phase::Failed | Phase::Lost) {
            let kind = kind(event, ended);
            sums.add_as(event, "error", COUNT, 1, (&kind.fingerprint, ""));
            match kinds.get_mut(&kind.fingerprint) {
                Some(known) => known.merge(kind),
                None => drop(kinds.insert(kind.fingerprint.clone(), kind)),
            }
        }
    }
    (sums.0.into_iter().collect(), kinds.into_values().collect())
}

fn measure(event: &Event) -> Option<&'static str> {
    match event.phase {
        Phase::Received => Some("received"),
        // A custom state is a report of a task that has started.
        Phase::Running => (event.status == Phase::Running.status()).then_some("started"),
        Phase::Retrying => Some("retried"),
        Phase::Succeeded => Some("succeeded"),
        Phase::Failed => Some("failed"),
        Phase::Revoked => Some("revoked"),
        Phase::Expired => Some("expired"),
        Phase::Skipped => Some("skipped"),
        Phase::Lost => Some("lost"),
        Phase::Accepted | Phase::Held | Phase::Waiting | Phase::Queued => None,
    }
}

/// How long it waited for a worker (from when it could run) and how long it ran.
fn times(sums: &mut Sums, event: &Event, ended: &Ended) {
    let Some(started) = ended.started_at else { return };
    let ready = ended.due_at.map_or(ended.submitted_at, |due| due.max(ended.submitted_at));
    let wait = started.since(ready).as_secs_f64();
    add_time(sums, event, ("wait", "wait_us"), wait);
    let measured = ended.finished_at.map(|finished| finished.since(started).as_secs_f64());
    if let Some(run) = ended.runtime.filter(|run| run.is_finite() && *run >= 0.0).or(measured) {
        add_time(sums, event, ("run", "run_us"), run);
    }
}

fn add_time(sums: &mut Sums, event: &Event, (histogram, total): (&'static str, &'static str), secs: f64) {
    sums.add(event, histogram, bound_of(secs), 1);
    sums.add(event, total, COUNT, (secs * 1_000_000.0) as i64);
}

fn kind(event: &Event, ended: &Ended) -> FailureKind {
    let name = event.name.clone().unwrap_or_default();
    let kind = ended.failure_type.clone().unwrap_or_else(|| event.phase.to_string());
    let frame = ended.traceback.as_deref().and_then(innermost);
    let fingerprint = digest(&name, &kind, frame.as_deref());
    let message = ended.failure_message.as_deref().unwrap_or("").chars().take(MAX_MESSAGE).collect();
    let (first_at, last_at) = (event.at, event.at);
    FailureKind { fingerprint, name, kind, frame, message, first_at, last_at, last_task_id: event.task_id.to_string() }
}

/// What a failure has in common with others of its kind: the task's name, the error's type and the innermost frame.
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

/// `app/tasks.py in crawl` of the last frame of a Python traceback. Without its line, which moves with every release.
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
