//! The messages that a worker has taken and not acknowledged, by a number of our own.
//!
//! RabbitMQ numbers deliveries anew on each channel, and gives everything back that a broken channel had. So a tag here is never used
//! twice, and an acknowledgement that comes too late touches no other message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use lapin::Acker;

/// Cheap to clone; all clones share the messages.
#[derive(Clone, Default)]
pub struct Held(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    last: u64,
    messages: HashMap<u64, Message>,
}

struct Message {
    acker: Acker,
    /// The consumer that delivered it, and the channel that its consumer was on.
    stream: u64,
    channel: u64,
}

impl Held {
    /// Remembers a delivery; returns its tag.
    pub fn hold(&self, acker: Acker, stream: u64, channel: u64) -> String {
        let mut inner = self.inner();
        inner.last += 1;
        let tag = inner.last;
        inner.messages.insert(tag, Message { acker, stream, channel });
        tag.to_string()
    }

    /// Takes a message out, to end it. `None` when it has ended, or when RabbitMQ took it back.
    pub fn take(&self, tag: &str) -> Option<Acker> {
        self.take_from(tag).map(|(_, acker)| acker)
    }

    /// As [`Held::take`], with the number of its channel. Later channels have higher numbers.
    pub fn take_from(&self, tag: &str) -> Option<(u64, Acker)> {
        let tag: u64 = tag.parse().ok()?;
        self.inner().messages.remove(&tag).map(|message| (message.channel, message.acker))
    }

    /// Makes `again`, a later delivery of a message that runs as `held`, the one that ends when `held` ends. `false` when `held` has ended.
    pub fn adopt(&self, held: &str, again: &str) -> bool {
        let (Ok(held), Ok(again)) = (held.parse::<u64>(), again.parse::<u64>()) else { return false };
        let mut inner = self.inner();
        if !inner.messages.contains_key(&held) {
            return false;
        }
        let Some(message) = inner.messages.remove(&again) else { return false };
        inner.messages.insert(held, message);
        true
    }

    /// How many messages of a consumer have not ended.
    pub fn count(&self, stream: u64) -> usize {
        self.inner().messages.values().filter(|message| message.stream == stream).count()
    }

    /// The messages that a broken channel had: RabbitMQ delivers them again.
    pub fn of_channel(&self, channel: u64) -> Vec<String> {
        let inner = self.inner();
        inner
            .messages
            .iter()
            .filter(|(_, message)| message.channel == channel)
            .map(|(tag, _)| tag.to_string())
            .collect()
    }

    /// Removes messages that nobody will end.
    pub fn forget(&self, tags: &[String]) {
        let mut inner = self.inner();
        for tag in tags.iter().filter_map(|tag| tag.parse::<u64>().ok()) {
            inner.messages.remove(&tag);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::message::Delivery;

    fn acker() -> Acker {
        Delivery::mock(1, "".into(), "celery".into(), false, Vec::new()).acker
    }

    #[test]
    fn what_a_channel_had_is_told_and_can_be_forgotten() {
        let held = Held::default();
        let (first, second) = (held.hold(acker(), 1, 1), held.hold(acker(), 2, 2));
        assert_eq!(held.of_channel(1), std::slice::from_ref(&first));
        held.forget(std::slice::from_ref(&first));
        assert!(held.take(&first).is_none() && held.take(&second).is_some() && held.take(&second).is_none());
    }

    #[test]
    fn a_second_delivery_takes_the_place_of_the_one_that_runs() {
        let held = Held::default();
        let (runs, again) = (held.hold(acker(), 1, 1), held.hold(acker(), 2, 2));
        assert!(held.adopt(&runs, &again));
        assert_eq!((held.count(1), held.count(2)), (0, 1));
        assert!(held.take(&again).is_none() && held.take(&runs).is_some());
        let late = held.hold(acker(), 2, 2);
        assert!(!held.adopt(&runs, &late), "it has ended");
        assert!(held.take(&late).is_some());
    }
}
