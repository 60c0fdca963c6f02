//! Messages that the broker refused for what they are, not for where they go: headers too large for it, a key too long, an exchange that
//! it does not have.
//!
//! A queue that refuses is remembered by the broker's adapter; these are remembered here, so that a pass over the outbox puts them to
//! sleep in place of trying them, and failing, each time. Bounded, and forgotten after a while: an exchange may appear.

use std::collections::HashMap;
use std::time::Duration;

use celery::task::TaskId;
use tokio::time::Instant;

/// After this the message is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// Messages remembered. What is beyond is tried with each pass.
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
