//! Connections to the database file: one writes, four read.
//!
//! In WAL mode readers never wait for the writer. The writer's transactions begin IMMEDIATE, so a lock is never upgraded in the middle;
//! writers queue for the pool's only connection.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};

use crate::Error;

pub(super) type Tx = Transaction<'static, Sqlite>;

/// When a commit is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// The newest commits may be lost after a crash of the machine, but not of the process: for dev.
    Normal,
    /// Every commit is on disk: for serve.
    Full,
}

/// How long a call waits for the writer's connection (or for another process) before it fails.
pub(super) const BUSY: Duration = Duration::from_secs(5);

pub(super) struct Pools {
    pub write: SqlitePool,
    pub read: SqlitePool,
}

pub(super) fn open(path: &Path, synchronous: Synchronous) -> Pools {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match synchronous {
            Synchronous::Normal => SqliteSynchronous::Normal,
            Synchronous::Full => SqliteSynchronous::Full,
        })
        .foreign_keys(false)
        .busy_timeout(BUSY);
    let pool = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(BUSY)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    Pools {
        read: pool(4).connect_lazy_with(options.clone().pragma("query_only", "on")),
        write: pool(1).connect_lazy_with(options),
    }
}

impl Pools {
    pub async fn begin(&self) -> Result<Tx, Error> {
        Ok(self.write.begin_with("begin immediate").await?)
    }
}

/// Busy (5), locked (6), out of memory (7), I/O (10), full (13), cannot open (14): SQLite's primary codes, in the low byte.
pub(crate) fn is_transient_code(code: &str) -> bool {
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 7 | 10 | 13 | 14))
}

/// A list as a bound value for `json_each`, because SQLite has no arrays.
pub(super) fn list<T: serde::Serialize>(values: &[T]) -> String {
    serde_json::to_string(values).expect("numbers and texts are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_or_full_database_may_work_later_and_a_broken_rule_will_not() {
        for code in ["5", "6", "13", "261"] {
            assert!(is_transient_code(code), "{code}");
        }
        for code in ["1", "19", "2067", "x"] {
            assert!(!is_transient_code(code), "{code}");
        }
    }
}
