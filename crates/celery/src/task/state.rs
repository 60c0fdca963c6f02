//! Task states and their order. Reports arrive late, twice and out of order, so a state only moves forward.
//!
//! `status` is Celery's state; `phase` is more precise. Changes are compared by [`Position`]: (delivery, retries, rank of the
//! phase). A change that is not ahead of the present position is dropped. A final phase stays, with one exception: a task that
//! was given up (`lost`, `ignored`, `revoked` or `skipped`) takes its real end when that arrives later.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The rank of all final phases.
const END: u8 = 7;

/// The phase of a task's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// In the ledger, not yet published.
    Accepted,
    /// Waits for its start time, the end of a pause, or a limit.
    Held,
    /// Waits for a predecessor in its canvas.
    Waiting,
    /// In the broker.
    Queued,
    /// A worker has it.
    Received,
    /// Started, or reports a custom state.
    Running,
    /// Failed, will run again.
    Retrying,
    Succeeded,
    Failed,
    Revoked,
    /// Its `expires` passed before it started.
    Expired,
    /// A step that was not needed, or a task whose run could not be observed.
    Skipped,
    /// Proven gone: the message is in no place, and the task may not run again.
    Lost,
    /// A live worker took it, acknowledged it and reported no more.
    Ignored,
}

impl Phase {
    pub const ALL: [Self; 14] = [
        Self::Accepted,
        Self::Held,
        Self::Waiting,
        Self::Queued,
        Self::Received,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Failed,
        Self::Revoked,
        Self::Expired,
        Self::Skipped,
        Self::Lost,
        Self::Ignored,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Received => "received",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Skipped => "skipped",
            Self::Lost => "lost",
            Self::Ignored => "ignored",
        }
    }

    pub const fn is_final(self) -> bool {
        self.rank() == END
    }

    /// Not yet in the broker: only taskgate has the message.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Accepted | Self::Held | Self::Waiting)
    }

    /// A worker has reported that it has the task.
    pub fn is_at_worker(self) -> bool {
        matches!(self, Self::Received | Self::Running | Self::Retrying)
    }

    /// Celery's state, unless the task reports a custom one.
    pub fn status(self) -> &'static str {
        match self {
            Self::Accepted | Self::Held | Self::Waiting | Self::Queued => "PENDING",
            Self::Received => "RECEIVED",
            Self::Running => "STARTED",
            Self::Retrying => "RETRY",
            Self::Succeeded => "SUCCESS",
            Self::Failed | Self::Lost => "FAILURE",
            Self::Revoked | Self::Expired | Self::Skipped => "REVOKED",
            Self::Ignored => "IGNORED",
        }
    }

    /// The order within one attempt. A retry ends its attempt; the next one starts with `retries` + 1.
    pub const fn rank(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Waiting => 1,
            Self::Held => 2,
            Self::Queued => 3,
            Self::Received => 4,
            Self::Running => 5,
            Self::Retrying => 6,
            Self::Succeeded
            | Self::Failed
            | Self::Revoked
            | Self::Expired
            | Self::Skipped
            | Self::Lost
            | Self::Ignored => END,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of a phase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such phase")]
pub struct UnknownPhase;

impl FromStr for Phase {
    type Err = UnknownPhase;
    fn from_str(text: &str) -> Result<Self, UnknownPhase> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or(UnknownPhase)
    }
}

/// The position of a report in the life of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// How often taskgate put the message into the broker; a report on an earlier delivery is late.
    pub delivery: i32,
    /// The attempt: Celery's `retries`.
    pub retries: i32,
    pub phase: Phase,
}

impl Position {
    /// Whether a report at `next` moves a task forward from here.
    ///
    /// `running` may follow `running`: that is progress. A real end (`succeeded`, `failed`) corrects an end that was only inferred.
    pub fn allows(self, next: Self) -> bool {
        if self.phase.is_final() {
            return self.is_corrected_by(next.phase);
        }
        if next.phase.is_final() {
            return next.delivery >= self.delivery;
        }
        let here = (self.delivery, self.retries, self.phase.rank());
        let there = (next.delivery, next.retries, next.phase.rank());
        there > here || (there == here && next.phase == Phase::Running)
    }

    /// Whether `next` is a late real end of a task that was given up.
    pub fn is_corrected_by(self, next: Phase) -> bool {
        matches!(self.phase, Phase::Lost | Phase::Ignored | Phase::Revoked | Phase::Skipped)
            && matches!(next, Phase::Succeeded | Phase::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(delivery: i32, retries: i32, phase: Phase) -> Position {
        Position { delivery, retries, phase }
    }

    #[test]
    fn a_state_only_moves_forward() {
        let running = at(1, 0, Phase::Running);
        assert!(!running.allows(at(1, 0, Phase::Queued)));
        assert!(!running.allows(at(1, 0, Phase::Received)));
        assert!(running.allows(at(1, 0, Phase::Running)));
        assert!(running.allows(at(1, 0, Phase::Succeeded)));
    }

    #[test]
    fn the_next_attempt_may_be_received_before_the_retry_is_known() {
        let received_again = at(1, 1, Phase::Received);
        assert!(at(1, 0, Phase::Running).allows(received_again));
        assert!(!received_again.allows(at(1, 0, Phase::Retrying)));
    }

    #[test]
    fn an_end_stays_but_a_given_up_task_is_corrected_once() {
        assert!(!at(1, 0, Phase::Succeeded).allows(at(2, 0, Phase::Failed)));
        for given_up in [Phase::Lost, Phase::Ignored, Phase::Revoked, Phase::Skipped] {
            assert!(at(1, 0, given_up).allows(at(1, 0, Phase::Succeeded)));
        }
        assert!(!at(1, 0, Phase::Lost).allows(at(1, 0, Phase::Running)));
        assert!(!at(1, 0, Phase::Expired).allows(at(1, 0, Phase::Succeeded)));
    }

    #[test]
    fn every_phase_reads_back_from_its_name() {
        for phase in Phase::ALL {
            assert_eq!(phase.as_str().parse(), Ok(phase));
        }
    }
}
