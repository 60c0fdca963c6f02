//! Checks the table of `decision.rs` against every combination of evidence, so that a changed rule that breaks another one is noticed.

use super::*;

const BOTH: [bool; 2] = [false, true];
const PLACES: [Place; 4] = [Place::Listed, Place::Reserved, Place::Nowhere, Place::Unread];
const REACHED: [Reached; 4] = [Reached::Queue, Reached::Worker, Reached::Start, Reached::Replacement];
const TAKERS: [Taker; 3] = [Taker::Lives, Taker::Died, Taker::Unknown];
const POLICIES: [Policy; 3] = [Policy::Unsaid, Policy::Rerun, Policy::Report];
/// Number of boolean fields.
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

/// A task that a live worker runs and reports.
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

/// Checks the decision for all evidence that fits.
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

/// Whether its worker reports not to have it, has not acknowledged it, and does not run it.
fn forgotten(known: &Evidence) -> bool {
    let runs_nothing = known.reached == Reached::Worker || (known.reached == Reached::Start && known.idle);
    known.place == Place::Reserved && runs_nothing && !known.held && known.answered && known.policy != Policy::Report
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
        (Evidence { taker: died, acks_late: true, loss: true, ..USUAL }, Decision::Requeue(Why::RedisLostReserved)),
        (Evidence { taker: died, loss: true, ..USUAL }, Decision::Lose(Why::WorkerDied)),
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
