//! Tests that keep a core busy for long (browsers, fuzzers, ten thousand tasks) take turns: beside many of them nobody else on a
//! small machine would be answered in time, and they would only get in each other's way.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Such tests at a time: one that waits for the disk or a timer leaves a core to the other.
const AT_ONCE: usize = 2;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();
/// Held while waiting, so that nobody overtakes who waits for all turns.
static NEXT: Mutex<()> = Mutex::new(());

/// Some of the turns, until it is dropped.
pub struct Turn(usize);

/// One turn. Blocks: take it first, before anything is started.
pub fn heavy() -> Turn {
    take(1)
}

/// All turns: for what measures itself.
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

/// A number is whole whatever panics; a failed test is none of the others' business.
fn unpoisoned<T>(lock: Result<T, PoisonError<T>>) -> T {
    lock.unwrap_or_else(PoisonError::into_inner)
}
