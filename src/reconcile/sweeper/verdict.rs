//! What is to be done about a task, from what was found of it. Pure.
//!
//! Nothing is done while somebody may still have the task: a worker that answers for it, a worker that lives and did not answer,
//! a message in a list. Only what nobody has is put right, and what may have run before is run again only where that is safe.

use broker::Reservation;
use celery::task::Phase;
use ledger::Task;

/// Where a task's message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Waits in a list.
    Listed,
    /// In `unacked`.
    Reserved(Reservation),
    Nowhere,
}

/// What is known of the worker that has the task, by the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It was asked, and does not have it.
    Denies,
    /// No heartbeat and no answer for longer than anybody alive would be silent.
    Dead,
    /// It may have it.
    Unclear,
}

/// All that was found.
#[derive(Debug, Clone)]
pub struct Evidence {
    pub place: Place,
    /// A worker says that it has it, or may have it where it cannot be seen.
    pub is_held: bool,
    pub owner: Owner,
    /// Every worker that may be alive answered, so that what none of them has, nobody has.
    pub all_answered: bool,
    /// A worker that tells nothing before it has run a task may have taken it, and is gone.
    pub may_have_run: bool,
    /// Redis is known to have lost data after it was queued: that explains its absence.
    pub loss_is_known: bool,
    /// Its task acknowledges after it ran: running it again is what its author asked for.
    pub acks_late: bool,
}

/// How a difference is repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// A further delivery from the outbox.
    Requeue(String),
    /// The message in `unacked` goes back to its list.
    Restore(Reservation, String),
    /// The message in `unacked` goes, and the task ends as lost.
    Discard(Reservation, String),
    /// Nothing is left of it.
    Lose(String),
}

/// `None` when all is well, or not clear enough.
pub fn judge(task: &Task, found: &Evidence) -> Option<Remedy> {
    if task.adopted || found.is_held || found.place == Place::Listed {
        return None;
    }
    // A step whose turn has come waits in no other way than what was queued.
    if matches!(task.phase, Phase::Queued | Phase::Waiting) {
        return never_received(task, found);
    }
    if found.owner == Owner::Unclear {
        return None;
    }
    let worker = task.worker.as_deref().unwrap_or("a worker");
    let gone = match found.owner {
        Owner::Dead => format!("{worker} had it and is gone"),
        Owner::Denies | Owner::Unclear => format!("{worker} had it and does not have it any more"),
    };
    match &found.place {
        Place::Reserved(_) if !found.all_answered => None,
        Place::Reserved(reservation) if reports(task) => {
            let reason = format!("{gone}; its recovery policy is report, its message was removed");
            Some(Remedy::Discard(reservation.clone(), reason))
        }
        Place::Reserved(reservation) => {
            Some(Remedy::Restore(reservation.clone(), format!("{gone}, its message went back to the queue")))
        }
        Place::Listed | Place::Nowhere => Some(without_message(task, found, &gone)),
    }
}

/// No worker was heard to have it: to run it is to run it for the first time. Unless its start was not heard, and a worker that is
/// too busy to answer runs it: where no loss explains its absence, all must have answered, and none may have run it unheard.
fn never_received(task: &Task, found: &Evidence) -> Option<Remedy> {
    match &found.place {
        Place::Reserved(reservation) if found.all_answered => {
            let reason = "a worker took it and was never heard of again, its message went back to the queue";
            Some(Remedy::Restore(reservation.clone(), reason.to_owned()))
        }
        Place::Nowhere if found.all_answered && found.may_have_run && !found.loss_is_known => {
            Some(without_message(task, found, "a worker with a solo pool may have taken it and is gone"))
        }
        Place::Nowhere if found.all_answered || found.loss_is_known => {
            Some(Remedy::Requeue("Redis lost its message, it is queued again".to_owned()))
        }
        Place::Nowhere | Place::Reserved(_) | Place::Listed => None,
    }
}

/// A worker had it, and no message is left.
fn without_message(task: &Task, found: &Evidence, gone: &str) -> Remedy {
    if task.phase == Phase::Retrying && !reports(task) {
        return Remedy::Requeue(format!("{gone}, and its next attempt with it; it is queued again"));
    }
    // A live worker without it has finished it: only nobody knows how.
    let has_ended = task.ignore_result && found.owner == Owner::Denies;
    if has_ended {
        return Remedy::Lose(format!("{gone}, and it stores no result: outcome not recorded"));
    }
    if task.options.recovery.as_deref() == Some("rerun") {
        return Remedy::Requeue(format!("{gone}; its recovery policy is rerun, it is queued again"));
    }
    if found.acks_late && !reports(task) {
        return Remedy::Requeue(format!("{gone}; it acknowledges late, so it is queued again"));
    }
    Remedy::Lose(format!("{gone}; it may have run, and is not known to be safe to run again"))
}

