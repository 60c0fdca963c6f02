//! Remembers messages that the broker refused because of the message, not because of the queue: headers that are too large, a key that
//! is too long, an exchange that does not exist.
//!
//! The broker's adapter remembers queues that refuse messages; this module remembers messages, so that passes over the outbox let them
//! sleep and do not fail each time. Bounded, and forgotten after a while, because an exchange may be declared.

use std::collections::HashMap;
use std::time::Duration;

use celery::task::TaskId;
use tokio::time::Instant;

/// After this time the message is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// Maximum number of remembered messages; further ones are tried in each pass.
const MOST: usize = 10_000;

#[derive(Default)]
pub(super) struct Unfit(HashMap<TaskId, (String, Instant)>);

impl Unfit {
    pub fn note(&mut self, id: &TaskId, why: &str) {
        let now = Instant::now();
        if self.0.len() >= MOST {
            self.0.retain(|_, (_, until)| *until > now);
        }
        if self.0.len() < MOST {
            self.0.insert(id.clone(), (why.to_owned(), now + AGAIN));
        }
    }

    pub fn why(&self, id: &TaskId) -> Option<String> {
        let (why, until) = self.0.get(id)?;
        (*until > Instant::now()).then(|| why.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_left_alone_for_a_while() {
        let (mut unfit, id) = (Unfit::default(), TaskId::parse("a").unwrap());
        assert_eq!(unfit.why(&id), None);
        unfit.note(&id, "too large");
        assert_eq!(unfit.why(&id).as_deref(), Some("too large"));
        tokio::time::advance(AGAIN).await;
        assert_eq!(unfit.why(&id), None);
    }
}
