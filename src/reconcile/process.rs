//! Decides whether a worker's name still belongs to the same process as before, and which tasks it may have. Pure.
//!
//! A worker *lives* while it is the same process: same host name, process id and start. A worker restarted under its old name is a new
//! process, which does not have the old one's tasks. But a worker that only lost its connection announces itself again too, and in a
//! container every process has the same id; then the uptime that it reports decides, and until then it is unknown. Where two workers
//! share a name, nothing is known about either.

use std::time::Duration;

use ledger::{Task, Worker, WorkerFacts};
use runtime::clock::Time;

/// Reported start times that differ by more than this are different starts.
const APART: Duration = Duration::from_secs(5);
/// A worker announces itself within this time after its process began.
const BOOT: Duration = Duration::from_secs(15);
/// A name that was shared counts as shared for this much longer.
const SHARED: Duration = Duration::from_mins(10);
/// Clocks of workers and replicas are assumed to differ by less than this.
const SKEW: Duration = Duration::from_secs(10);

/// What is known about the process that had the name at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sameness {
    /// It still has the name.
    Same,
    /// Another process has it now.
    Replaced,
    Unknown,
}

/// Whether the worker is the same process as at the time `at`, by its own clock.
pub fn since(worker: &Worker, at: Time) -> Sameness {
    let facts = &worker.facts;
    if is_shared(facts) {
        return Sameness::Unknown;
    }
    if facts.replaced_at.is_some_and(|replaced| at.0 < replaced) {
        return Sameness::Replaced;
    }
    match facts.doubted_at {
        Some(doubted) if at.0 < doubted => {
            let began = facts.began_at.map(Time);
            if began.is_some_and(|began| at.plus(SKEW) < began) { Sameness::Replaced } else { Sameness::Unknown }
        }
        _ => Sameness::Same,
    }
}

/// Whether a task that was taken at this time may have been with the process that had the name before: the last sign of that one came
/// before it, the first sign of the present one after it.
pub fn may_be_of_the_former(worker: &Worker, at: Time) -> bool {
    let Some((from, to)) = worker.facts.replaced_at.zip(worker.facts.taken_over_at) else { return false };
    !is_shared(&worker.facts) && (from..to).contains(&at.0)
}

/// Whether several workers recently used this name.
pub fn is_shared(facts: &WorkerFacts) -> bool {
    let last = facts.heard_at.max(facts.replied_at).map_or(Time(0), Time);
    facts.shared_at.is_some_and(|at| last.since(Time(at)) < SHARED)
}

/// Whether the worker serves the task's queue. A worker that never reported its queues may serve any.
pub fn serves(worker: &Worker, task: &Task) -> bool {
    let queues = &worker.facts.queues;
    queues.is_empty() || task.queue.as_ref().is_none_or(|queue| queues.contains(queue))
}

/// Handles the worker's event that it came online, `at` this time by its own clock.
pub fn hear_online(facts: &mut WorkerFacts, pid: Option<i64>, at: Time) {
    if is_late(facts, at) {
        return;
    }
    let is_first = facts.heard_at.is_none() && facts.replied_at.is_none();
    if is_first || is_other(facts, pid) {
        replace(facts, pid, at, at);
    } else {
        facts.doubted_at = Some(at.0);
        facts.cut_at = Some(at.0);
    }
    note(facts, pid, at);
}

/// Handles any other event. A worker whose count of processed tasks went down has been restarted.
pub fn hear_beat(facts: &mut WorkerFacts, pid: Option<i64>, processed: Option<i64>, at: Time) {
    if is_late(facts, at) {
        return;
    }
    let is_less = processed.zip(facts.processed).is_some_and(|(now, before)| now < before);
    if is_less || is_other(facts, pid) {
        // Tasks taken between the two events may be with either process.
        let last = facts.heard_at.or(facts.replied_at).map_or(at, Time);
        replace(facts, pid, last, at);
    }
    note(facts, pid, at);
    facts.processed = processed.or(facts.processed);
}

