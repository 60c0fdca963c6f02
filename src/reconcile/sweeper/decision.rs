//! What is to be done about a task, by what is known of it. Pure: evidence in, decision out.
//!
//! Absence proves nothing by itself. A message that is nowhere may have been taken by a worker that lives, acknowledged it and is
//! done with it; so nothing runs again unless something is known that explains the absence: Redis lost data, or the process
//! that had the task, or could have taken it, has died. What is not certain is left alone, and said.
//!
//! | what is known | may it run again | how it ends |
//! |---|---|---|
//! | a worker says that it has it, or its message is in a list | no | by its news |
//! | nobody was heard to take it, and Redis lost data since | yes | |
//! | the same, Redis lost nothing, a worker of its queue that tells of its tasks died or was cut off since | yes, bounded | |
//! | the same, and no such worker died | never | by its record, else `ignored` |
//! | its worker lives and has acknowledged it | never | by its news, else `ignored` |
//! | the same, and what it sent in its place goes on | never | stays open, `waiting`; ends with its replacement |
//! | its worker lives, denies it, and has not acknowledged it | kombu's own return of it, if it was never begun or nothing runs there | |
//! | its worker is dead, its message is in `unacked` | kombu's own return of it, bounded | |
//! | its worker is dead, its message was acknowledged early | its recovery policy decides, bounded | `lost` |
//! | anything else | no | stays open, and an incident says what is not known |
//!
//! The tests go through every combination of evidence and hold these rows against what is decided.

/// Where a task's message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Waits in a list.
    Listed,
    /// In `unacked`: some worker has it, or had it and died.
    Reserved,
    Nowhere,
    /// A key that it may stand in could not be read.
    Unread,
}

/// How far the delivery in question got, by the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// Nobody was heard to take it: it was published, or a worker sent it, or it is the next attempt after a retry.
    Queue,
    /// A worker was heard to take it, and has not begun it.
    Worker,
    /// A worker was heard to begin it.
    Start,
    /// It has replaced itself, and waits for what it sent in its place.
    Replacement,
}

/// What is known of the process that has the task. Of one that nobody was heard to take: of all that may have taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// The same process as when it took the task. Of those that may have taken it none that tells of its tasks has died.
    Lives,
    /// Gone: it was silent for too long, or another process has its name. Of those that may have taken it, one that tells of its
    /// tasks died or was cut off since, and no other one keeps silent about its own.
    Died,
    /// Neither is known.
    Unknown,
}

/// What its author said of running it again after its worker died with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Unsaid,
    Rerun,
    Report,
}

/// All that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    pub place: Place,
    pub reached: Reached,
    pub taker: Taker,
    /// A worker says that it has it, or may keep it where no question reaches.
    pub held: bool,
    /// Every worker that may have it, lives and can be asked has answered.
    pub answered: bool,
    /// Redis lost data after it was queued.
    pub loss: bool,
    /// What it sent in its place, or after it, is unfinished.
    pub goes_on: bool,
    /// Its worker, which lives, says that it runs nothing at all.
    pub idle: bool,
    /// A dead worker may have run it without a word (a solo pool tells of a task when it is over).
    pub may_have_run: bool,
    pub policy: Policy,
    /// Its task acknowledges when it has run: to run it again is what its author asked for.
    pub acks_late: bool,
    /// It was delivered as often as it may be.
    pub exhausted: bool,
    /// Others sent it: its message is not ours to publish or to put back.
    pub adopted: bool,
    /// `[recovery] enabled`
    pub enabled: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// All is well, or the next look may see more.
    Leave,
    /// Published again, as a further delivery.
    Requeue(Why),
    /// The message in `unacked` goes back to its list.
    Restore(Why),
    /// The message in `unacked` goes, and the task ends as lost.
    Discard(Why),
    /// Ends as lost.
    Lose(Why),
    /// Ends as ignored, when nothing is heard of it for a while.
    Ignore(Why),
    /// Stays open until its replacement ends.
    Await,
    /// Ends as failed (`PoisonTask`), its message with it.
    Poison,
    /// Nothing is done. When that lasts, an incident says what is not known.
    Unclear(Doubt),
}

