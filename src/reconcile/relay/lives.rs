//! What this process has seen of the incarnations of Redis's data, each with a name that is lost with the data.
//!
//! Markers are lost with the data, too. So what a replica pushed before a loss, without recording it, is published a second time when a
//! pass finds it. The replica that pushed it may be dead. Therefore every replica knows until when a push may have gone into data that is
//! lost now: a pass suspects what was accepted before that time.

use std::time::Duration;

use uuid::Uuid;

use runtime::clock::{self, Time};

/// The data may have been lost this much later than it was last seen: the name is read once a second, and replicas' clocks differ.
const UNSEEN: Duration = Duration::from_secs(2);

pub(super) struct Lives {
    started_at: Time,
    /// The present incarnation, and when it was last seen.
    present: Option<(String, Time)>,
    lost_until: Option<Time>,
}

impl Lives {
    pub fn new(started_at: Time) -> Self {
        Self { started_at, present: None, lost_until: None }
    }

    /// Records that Redis has the data of this incarnation.
    pub fn see(&mut self, name: String, now: Time) {
        let last_seen = match &self.present {
            Some((present, _)) if *present == name => None,
            Some((_, seen_at)) => Some(seen_at.plus(UNSEEN)),
            // What this process accepted it has not pushed anywhere else.
            None => Some(self.started_at),
        };
        if let Some(last_seen) = last_seen {
            // A name without a time says nothing about what was before this process.
            let began_at = began_at(&name).or(self.present.as_ref().map(|_| last_seen));
            self.lost_until = began_at.map(|began_at| began_at.min(last_seen));
        }
        self.present = Some((name, now));
    }

    pub fn present(&self) -> Option<&str> {
        self.present.as_ref().map(|(name, _)| name.as_str())
    }

    /// Whether a message that was pushed soon after this time may have been lost with earlier data.
    pub fn may_have_lost(&self, accepted_at: Time) -> bool {
        self.lost_until.is_some_and(|until| accepted_at < until)
    }
}

/// A name for data that has none: it tells when the incarnation was first seen.
pub(super) fn new_name() -> String {
    clock::new_id().to_string()
}

fn began_at(name: &str) -> Option<Time> {
    let (secs, nanos) = Uuid::try_parse(name).ok()?.get_timestamp()?.to_unix();
    let secs = i64::try_from(secs).ok()?;
    Some(Time(secs.saturating_mul(1_000_000).saturating_add(i64::from(nanos / 1_000))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// A name that says that it was given at this second.
    fn name(second: u64) -> String {
        let bytes = [7; 10];
        uuid::Builder::from_unix_timestamp_millis(second * 1_000, &bytes).into_uuid().to_string()
    }

    #[test]
    fn a_name_tells_when_it_was_given() {
        assert_eq!(began_at(&name(90)), Some(Time(90 * SECOND)));
        let now = clock::now();
        assert!(began_at(&new_name()).unwrap().since(now) < Duration::from_secs(60));
        assert_eq!(began_at("first"), None);
        assert_eq!(began_at(&clock::random_id().to_string()), None);
    }

    #[test]
    fn what_was_accepted_before_the_loss_may_be_lost_and_nothing_later() {
        let mut lives = Lives::new(Time(0));
        lives.see(name(0), Time(SECOND));
        lives.see(name(0), Time(50 * SECOND));
        assert!(!lives.may_have_lost(Time(0)), "it is the same data");
        lives.see(name(90), Time(91 * SECOND));
        assert!(lives.may_have_lost(Time(51 * SECOND)));
        assert!(!lives.may_have_lost(Time(53 * SECOND)), "Redis was away already");
        lives.see(name(90), Time(92 * SECOND));
        assert!(lives.may_have_lost(Time(51 * SECOND)), "it may be found later");
    }

    #[test]
    fn the_new_data_bounds_the_time_if_redis_came_back_at_once() {
        let mut lives = Lives::new(Time(0));
        lives.see(name(0), Time(50 * SECOND));
        lives.see(name(51), Time(51 * SECOND));
        assert!(lives.may_have_lost(Time(51 * SECOND - 1)));
        assert!(!lives.may_have_lost(Time(51 * SECOND)));
    }

    #[test]
    fn a_new_process_suspects_what_was_accepted_before_it_and_before_the_data() {
        let at = |second: i64| Time(second * SECOND);
        let fresh = |life: String| {
            let mut lives = Lives::new(at(100));
            lives.see(life, at(101));
            lives
        };
        assert!(fresh(name(101)).may_have_lost(at(99)));
        assert!(!fresh(name(101)).may_have_lost(at(100)), "its own");
        assert!(!fresh(name(20)).may_have_lost(at(99)), "the data is older than the task");
        assert!(!fresh("unnamed".to_owned()).may_have_lost(at(99)));
    }
}
