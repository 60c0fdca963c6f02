//! A tick's task id and its jitter are derived from the schedule's row and the tick's time, so all replicas compute the same.

use std::time::Duration;

use uuid::Uuid;

use celery::task::TaskId;
use runtime::clock::Time;

/// The id of the tick's task: a `UUIDv5`, so that a second submission of the same tick finds its own id in the ledger.
pub fn task_id(schedule_id: &str, tick: Time) -> TaskId {
    TaskId::from(uuid(schedule_id, tick))
}

/// When the tick fires: up to `jitter` microseconds later, the same on all replicas.
pub fn due(schedule_id: &str, tick: Time, jitter: i64) -> Time {
    if jitter <= 0 {
        return tick;
    }
    let (chance, _) = uuid(schedule_id, tick).as_u64_pair();
    let span = u64::try_from(jitter).unwrap_or(0).saturating_add(1);
    tick.plus(Duration::from_micros(chance % span))
}

fn uuid(schedule_id: &str, tick: Time) -> Uuid {
    let space = Uuid::parse_str(schedule_id).unwrap_or(Uuid::NAMESPACE_OID);
    Uuid::new_v5(&space, tick.rfc3339().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42";

    #[test]
    fn the_same_tick_has_the_same_task_and_another_has_another() {
        assert_eq!(task_id(ROW, Time(1)), task_id(ROW, Time(1)));
        assert_ne!(task_id(ROW, Time(1)), task_id(ROW, Time(2)));
        assert_ne!(task_id(ROW, Time(1)), task_id("0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c43", Time(1)));
    }

    #[test]
    fn jitter_only_delays_and_spreads() {
        let delays: Vec<i64> = (0..1000).map(|tick| due(ROW, Time(tick), 1_000_000).0 - tick).collect();
        assert!(delays.iter().all(|delay| (0..=1_000_000).contains(delay)));
        assert!(delays.iter().filter(|delay| **delay > 500_000).count() > 300);
        assert_eq!(due(ROW, Time(5), 0), Time(5));
    }
}
