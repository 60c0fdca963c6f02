//! Counts the commits of this process that are not announced yet.
//!
//! The ledger shows a change as soon as it is committed, and its announcement follows some time later, on a busy machine much later. Whoever
//! finds the change in between has not missed a wake-up: the wake-up is on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Announcements(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A commit until it is announced or has failed.
#[must_use = "the commit counts as announced when this is dropped"]
pub struct Announcing(Arc<Counts>);

impl Announcements {
    /// To be called before the commit; the result lives until the change is announced.
    pub fn begin(&self) -> Announcing {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        Announcing(Arc::clone(&self.0))
    }

    /// The number of commits so far; `None` while one of them is not announced. If two calls return the same number, everything that was
    /// committed between them had been announced before.
    pub fn settled(&self) -> Option<u64> {
        let ended = self.0.ended.load(Ordering::SeqCst);
        (self.0.begun.load(Ordering::SeqCst) == ended).then_some(ended)
    }
}

impl Drop for Announcing {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_counts_until_it_is_announced_or_given_up() {
        let announcements = Announcements::default();
        assert_eq!(announcements.settled(), Some(0));
        let (first, second) = (announcements.begin(), announcements.begin());
        assert_eq!(announcements.settled(), None);
        drop(first);
        assert_eq!(announcements.settled(), None, "the second one is not announced");
        drop(second);
        assert_eq!(announcements.settled(), Some(2), "not what it was before");
    }
}
