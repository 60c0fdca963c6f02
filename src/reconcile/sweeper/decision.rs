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
//! A test goes through every combination of evidence and holds these rows against what is decided.

/// Where a task's message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Waits in a list.
    Listed,
    /// In `unacked`: some worker has it, or had it and died.
    Reserved,
    Nowhere,
    /// A list that it may stand in could not be read.
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
mod tests {
    use super::*;

    const BOTH: [bool; 2] = [false, true];
    const PLACES: [Place; 4] = [Place::Listed, Place::Reserved, Place::Nowhere, Place::Unread];
    const REACHED: [Reached; 4] = [Reached::Queue, Reached::Worker, Reached::Start, Reached::Replacement];
    const TAKERS: [Taker; 3] = [Taker::Lives, Taker::Died, Taker::Unknown];
    const POLICIES: [Policy; 3] = [Policy::Unsaid, Policy::Rerun, Policy::Report];
    /// Fields that are true or false.
    const BITS: u32 = 10;

    fn flags(bits: u32, rest: &Evidence) -> Evidence {
        let bit = |n: u32| BOTH[usize::from(bits & (1 << n) != 0)];
        Evidence {
            held: bit(0),
            answered: bit(1),
            loss: bit(2),
            goes_on: bit(3),
            may_have_run: bit(4),
            acks_late: bit(5),
            exhausted: bit(6),
            adopted: bit(7),
            enabled: bit(8),
            idle: bit(9),
            ..*rest
        }
    }

    /// A task that a living worker runs, in the sight of all.
    const USUAL: Evidence = Evidence {
        place: Place::Nowhere,
        reached: Reached::Start,
        taker: Taker::Lives,
        held: false,
        answered: true,
        loss: false,
        goes_on: false,
        idle: false,
        may_have_run: false,
        policy: Policy::Unsaid,
        acks_late: false,
        exhausted: false,
        adopted: false,
        enabled: true,
    };

    fn all() -> Vec<Evidence> {
        let mut all = Vec::new();
        for place in PLACES {
            for reached in REACHED {
                for taker in TAKERS {
                    for policy in POLICIES {
                        let rest = Evidence { place, reached, taker, policy, ..USUAL };
                        all.extend((0..1 << BITS).map(|bits| flags(bits, &rest)));
                    }
                }
            }
        }
        all
    }

    fn runs_again(decision: Decision) -> bool {
        matches!(decision, Decision::Requeue(_) | Decision::Restore(_))
    }

    /// Of all evidence that fits: what is decided is as it should be.
    fn always(fits: impl Fn(&Evidence) -> bool, holds: impl Fn(&Evidence, Decision) -> bool) {
        let all = all();
        let fitting: Vec<&Evidence> = all.iter().filter(|known| fits(known)).collect();
        assert!(!fitting.is_empty(), "the rule is about nothing");
        for known in fitting {
            let decision = decide(known);
            assert!(holds(known, decision), "{decision:?} by {known:#?}");
        }
    }

    #[test]
    fn what_a_living_worker_has_acknowledged_never_runs_again() {
        let acknowledged = |known: &Evidence| {
            known.taker == Taker::Lives && known.reached != Reached::Queue && known.place == Place::Nowhere
        };
        always(acknowledged, |_, decision| !runs_again(decision));
        always(acknowledged, |known, decision| {
            !matches!(decision, Decision::Lose(_)) && (known.exhausted || decision != Decision::Poison)
        });
    }

    #[test]
    fn no_task_of_a_living_worker_runs_again_or_is_lost() {
        let lives = |known: &Evidence| known.taker == Taker::Lives;
        always(lives, |known, decision| {
            let by_loss = known.loss && known.reached == Reached::Queue && known.place == Place::Nowhere;
            let ends_or_runs =
                runs_again(decision) || matches!(decision, Decision::Lose(_) | Decision::Discard(_) | Decision::Poison);
            let is_last = decision == Decision::Poison && known.exhausted;
            !ends_or_runs || by_loss || is_last || forgotten(known)
        });
    }

    /// Its worker denies it, has not acknowledged it, and does not run it.
    fn forgotten(known: &Evidence) -> bool {
        let runs_nothing = known.reached == Reached::Worker || (known.reached == Reached::Start && known.idle);
        known.place == Place::Reserved
            && runs_nothing
            && !known.held
            && known.answered
            && known.policy != Policy::Report
    }

    #[test]
    fn nothing_runs_again_unless_a_loss_or_a_death_explains_why_it_should() {
        let explained = |known: &Evidence| {
            let by_loss = known.loss && known.reached == Reached::Queue && known.place == Place::Nowhere;
            known.taker == Taker::Died || by_loss || (known.taker == Taker::Lives && forgotten(known))
        };
        always(|_| true, |known, decision| !runs_again(decision) || explained(known));
    }

    #[test]
    fn what_somebody_has_or_may_have_is_left_alone() {
        let somebody = |known: &Evidence| known.held || matches!(known.place, Place::Listed | Place::Unread);
        always(somebody, |_, decision| decision == Decision::Leave);
        let silent = |known: &Evidence| !known.answered && !known.loss && known.reached == Reached::Queue;
        always(silent, |_, decision| decision == Decision::Leave);
    }

