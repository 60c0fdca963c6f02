//! Points at which a test kills the process as a power cut would: SIGKILL, nothing is flushed, no connection is closed properly.
//!
//! `TASKGATE_CRASH_AT=after_push` kills at the first arrival, `after_push:3` at the third. Only debug builds look at the
//! variable; in a release build [`reach`] is empty and [`is_next`] is `false`, so none of this is compiled in.

/// A submission was received, and nothing is written yet.
pub const BEFORE_COMMIT: &str = "before_commit";
/// The commit is done, but no client has an answer and nothing is published.
pub const AFTER_COMMIT: &str = "after_commit";
/// Messages are in the broker, but the ledger does not know it.
pub const AFTER_PUSH: &str = "after_push";
/// The first half of a batch is in the broker.
pub const HALF_BATCH: &str = "half_batch";
/// The ledger knows of the publication, but the push markers still exist.
pub const AFTER_BOOKKEEPING: &str = "after_bookkeeping";
/// Calls of an inbox have become tasks, but are still in the inbox.
pub const AFTER_TAKING: &str = "after_taking";

/// The tables exist, but what is created after them (views, partitions, positions) is not up to date.
pub const HALF_MIGRATED: &str = "half_migrated";

pub use imp::{is_next, reach};

#[cfg(debug_assertions)]
mod imp {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Armed {
        point: String,
        arrivals_left: AtomicU32,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let read = || {
            let text = std::env::var("TASKGATE_CRASH_AT").ok()?;
            let (point, count) = text.split_once(':').unwrap_or((&text, "1"));
            Some(Armed { point: point.to_owned(), arrivals_left: AtomicU32::new(count.parse().ok()?) })
        };
        ARMED.get_or_init(read).as_ref()
    }

    /// Whether the next arrival at this point is the last of this process.
    pub fn is_next(point: &str) -> bool {
        armed().is_some_and(|armed| armed.point == point && armed.arrivals_left.load(Ordering::SeqCst) == 1)
    }

    /// Kills the process when the test wants it here.
    pub fn reach(point: &str) {
        let Some(armed) = armed().filter(|armed| armed.point == point) else { return };
        if armed.arrivals_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            kill();
        }
    }

    #[expect(unsafe_code, reason = "SIGKILL to oneself exists as a system call only")]
    fn kill() -> ! {
        // SAFETY: a system call that takes a number; it does not return.
        unsafe { libc::raise(libc::SIGKILL) };
        unreachable!("nobody survives SIGKILL")
    }
}

#[cfg(not(debug_assertions))]
mod imp {
    pub fn is_next(_point: &str) -> bool {
        false
    }

    pub fn reach(_point: &str) {}
}
