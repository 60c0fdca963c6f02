//! Computes when the next pass over the outbox is due, from the result of the last one.
//!
//! A pass and the query for the next due time use the same timestamp, so a task that becomes due between the two counts as due at once
//! and is not missed until the next poll.
//!
//! A pass reads for some milliseconds before it publishes. So it begins that much before the time at which a task may go, decides as of
//! that time, and publishes then.

use std::time::Duration;

use tokio::time::Instant;

use super::PERIOD;
use super::waits::GATE_BREATH;
use runtime::clock::Time;

/// How long before a task's time a pass begins.
pub(super) const LEAD: Duration = Duration::from_millis(4);

/// The next pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub at: Instant,
    /// The first time at which a task may go.
    pub due: Option<Time>,
    /// Whether this is only a poll, because no task is known to become due by then.
    pub is_poll: bool,
}

impl Next {
    pub fn after(pause: Duration) -> Self {
        Self { at: Instant::now() + pause, due: None, is_poll: false }
    }

    /// The time as of which a pass that begins now decides: a moment ahead, if a task may go then.
    pub fn as_of(self, now: Time) -> Time {
        self.due.filter(|due| *due > now && due.since(now) <= LEAD).unwrap_or(now)
    }

    /// After a signal: the pass begins now, but not before `rested`.
    pub fn bring_forward(&mut self, rested: Instant) {
        self.at = self.at.min(rested);
        self.is_poll = false;
    }
}

/// What the rounds of a pass found.
#[derive(Debug)]
pub(super) struct Rounds {
    /// The timestamp of the last round.
    pub at: Time,
    /// When the next rate limit lets a task pass, according to the last round.
    pub opening: Option<Time>,
    /// The number of due rows in all rounds.
    pub found: usize,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { at: Time(0), opening: None, found: 0 }
    }
}

/// The earliest of: the next held task's time, the next opening of a rate limit, the poll.
pub(super) fn after_pass(rounds: &Rounds, next_due: Option<Time>, now: Time) -> Next {
    // The rate limit was open but the task stayed: another replica has locked its row.
    let is_stuck = rounds.opening.is_some_and(|at| at <= rounds.at);
    let opening = rounds.opening.filter(|_| !is_stuck);
    let due = next_due.into_iter().chain(opening).min();
    let until_due = due.map(|at| at.since(now).saturating_sub(LEAD));
    match until_due.into_iter().chain(is_stuck.then_some(GATE_BREATH)).min() {
        Some(pause) if pause < PERIOD => Next { due, ..Next::after(pause) },
        Some(_) | None => Next { at: Instant::now() + PERIOD, due, is_poll: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: i64 = 1_000;

    fn pause(opening: Option<i64>, due: Option<i64>) -> (Duration, bool) {
        let rounds = Rounds { at: Time(1_000 * MILLI), opening: opening.map(|at| Time(at * MILLI)), found: 0 };
        let next = after_pass(&rounds, due.map(|at| Time(at * MILLI)), Time(1_010 * MILLI));
        (next.at - Instant::now(), next.is_poll)
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_pass_begins_when_the_first_task_may_go() {
        let millis = Duration::from_millis;
        assert_eq!(pause(None, None), (PERIOD, true));
        assert_eq!(pause(None, Some(1_310)), (millis(300) - LEAD, false));
        assert_eq!(pause(Some(1_030), Some(1_310)), (millis(20) - LEAD, false));
        assert_eq!(pause(Some(1_012), None), (Duration::ZERO, false));
        assert_eq!(pause(None, Some(99_000)), (PERIOD, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_begins_a_moment_early_decides_as_of_the_time_of_the_task() {
        let due = Time(1_000 * MILLI);
        let next = Next { due: Some(due), ..Next::after(Duration::ZERO) };
        assert_eq!(next.as_of(Time(996 * MILLI)), due);
        assert_eq!(next.as_of(Time(995 * MILLI)), Time(995 * MILLI), "too early: the pass has another reason");
        assert_eq!(next.as_of(Time(1_001 * MILLI)), Time(1_001 * MILLI));
        assert_eq!(Next::after(Duration::ZERO).as_of(Time(7)), Time(7));
    }

    #[tokio::test(start_paused = true)]
    async fn what_became_due_during_the_pass_is_not_missed() {
        assert_eq!(pause(None, Some(1_005)), (Duration::ZERO, false));
        assert_eq!(pause(Some(1_005), None), (Duration::ZERO, false));
        assert_eq!(pause(Some(900), None), (GATE_BREATH, false));
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_brings_the_pass_forward_and_never_puts_it_off() {
        let mut next = Next { at: Instant::now() + PERIOD, due: None, is_poll: true };
        next.bring_forward(Instant::now() + GATE_BREATH);
        assert_eq!(next, Next::after(GATE_BREATH));
        next.bring_forward(Instant::now() + PERIOD);
        assert_eq!(next.at, Instant::now() + GATE_BREATH);
    }
}
