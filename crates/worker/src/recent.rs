//! Remembers finished deliveries, so that a message that comes back does not run again: from an old copy of Redis's data, or because its
//! acknowledgement did not reach RabbitMQ.
//!
//! On Redis a message is identified by its tag, its task id and its attempt, so that a client that gives many messages the same tag loses
//! none. RabbitMQ has no such tag, but marks what it has delivered before: only such messages are compared, by task id and attempt.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::request::{Origin, Request};
use super::transport::Tags;
use celery::Message;

/// Most deliveries remembered: some seconds of a very busy worker, longer than Redis takes to restart; 16 bytes each.
const REMEMBERED: usize = 50_000;

#[derive(Debug, Default)]
pub(crate) struct Recent {
    state: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Recent {
    pub fn knows(&self, tags: Tags, origin: &Origin, message: &Message) -> bool {
        let comparable = tags == Tags::Messages || origin.redelivered;
        comparable && self.mark(tags, origin, message).is_some_and(|mark| self.known.contains(&mark))
    }

    pub fn remember(&mut self, tags: Tags, request: &Request) {
        let Some(mark) = self.mark(tags, &request.origin, &request.message) else { return };
        if !self.known.insert(mark) {
            return;
        }
        self.order.push_back(mark);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn mark(&self, tags: Tags, origin: &Origin, message: &Message) -> Option<u64> {
        let tag = match tags {
            Tags::Messages => origin.tag.as_deref()?,
            Tags::Deliveries => "",
        };
        Some(self.state.hash_one((tag, message.id.as_str(), message.retries)))
    }
}