/// Handles the worker's answer about its uptime.
pub fn hear_uptime(facts: &mut WorkerFacts, pid: Option<i64>, uptime: Option<Duration>, now: Time) {
    let began = uptime.map(|uptime| now.minus(uptime + Duration::from_secs(1)));
    let later = |than: i64| began.is_some_and(|began| began > Time(than).plus(APART));
    let is_later = match (facts.began_at, facts.doubted_at) {
        (Some(before), _) => later(before),
        (None, Some(doubted)) => began.is_some_and(|began| began.plus(BOOT) > Time(doubted)),
        (None, None) => false,
    };
    if is_later || is_other(facts, pid) {
        let last = facts.doubted_at.or(facts.heard_at).or(facts.replied_at);
        replace(facts, pid, last.map_or(now, Time), now);
    }
    if began.is_some() {
        facts.doubted_at = None;
    }
    facts.began_at = began.map(|began| began.0).or(facts.began_at);
    (facts.replied_at, facts.deaf) = (Some(now.0), false);
    facts.pid = pid.or(facts.pid);
}

/// Whether an event is older than the newest one, so that it may come from a dead process.
fn is_late(facts: &WorkerFacts, at: Time) -> bool {
    facts.heard_at.is_some_and(|last| at.0 < last)
}

fn is_other(facts: &WorkerFacts, pid: Option<i64>) -> bool {
    facts.pid.zip(pid).is_some_and(|(before, now)| before != now)
}

/// Replaces the process: nothing that the old one reported applies to the new one. `at` is the last sign of the old one, `sign` the first of
/// the new one.
fn replace(facts: &mut WorkerFacts, pid: Option<i64>, at: Time, sign: Time) {
    if is_other(facts, pid) {
        if pid == facts.former_pid {
            facts.shared_at = facts.heard_at.or(Some(at.0));
        }
        facts.former_pid = facts.pid;
    }
    (facts.replaced_at, facts.taken_over_at) = (Some(at.0), Some(sign.0));
    (facts.doubted_at, facts.cut_at, facts.began_at) = (None, None, None);
    (facts.active, facts.processed, facts.tells, facts.replied_at) = (None, None, None, None);
    facts.tasks = None;
    facts.deaf = false;
}

