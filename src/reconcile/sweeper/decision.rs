//! Decides what to do about a task from what is known about it. Pure: evidence in, decision out.
//!
//! Absence alone proves nothing. A message that cannot be found may have been taken and acknowledged by a live worker that has
//! finished it; so nothing runs again unless something explains the absence: Redis lost data, or the process that had the task, or
//! could have taken it, has died. Uncertain tasks are left alone, and reported.
//!
//! | what is known | may it run again | how it ends |
//! |---|---|---|
//! | a worker reports to have it, or its message is in a list | no | by its news |
//! | no worker has reported taking it, and Redis lost data since | yes | |
//! | the same, Redis lost nothing, and a worker of its queue that sends events died or was cut off since | yes, bounded | |
//! | the same, and no such worker died | never | by its record, else `ignored` |
//! | its worker lives and has acknowledged it | never | by its news, else `ignored` |
//! | the same, and the tasks that replaced it are unfinished | never | stays open, `waiting`; ends with its replacement |
//! | its worker lives, does not have it, has not acknowledged it | kombu's own redelivery, if it was never begun or nothing runs there | |
//! | its worker is dead, its message is in `unacked` | kombu's own redelivery, bounded | |
//! | its worker is dead, its message was acknowledged early | its recovery policy decides, bounded | `lost` |
//! | its worker is dead, and Redis lost the message that it had not acknowledged | yes, bounded | |
//! | anything else | no | stays open, and an incident says what is not known |
//!
//! The tests check these rows against the decision for every combination of evidence.

/// Where a task's message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a list, waiting.
    Listed,
    /// In `unacked`: a worker has it, or had it and died.
    Reserved,
    Nowhere,
    /// A key that may contain it could not be read.
    Unread,
}

/// How far the delivery got, according to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// No worker has reported taking it: it was published, or a worker sent it, or it is the next attempt after a retry.
    Queue,
    /// A worker has reported taking it, but not beginning it.
    Worker,
    /// A worker has reported beginning it.
    Start,
    /// It has replaced itself, and waits for its replacement.
    Replacement,
}

/// What is known about the process that has the task, or if no worker has reported taking it, about all that may have taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// The same process as when it took the task. Of those that may have taken it, none that sends events has died.
    Lives,
    /// Dead: it was silent for too long, or another process has its name. Of those that may have taken it, one that sends events died or
    /// was cut off since, and all others send events too.
    Died,
    /// Unknown whether it lives.
    Unknown,
}

/// The task's recovery policy for the death of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Unsaid,
    Rerun,
    Report,
}

/// Everything that is known about a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    pub place: Place,
    pub reached: Reached,
    pub taker: Taker,
    /// A worker reports to have it, or may hold it where questions do not show it.
    pub held: bool,
    /// All live workers that may have it and can be asked have answered.
    pub answered: bool,
    /// Redis lost data after it was queued.
    pub loss: bool,
    /// Its replacement, or a task that it sent, is unfinished.
    pub goes_on: bool,
    /// Its worker is alive and reports that it runs nothing at all.
    pub idle: bool,
    /// A dead worker may have run it unreported (a solo pool reports a task only when it is over).
    pub may_have_run: bool,
    pub policy: Policy,
    /// The task acknowledges late, so its author expects it to run again.
    pub acks_late: bool,
    /// It was delivered as often as allowed.
    pub exhausted: bool,
    /// Another client sent it: the gateway must not publish its message or put it back.
    pub adopted: bool,
    /// `[recovery] enabled`
    pub enabled: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: all is well, or the next survey may show more.
    Leave,
    /// Publish it again, as a further delivery.
    Requeue(Why),
    /// Put the message in `unacked` back into its list.
    Restore(Why),
    /// Remove the message in `unacked`, and end the task as lost.
    Discard(Why),
    /// End it as lost.
    Lose(Why),
    /// End it as ignored, if it stays silent for a while.
    Ignore(Why),
    /// Leave it open until its replacement ends.
    Await,
    /// End it as failed (`PoisonTask`), and remove its message.
    Poison,
    /// Nothing. If that lasts, an incident says what is not known.
    Unclear(Doubt),
}

impl Decision {
    /// Whether the task runs again although Redis lost nothing.
    pub fn is_rerun(self) -> bool {
        matches!(self, Self::Requeue(why) if !matches!(why, Why::RedisLostIt | Why::RedisLostReserved))
    }
}

/// The reason of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    RedisLostIt,
    /// Its worker died, and Redis lost its message, which stood in `unacked`.
    RedisLostReserved,
    TakenByTheDead,
    TakenByTheDeadUnheard,
    WorkerDied,
    WorkerDiedRerun,
    WorkerDiedLate,
    WorkerDiedReport,
    /// Its worker lives, has not acknowledged it, and no longer has it.
    Forgotten,
    /// Its worker lives, acknowledged it, and reports no more.
    NothingMore,
    /// Its worker sends no events, or dropped the message.
    NeverReported,
    ReplacementEnded,
    NotOurs,
}

