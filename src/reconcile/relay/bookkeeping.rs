//! Records publications: tasks that are in Redis but not yet marked as published in the ledger.
//!
//! A single publication is recorded at once. Under load, recording takes at most a fifth of the time: all pushes since the last write
//! share one statement, and the database has the rest of its time for submissions. Until then the tasks are `accepted` and too young for
//! passes over the outbox, and their markers exist.

use std::time::Duration;

use tokio::time::Instant;

use super::BATCH;
use broker::Push;
use ledger::Outgoing;
use runtime::clock::Time;

/// The pause after a write is this many times its duration,
const REST: u32 = 4;
/// if at least this many publications were written together.
const MANY: usize = 3;
/// From this many on, the pause is the longest one: a group of hundreds costs the database a third of what as many small ones do.
const LOAD: usize = 32;
/// Longest pause, so that the history shows soon that a task is queued, even with a slow database.
const LONGEST_REST: Duration = Duration::from_millis(20);

/// Publications of the direct path that wait for the next write. Bounded: a full batch is written before more is pushed.
pub(super) struct Bookkeeping {
    rows: Vec<(i64, Time)>,
    tags: Vec<String>,
    /// When the next write may begin.
    rested: Instant,
}

impl Bookkeeping {
    pub fn new() -> Self {
        Self { rows: Vec::new(), tags: Vec::new(), rested: Instant::now() }
    }

    pub fn add(&mut self, chunk: &[Outgoing], pushes: Vec<Push>, at: Time) {
        self.rows.extend(chunk.iter().map(|row| (row.no, at)));
        self.tags.extend(pushes.into_iter().map(|push| push.tag));
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// When the publications must be written. Meaningless while there are none.
    pub fn due(&self) -> Instant {
        if self.rows.len() >= BATCH { Instant::now() } else { self.rested }
    }

    pub fn is_due(&self) -> bool {
        !self.is_empty() && self.due() <= Instant::now()
    }

    /// Takes the task numbers with the times of their pushes, and the tags of their markers.
    pub fn take(&mut self) -> (Vec<(i64, Time)>, Vec<String>) {
        (std::mem::take(&mut self.rows), std::mem::take(&mut self.tags))
    }

    /// Sets the pause after a write of `rows` publications.
    pub fn rest_after(&mut self, rows: usize, took: Duration) {
        let rest = match rows {
            LOAD.. => LONGEST_REST,
            MANY.. => (took * REST).min(LONGEST_REST),
            _ => Duration::ZERO,
        };
        self.rested = Instant::now() + rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::direct::sample;

    fn add(bookkeeping: &mut Bookkeeping, count: usize) {
        bookkeeping.add(&vec![sample("t"); count], Vec::new(), Time(1));
    }

    #[tokio::test(start_paused = true)]
    async fn few_are_written_at_once_and_many_in_proportion_to_what_it_takes() {
        let mut bookkeeping = Bookkeeping::new();
        assert!(!bookkeeping.is_due());
        for _ in 0..2 {
            add(&mut bookkeeping, 1);
            assert!(bookkeeping.is_due());
            assert_eq!(bookkeeping.take().0, [(1, Time(1))]);
            bookkeeping.rest_after(1, Duration::from_millis(2));
        }
        bookkeeping.rest_after(MANY, Duration::from_millis(2));
        add(&mut bookkeeping, 1);
        assert!(!bookkeeping.is_due());
        tokio::time::advance(Duration::from_millis(8)).await;
        assert!(bookkeeping.is_due());
        bookkeeping.rest_after(LOAD, Duration::from_millis(2));
        tokio::time::advance(LONGEST_REST - Duration::from_millis(1)).await;
        assert!(!bookkeeping.is_due());
    }

    #[tokio::test(start_paused = true)]
    async fn neither_a_slow_database_nor_a_full_batch_makes_it_wait_long() {
        let mut bookkeeping = Bookkeeping::new();
        bookkeeping.rest_after(MANY, Duration::from_secs(5));
        add(&mut bookkeeping, BATCH - 1);
        assert!(!bookkeeping.is_due());
        add(&mut bookkeeping, 1);
        assert!(bookkeeping.is_due());
        bookkeeping.take();
        add(&mut bookkeeping, 1);
        tokio::time::advance(LONGEST_REST).await;
        assert!(bookkeeping.is_due());
    }
}