/// Why it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    RedisLostIt,
    TakenByTheDead,
    TakenByTheDeadUnheard,
    WorkerDied,
    WorkerDiedRerun,
    WorkerDiedLate,
    WorkerDiedReport,
    /// Its worker lives, has not acknowledged it and does not know it any more.
    Forgotten,
    /// Its worker lives, acknowledged it and says nothing more.
    NothingMore,
    /// Its worker reports nothing, or it dropped the message.
    NeverReported,
    ReplacementEnded,
    NotOurs,
}

/// What is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// Whether its worker lives.
    Worker,
    /// What its worker, which lives, does with the message that it has not acknowledged.
    Unacknowledged,
    /// It would run again, and repairs are switched off.
    SwitchedOff,
}

/// Decides.
pub fn decide(known: &Evidence) -> Decision {
    if known.held || matches!(known.place, Place::Listed | Place::Unread) {
        return Decision::Leave;
    }
    let decision = match (known.reached, known.place) {
        (Reached::Queue, Place::Reserved) => taken_unheard(known),
        (Reached::Queue, _) => never_heard_of(known),
        (Reached::Worker | Reached::Start, Place::Reserved) => unacknowledged(known),
        // A step of its replacement has its id, and somebody took it.
        (Reached::Replacement, Place::Reserved) => Decision::Leave,
        (Reached::Worker | Reached::Start | Reached::Replacement, _) => acknowledged(known),
    };
    within_bounds(known, decision)
}

/// In `unacked`, and nobody said that he took it. Whoever did may just not say so: only a death explains it.
fn taken_unheard(known: &Evidence) -> Decision {
    match known.taker {
        Taker::Died if known.answered => Decision::Restore(Why::TakenByTheDead),
        Taker::Died | Taker::Lives | Taker::Unknown => Decision::Leave,
    }
}

/// Nowhere, and nobody said that he took it.
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

/// A worker was heard to have it, and its message is in `unacked`.
fn unacknowledged(known: &Evidence) -> Decision {
    if !known.answered {
        return Decision::Leave;
    }
    let is_over = known.reached == Reached::Worker || known.idle;
    match known.taker {
        Taker::Died if known.policy == Policy::Report => Decision::Discard(Why::WorkerDiedReport),
        Taker::Died => Decision::Restore(Why::WorkerDied),
        // It lost its connection, and forgot what it had reserved: nobody will ever acknowledge this.
        Taker::Lives if is_over && known.policy != Policy::Report => Decision::Restore(Why::Forgotten),
        Taker::Lives => Decision::Unclear(Doubt::Unacknowledged),
        Taker::Unknown => Decision::Unclear(Doubt::Worker),
    }
}

/// A worker was heard to have it, and its message is nowhere: it was acknowledged.
fn acknowledged(known: &Evidence) -> Decision {
    if known.goes_on {
        return if known.reached == Reached::Replacement { Decision::Leave } else { Decision::Await };
    }
    match (known.reached, known.taker) {
        // Its message was kept back when it began for the last time, and nobody has it.
        (Reached::Worker | Reached::Start, _) if known.exhausted => Decision::Poison,
        // What it sent in its place has ended without ending it: whoever sent it is not to blame.
        (Reached::Replacement, _) => Decision::Ignore(Why::ReplacementEnded),
        (_, Taker::Lives) => Decision::Ignore(Why::NothingMore),
        (_, Taker::Died) => by_policy(known, Why::WorkerDied),
        (_, Taker::Unknown) => Decision::Unclear(Doubt::Worker),
    }
}

/// It may have run, and its message is gone.
fn by_policy(known: &Evidence, why: Why) -> Decision {
    match known.policy {
        Policy::Rerun => Decision::Requeue(Why::WorkerDiedRerun),
        Policy::Unsaid if known.acks_late => Decision::Requeue(Why::WorkerDiedLate),
        Policy::Unsaid | Policy::Report => Decision::Lose(why),
    }
}

/// What would run it again is held against the limits.
fn within_bounds(known: &Evidence, decision: Decision) -> Decision {
    let is_loss = decision == Decision::Requeue(Why::RedisLostIt);
    match decision {
        Decision::Requeue(_) if known.adopted => Decision::Lose(Why::NotOurs),
        Decision::Poison if known.adopted => Decision::Leave,
        // kombu returns it when its time is over; or it stays, which is its owner's business.
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