/// What is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// Whether its worker lives.
    Worker,
    /// What its live worker does with the unacknowledged message.
    Unacknowledged,
    /// Whether to run it again, because repairs are switched off.
    SwitchedOff,
}

/// Decides what to do.
pub fn decide(known: &Evidence) -> Decision {
    if known.held || matches!(known.place, Place::Listed | Place::Unread) {
        return Decision::Leave;
    }
    let decision = match (known.reached, known.place) {
        (Reached::Queue, Place::Reserved) => taken_unheard(known),
        (Reached::Queue, _) => never_heard_of(known),
        (Reached::Worker | Reached::Start, Place::Reserved) => unacknowledged(known),
        // A step of its replacement has its id, and a worker took it.
        (Reached::Replacement, Place::Reserved) => Decision::Leave,
        (Reached::Worker | Reached::Start | Reached::Replacement, _) => acknowledged(known),
    };
    within_bounds(known, decision)
}

/// In `unacked`, and no worker has reported taking it. The worker may just not send events, so only a death explains it.
fn taken_unheard(known: &Evidence) -> Decision {
    match known.taker {
        Taker::Died if known.answered => Decision::Restore(Why::TakenByTheDead),
        Taker::Died | Taker::Lives | Taker::Unknown => Decision::Leave,
    }
}

/// Not found, and no worker has reported taking it.
fn never_heard_of(known: &Evidence) -> Decision {
    if known.loss {
        return Decision::Requeue(Why::RedisLostIt);
    }
    if !known.answered {
        return Decision::Leave;
    }
    match known.taker {
        Taker::Died if known.may_have_run => by_policy(known, Why::TakenByTheDeadUnheard),
        Taker::Died => Decision::Requeue(Why::TakenByTheDead),
        Taker::Lives | Taker::Unknown if known.goes_on => Decision::Leave,
        Taker::Lives | Taker::Unknown => Decision::Ignore(Why::NeverReported),
    }
}

/// A worker has reported taking it, and its message is in `unacked`.
fn unacknowledged(known: &Evidence) -> Decision {
    if !known.answered {
        return Decision::Leave;
    }
    let is_over = known.reached == Reached::Worker || known.idle;
    match known.taker {
        Taker::Died if known.policy == Policy::Report => Decision::Discard(Why::WorkerDiedReport),
        Taker::Died => Decision::Restore(Why::WorkerDied),
        // The worker lost its connection and dropped its reserved messages: this one will never be acknowledged.
        Taker::Lives if is_over && known.policy != Policy::Report => Decision::Restore(Why::Forgotten),
        Taker::Lives => Decision::Unclear(Doubt::Unacknowledged),
        Taker::Unknown => Decision::Unclear(Doubt::Worker),
    }
}

/// A worker has reported taking it, and its message is not found: it was acknowledged.
fn acknowledged(known: &Evidence) -> Decision {
    if known.goes_on {
        return if known.reached == Reached::Replacement { Decision::Leave } else { Decision::Await };
    }
    match (known.reached, known.taker) {
        // Its message was removed when it began for the last time, and no worker has it.
        (Reached::Worker | Reached::Start, _) if known.exhausted => Decision::Poison,
        // Its replacement has ended without ending it, which is not the worker's fault.
        (Reached::Replacement, _) => Decision::Ignore(Why::ReplacementEnded),
        (_, Taker::Lives) => Decision::Ignore(Why::NothingMore),
        (_, Taker::Died) => by_policy(known, Why::WorkerDied),
        (_, Taker::Unknown) => Decision::Unclear(Doubt::Worker),
    }
}

/// It may have run, and its message is gone: its recovery policy decides.
fn by_policy(known: &Evidence, why: Why) -> Decision {
    match known.policy {
        Policy::Rerun | Policy::Unsaid if known.acks_late && known.loss => Decision::Requeue(Why::RedisLostReserved),
        Policy::Rerun => Decision::Requeue(Why::WorkerDiedRerun),
        Policy::Unsaid if known.acks_late => Decision::Requeue(Why::WorkerDiedLate),
        Policy::Unsaid | Policy::Report => Decision::Lose(why),
    }
}

/// Applies the limits to decisions that would run it again.
fn within_bounds(known: &Evidence, decision: Decision) -> Decision {
    let is_loss = decision == Decision::Requeue(Why::RedisLostIt);
    match decision {
        Decision::Requeue(_) if known.adopted => Decision::Lose(Why::NotOurs),
        Decision::Poison if known.adopted => Decision::Leave,
        // kombu redelivers it after the visibility timeout, or it stays; that is up to its owner.
        Decision::Restore(_) | Decision::Discard(_) if known.adopted => Decision::Leave,
        Decision::Requeue(_) | Decision::Restore(_) | Decision::Discard(_) | Decision::Poison if !known.enabled => {
            Decision::Unclear(Doubt::SwitchedOff)
        }
        Decision::Requeue(_) | Decision::Restore(_) if known.exhausted && !is_loss => Decision::Poison,
        other => other,
    }
}

#[cfg(test)]
mod tests;
