//! Detects workers that do not report what they should, and says what is unknown because of that and how to start them. Pure.

use std::time::Duration;

use ledger::Worker;
use runtime::clock::Time;

/// A worker without any event this long after its start sends none: heartbeats come every two seconds.
const MUTE_AFTER: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It answers, but sends no events.
    Mute,
    /// It sends heartbeats, but answers no questions.
    Deaf,
}

impl Silence {
    /// Checks an online worker.
    pub fn of(worker: &Worker, now: Time) -> Option<Self> {
        if worker.facts.deaf {
            return Some(Self::Deaf);
        }
        let is_old = began(worker).is_some_and(|since| now.since(since) > MUTE_AFTER);
        (worker.facts.heartbeat_at.is_none() && is_old).then_some(Self::Mute)
    }

    /// The explanation for the operator of the worker.
    pub fn told(self, hostname: &str) -> String {
        match self {
            Self::Mute => format!(
                "{hostname} sends no events: which of its tasks run or were acknowledged is not known, nor how tasks end that store \
                 no result; start it without --without-heartbeat, or without --without-gossip, or with -E"
            ),
            Self::Deaf => format!(
                "{hostname} answers nothing: its queues, its pool and what it runs are not known, and it cannot be told to send \
                 task events; set worker_enable_remote_control = True, or start it with -E, and write \"json\" into its \
                 accept_content: without that it drops every task from here"
            ),
        }
    }
}

/// When its process began, if known.
pub fn began(worker: &Worker) -> Option<Time> {
    worker.facts.began_at.or(worker.facts.replaced_at).map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::WorkerFacts;

    fn worker(facts: WorkerFacts) -> Worker {
        Worker { hostname: "w1@h".into(), seen_at: Time(0), offline_at: None, facts }
    }

    #[test]
    fn a_worker_that_sends_no_events_is_given_time_for_its_first() {
        let quiet = worker(WorkerFacts { began_at: Some(0), ..WorkerFacts::default() });
        assert_eq!(Silence::of(&quiet, Time(20_000_000)), None);
        assert_eq!(Silence::of(&quiet, Time(20_000_001)), Some(Silence::Mute));
        let heard = worker(WorkerFacts { heartbeat_at: Some(1), ..quiet.facts });
        assert_eq!(Silence::of(&heard, Time(i64::MAX)), None);
    }

    #[test]
    fn a_silence_names_the_worker_and_what_to_change() {
        let deaf = worker(WorkerFacts { deaf: true, ..WorkerFacts::default() });
        let told = Silence::of(&deaf, Time(0)).map(|silence| silence.told(&deaf.hostname)).unwrap();
        assert!(told.contains("w1@h") && told.contains("worker_enable_remote_control") && told.contains("json"));
        assert!(Silence::Mute.told("w1@h").contains("--without-heartbeat"));
    }
}