fn reports(task: &Task) -> bool {
    task.options.recovery.as_deref() == Some("report")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::sample_task;
    use runtime::clock::Time;

    fn reservation() -> Reservation {
        Reservation { tag: "t".into(), score: "1".into(), redelivered: false }
    }

    fn evidence(place: Place, owner: Owner) -> Evidence {
        Evidence {
            place,
            is_held: false,
            owner,
            all_answered: true,
            may_have_run: false,
            loss_is_known: false,
            acks_late: false,
        }
    }

    fn task(phase: Phase, recovery: Option<&str>) -> Task {
        let mut task = sample_task("t", phase, Time(0));
        task.options.recovery = recovery.map(str::to_owned);
        task
    }

    #[test]
    fn what_somebody_may_have_is_left_alone() {
        let running = task(Phase::Running, Some("rerun"));
        assert_eq!(judge(&running, &evidence(Place::Nowhere, Owner::Unclear)), None);
        assert_eq!(judge(&running, &evidence(Place::Listed, Owner::Dead)), None);
        let held = Evidence { is_held: true, ..evidence(Place::Nowhere, Owner::Dead) };
        assert_eq!(judge(&running, &held), None);
        let unsure = Evidence { all_answered: false, ..evidence(Place::Reserved(reservation()), Owner::Dead) };
        assert_eq!(judge(&running, &unsure), None);
        let adopted = Task { adopted: true, ..task(Phase::Queued, None) };
        assert_eq!(judge(&adopted, &evidence(Place::Nowhere, Owner::Dead)), None);
    }

    #[test]
    fn what_never_reached_a_worker_is_queued_again_whatever_its_policy() {
        let verdict = judge(&task(Phase::Queued, Some("report")), &evidence(Place::Nowhere, Owner::Unclear));
        assert!(matches!(verdict, Some(Remedy::Requeue(_))), "{verdict:?}");
        let verdict = judge(&task(Phase::Queued, None), &evidence(Place::Reserved(reservation()), Owner::Unclear));
        assert!(matches!(verdict, Some(Remedy::Restore(..))), "{verdict:?}");
    }

    #[test]
    fn a_silent_worker_may_run_what_was_never_heard_of_unless_a_loss_explains_it() {
        let silent = Evidence { all_answered: false, ..evidence(Place::Nowhere, Owner::Unclear) };
        assert_eq!(judge(&task(Phase::Queued, None), &silent), None);
        let lost = Evidence { loss_is_known: true, ..silent };
        assert!(matches!(judge(&task(Phase::Queued, None), &lost), Some(Remedy::Requeue(_))));
    }

    #[test]
    fn what_a_silent_worker_may_have_run_before_it_died_is_settled_by_policy() {
        let gone = Evidence { may_have_run: true, ..evidence(Place::Nowhere, Owner::Denies) };
        assert!(matches!(judge(&task(Phase::Queued, None), &gone), Some(Remedy::Lose(_))));
        assert!(matches!(judge(&task(Phase::Queued, Some("rerun")), &gone), Some(Remedy::Requeue(_))));
        let lost = Evidence { loss_is_known: true, ..gone };
        assert!(matches!(judge(&task(Phase::Queued, None), &lost), Some(Remedy::Requeue(_))));
    }

    #[test]
    fn a_message_in_unacked_goes_back_unless_the_policy_is_report() {
        let found = evidence(Place::Reserved(reservation()), Owner::Dead);
        assert!(matches!(judge(&task(Phase::Running, None), &found), Some(Remedy::Restore(..))));
        assert!(matches!(judge(&task(Phase::Running, Some("report")), &found), Some(Remedy::Discard(..))));
    }

    #[test]
    fn what_ran_without_a_message_runs_again_only_where_that_is_safe() {
        let found = evidence(Place::Nowhere, Owner::Dead);
        assert!(matches!(judge(&task(Phase::Running, None), &found), Some(Remedy::Lose(_))));
        assert!(matches!(judge(&task(Phase::Running, Some("rerun")), &found), Some(Remedy::Requeue(_))));
        assert!(matches!(judge(&task(Phase::Retrying, None), &found), Some(Remedy::Requeue(_))));
        let late = Evidence { acks_late: true, ..found };
        assert!(matches!(judge(&task(Phase::Running, None), &late), Some(Remedy::Requeue(_))));
        assert!(matches!(judge(&task(Phase::Running, Some("report")), &late), Some(Remedy::Lose(_))));
    }

    #[test]
    fn a_task_that_stores_nothing_and_is_gone_from_a_live_worker_has_ended() {
        let silent = Task { ignore_result: true, ..task(Phase::Running, Some("rerun")) };
        let Some(Remedy::Lose(reason)) = judge(&silent, &evidence(Place::Nowhere, Owner::Denies)) else { panic!() };
        assert!(reason.contains("outcome not recorded"));
    }
}
