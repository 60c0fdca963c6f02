//! Tests that keep a core busy for long (browsers, fuzzers, ten thousand tasks) take turns: many of them at once would delay all other
//! tests on a small machine, and each other.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Number of such tests at a time: while one waits for the disk or a timer, the other uses the core.
const AT_ONCE: usize = 2;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();
/// Held while waiting, so that no test overtakes one that waits for all turns.
static NEXT: Mutex<()> = Mutex::new(());

/// Some of the turns, until it is dropped.
pub struct Turn(usize);

/// One turn. Blocks: take it first, before anything is started.
pub fn heavy() -> Turn {
    take(1)
}

/// All turns: for tests that measure.
pub fn alone() -> Turn {
    take(AT_ONCE)
}

fn take(turns: usize) -> Turn {
    let _next = unpoisoned(NEXT.lock());
    let running = unpoisoned(RUNNING.lock());
    let mut running = unpoisoned(ENDED.wait_while(running, |running| *running + turns > AT_ONCE));
    *running += turns;
    Turn(turns)
}

impl Drop for Turn {
    fn drop(&mut self) {
        *unpoisoned(RUNNING.lock()) -= self.0;
        ENDED.notify_all();
    }
}

/// A number is valid even after a panic, so a failed test must not affect the others.
fn unpoisoned<T>(lock: Result<T, PoisonError<T>>) -> T {
    lock.unwrap_or_else(PoisonError::into_inner)
}