    #[test]
    fn what_others_sent_is_never_published_nor_put_back_nor_removed() {
        always(
            |known| known.adopted,
            |_, decision| !runs_again(decision) && !matches!(decision, Decision::Discard(_) | Decision::Poison),
        );
    }

    #[test]
    fn switched_off_repairs_change_nothing_in_the_broker() {
        always(
            |known| !known.enabled,
            |_, decision| !runs_again(decision) && !matches!(decision, Decision::Discard(_) | Decision::Poison),
        );
    }

    #[test]
    fn every_automatic_run_is_bounded_but_for_what_redis_lost_unseen() {
        always(
            |known| known.exhausted,
            |_, decision| !runs_again(decision) || decision == Decision::Requeue(Why::RedisLostIt),
        );
    }

    #[test]
    fn what_may_have_run_does_not_run_again_against_its_author_s_word() {
        let reported = |known: &Evidence| known.policy == Policy::Report && known.reached != Reached::Queue;
        always(reported, |_, decision| !runs_again(decision));
        let unsaid = |known: &Evidence| {
            known.policy == Policy::Unsaid
                && !known.acks_late
                && known.reached != Reached::Queue
                && known.place == Place::Nowhere
        };
        always(unsaid, |_, decision| !runs_again(decision));
    }

    #[test]
    fn a_task_whose_replacement_goes_on_stays_open() {
        let replaced = |known: &Evidence| {
            known.goes_on && known.place == Place::Nowhere && known.reached != Reached::Queue && !known.held
        };
        always(replaced, |_, decision| matches!(decision, Decision::Await | Decision::Leave));
        let waits = |known: &Evidence| known.reached == Reached::Replacement && known.place == Place::Nowhere;
        always(waits, |_, decision| matches!(decision, Decision::Leave | Decision::Ignore(Why::ReplacementEnded)));
    }

    /// The table in the header of this file, row by row.
    #[test]
    fn each_row_of_the_table_is_what_is_decided() {
        let queued = Evidence { reached: Reached::Queue, ..USUAL };
        let (died, unknown) = (Taker::Died, Taker::Unknown);
        let rows = [
            (Evidence { held: true, ..USUAL }, Decision::Leave),
            (Evidence { place: Place::Listed, ..queued }, Decision::Leave),
            (Evidence { loss: true, answered: false, ..queued }, Decision::Requeue(Why::RedisLostIt)),
            (Evidence { loss: true, exhausted: true, ..queued }, Decision::Requeue(Why::RedisLostIt)),
            (Evidence { taker: died, ..queued }, Decision::Requeue(Why::TakenByTheDead)),
            (Evidence { taker: died, exhausted: true, ..queued }, Decision::Poison),
            (Evidence { taker: died, may_have_run: true, ..queued }, Decision::Lose(Why::TakenByTheDeadUnheard)),
            (queued, Decision::Ignore(Why::NeverReported)),
            (Evidence { taker: unknown, ..queued }, Decision::Ignore(Why::NeverReported)),
            (Evidence { place: Place::Reserved, ..queued }, Decision::Leave),
            (Evidence { place: Place::Reserved, taker: died, ..queued }, Decision::Restore(Why::TakenByTheDead)),
            (USUAL, Decision::Ignore(Why::NothingMore)),
            (Evidence { policy: Policy::Rerun, acks_late: true, ..USUAL }, Decision::Ignore(Why::NothingMore)),
            (Evidence { goes_on: true, ..USUAL }, Decision::Await),
            (Evidence { place: Place::Reserved, ..USUAL }, Decision::Unclear(Doubt::Unacknowledged)),
            (Evidence { place: Place::Reserved, idle: true, ..USUAL }, Decision::Restore(Why::Forgotten)),
            (Evidence { place: Place::Reserved, reached: Reached::Worker, ..USUAL }, Decision::Restore(Why::Forgotten)),
            (Evidence { place: Place::Reserved, taker: died, ..USUAL }, Decision::Restore(Why::WorkerDied)),
            (Evidence { place: Place::Reserved, taker: died, exhausted: true, ..USUAL }, Decision::Poison),
            (
                Evidence { place: Place::Reserved, taker: died, policy: Policy::Report, ..USUAL },
                Decision::Discard(Why::WorkerDiedReport),
            ),
            (Evidence { taker: died, ..USUAL }, Decision::Lose(Why::WorkerDied)),
            (Evidence { taker: died, policy: Policy::Rerun, ..USUAL }, Decision::Requeue(Why::WorkerDiedRerun)),
            (Evidence { taker: died, acks_late: true, ..USUAL }, Decision::Requeue(Why::WorkerDiedLate)),
            (
                Evidence { taker: died, policy: Policy::Rerun, enabled: false, ..USUAL },
                Decision::Unclear(Doubt::SwitchedOff),
            ),
            (Evidence { taker: unknown, policy: Policy::Rerun, ..USUAL }, Decision::Unclear(Doubt::Worker)),
            (Evidence { taker: died, adopted: true, policy: Policy::Rerun, ..USUAL }, Decision::Lose(Why::NotOurs)),
        ];
        for (known, expected) in rows {
            assert_eq!(decide(&known), expected, "{known:#?}");
        }
    }
}
