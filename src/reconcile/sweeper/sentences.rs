//! Texts of decisions, for the history, for incidents and for explanations.

use super::decision::{Doubt, Why};

impl Why {
    /// The reason in the task's history. `about` names the worker, or the workers that may have taken it.
    pub fn sentence(self, about: &str) -> String {
        match self {
            Self::RedisLostIt => REDIS_LOST_IT.to_owned(),
            Self::RedisLostReserved => {
                format!("{about} had it and is gone, and Redis lost its unacknowledged message; it is queued again")
            }
            Self::TakenByTheDead => {
                format!(
                    "no worker reported taking it and its message is gone: {about} died or was cut off; it is queued again"
                )
            }
            Self::TakenByTheDeadUnheard => {
                format!(
                    "{about} may have taken it without a word and is gone; it may have run, and is not known to be safe to run again"
                )
            }
            Self::WorkerDied => {
                format!("{about} had it and is gone; it may have run, and is not known to be safe to run again")
            }
            Self::WorkerDiedRerun => {
                format!("{about} had it and is gone; its recovery policy is rerun, it is queued again")
            }
            Self::WorkerDiedLate => format!("{about} had it and is gone; it acknowledges late, so it is queued again"),
            Self::WorkerDiedReport => {
                format!("{about} had it and is gone; its recovery policy is report, its message was removed")
            }
            Self::Forgotten => {
                format!(
                    "{about} had it, lost its connection and does not know it any more, its message went back to the queue"
                )
            }
            Self::NothingMore => format!("{about} took it, acknowledged it and said no more: outcome not recorded"),
            Self::NeverReported if about.is_empty() => {
                "its message was taken and nothing was reported of it: a worker dropped it, or nobody heard of it"
                    .to_owned()
            }
            Self::NeverReported => format!(
                "taken by a worker that reports nothing ({about}; started with --without-heartbeat, --without-gossip and \
                 --without-mingle, or with its remote control switched off): outcome not recorded"
            ),
            Self::ReplacementEnded => {
                "what it sent in its place has ended without ending it: outcome not recorded".to_owned()
            }
            Self::NotOurs => format!("{about} had it and is gone; others sent it, and its message is not known here"),
        }
    }

    /// The reason for a message that was put back into its list.
    pub fn restored(self, about: &str) -> String {
        match self {
            Self::Forgotten => self.sentence(about),
            Self::TakenByTheDead => {
                "a worker took it, died and was never heard of again, its message went back to the queue".to_owned()
            }
            _ => format!("{about} had it and is gone, its message went back to the queue"),
        }
    }

    /// The kind of repair, for the metric.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::RedisLostIt => "requeued",
            _ => "rerun",
        }
    }
}

pub const REDIS_LOST_IT: &str = "Redis lost its message, it is queued again";

/// The finding about a task that would run again if repairs were switched on.
pub fn switched_off(worker: &str, id: &str) -> String {
    Doubt::SwitchedOff.sentence(worker, id)
}

impl Doubt {
    /// What is not known, and which request decides it.
    pub fn sentence(self, about: &str, id: &str) -> String {
        let what = match self {
            Self::Worker => {
                format!("whether {about} still has it is not known: it took the message, and does not answer")
            }
            Self::Unacknowledged => {
                format!("{about} lives, says that it does not have it, and has not acknowledged its message")
            }
            Self::SwitchedOff => {
                format!("{about} had it and is gone; it would run again, and repairs are switched off")
            }
        };
        format!(
            "{what}. Nothing is done; POST /v1/tasks/{id}/resolve {{\"as\": \"ignored\" | \"lost\" | \"rerun\"}} decides it"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_says_what_is_not_known_and_which_command_decides() {
        let said = Doubt::Worker.sentence("w1@h", "t");
        assert!(
            said.contains("w1@h") && said.contains("is not known") && said.contains("/v1/tasks/t/resolve"),
            "{said}"
        );
    }

    #[test]
    fn what_a_silent_worker_took_names_the_flags_to_change() {
        let said = Why::NeverReported.sentence("w1@h");
        assert!(said.contains("w1@h") && said.contains("--without-gossip"), "{said}");
    }
}
