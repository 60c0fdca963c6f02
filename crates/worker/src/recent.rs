//! Remembers finished deliveries, so that a message that comes back from an old copy of Redis's data does not run again.
//!
//! A delivery is identified by its tag, its task id and its attempt, so that a client that gives many messages the same tag loses none.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::request::Request;
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
    pub fn knows(&self, tag: &str, message: &Message) -> bool {
        self.known.contains(&self.mark(tag, message))
    }

    pub fn remember(&mut self, request: &Request) {
        let Some(tag) = &request.origin.tag else { return };
        let mark = self.mark(tag, &request.message);
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

    fn mark(&self, tag: &str, message: &Message) -> u64 {
        self.state.hash_one((tag, message.id.as_str(), message.retries))
    }
}