fn note(facts: &mut WorkerFacts, pid: Option<i64>, at: Time) {
    facts.pid = pid.or(facts.pid);
    facts.heard_at = Some(facts.heard_at.map_or(at.0, |before| before.max(at.0)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(at: i64) -> Time {
        Time(at * 1_000_000)
    }

    fn at(facts: &WorkerFacts, seconds: i64) -> Sameness {
        let worker = Worker { hostname: "w1@h".into(), seen_at: Time(0), offline_at: None, facts: facts.clone() };
        since(&worker, secs(seconds))
    }

    /// A worker first seen by a heartbeat: it may have been running for long.
    fn known(pid: i64) -> WorkerFacts {
        let mut facts = WorkerFacts::default();
        hear_beat(&mut facts, Some(pid), Some(5), secs(100));
        facts
    }

    #[test]
    fn a_worker_that_goes_on_is_the_same_however_long_ago() {
        let mut facts = known(7);
        hear_beat(&mut facts, Some(7), Some(6), secs(200));
        hear_uptime(&mut facts, Some(7), Some(Duration::from_secs(500)), secs(210));
        hear_uptime(&mut facts, Some(7), Some(Duration::from_secs(531)), secs(240));
        assert_eq!((at(&facts, -200), at(&facts, 150)), (Sameness::Same, Sameness::Same));
    }

    #[test]
    fn a_task_between_the_last_sign_of_one_process_and_the_first_of_the_next_may_be_with_either() {
        let mut facts = known(7);
        hear_beat(&mut facts, Some(8), Some(0), secs(110));
        let worker = Worker { hostname: "w1@h".into(), seen_at: Time(0), offline_at: None, facts };
        let either = [99, 100, 109, 110].map(|second| may_be_of_the_former(&worker, secs(second)));
        assert_eq!(either, [false, true, true, false]);
        let worker = Worker { facts: known(7), ..worker };
        assert!(!may_be_of_the_former(&worker, secs(150)));
    }

    #[test]
    fn another_number_is_another_process() {
        let mut facts = known(7);
        hear_online(&mut facts, Some(8), secs(104));
        assert_eq!((at(&facts, 103), at(&facts, 105)), (Sameness::Replaced, Sameness::Same));
        let mut facts = known(7);
        hear_beat(&mut facts, Some(8), Some(0), secs(110));
        assert_eq!(at(&facts, 99), Sameness::Replaced);
        assert_eq!(at(&facts, 105), Sameness::Same, "either may have it: the one that lives is not robbed");
    }

    #[test]
    fn fewer_tasks_than_before_tell_of_a_new_process_with_the_same_number() {
        let mut facts = known(1);
        hear_beat(&mut facts, Some(1), Some(0), secs(110));
        assert_eq!(at(&facts, 99), Sameness::Replaced);
    }

    #[test]
    fn one_that_announces_itself_again_is_in_doubt_until_it_says_how_long_it_is_up() {
        let reconnected = |uptime: u64| {
            let mut facts = known(1);
            hear_uptime(&mut facts, Some(1), Some(Duration::from_secs(50)), secs(101));
            hear_online(&mut facts, Some(1), secs(110));
            assert_eq!((at(&facts, 105), at(&facts, 111)), (Sameness::Unknown, Sameness::Same));
            hear_uptime(&mut facts, Some(1), Some(Duration::from_secs(uptime)), secs(112));
            facts
        };
        let same = reconnected(61);
        assert_eq!((at(&same, 105), same.cut_at), (Sameness::Same, Some(secs(110).0)));
        assert_eq!(at(&reconnected(3), 105), Sameness::Replaced);
    }

    #[test]
    fn one_that_was_never_asked_is_new_when_it_began_just_before_it_came_online() {
        let asked_first_afterwards = |uptime: u64| {
            let mut facts = known(1);
            hear_online(&mut facts, Some(1), secs(110));
            hear_uptime(&mut facts, Some(1), Some(Duration::from_secs(uptime)), secs(112));
            at(&facts, 105)
        };
        assert_eq!(asked_first_afterwards(4), Sameness::Replaced);
        assert_eq!(asked_first_afterwards(4_000), Sameness::Same);
    }

    #[test]
    fn the_first_word_of_a_worker_that_comes_online_begins_its_life() {
        let mut facts = WorkerFacts::default();
        hear_online(&mut facts, Some(1), secs(50));
        assert_eq!((at(&facts, 49), at(&facts, 51)), (Sameness::Replaced, Sameness::Same));
    }

    #[test]
    fn of_two_workers_that_share_a_name_nothing_is_known() {
        let mut facts = known(7);
        hear_beat(&mut facts, Some(8), Some(9), secs(101));
        hear_beat(&mut facts, Some(7), Some(5), secs(102));
        assert_eq!((at(&facts, 50), at(&facts, 103)), (Sameness::Unknown, Sameness::Unknown));
        hear_beat(&mut facts, Some(7), Some(5), secs(900));
        assert_eq!(at(&facts, 800), Sameness::Same, "the other one is gone for long");
    }

    #[test]
    fn a_late_word_of_a_process_that_is_gone_changes_nothing() {
        let mut facts = known(7);
        hear_online(&mut facts, Some(8), secs(104));
        hear_beat(&mut facts, Some(7), Some(5), secs(102));
        assert_eq!((at(&facts, 105), facts.pid, facts.shared_at), (Sameness::Same, Some(8), None));
    }

    #[test]
    fn what_the_old_process_said_of_itself_is_forgotten() {
        let mut facts = WorkerFacts { tells: Some(true), active: Some(3), ..known(7) };
        hear_online(&mut facts, Some(8), secs(104));
        assert_eq!((facts.tells, facts.active, facts.processed), (None, None, None));
    }
}
