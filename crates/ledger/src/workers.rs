//! Remote control in the ledger: workers, consumers that pauses stopped, and revokes that still apply.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Error;
use celery::task::TaskId;
use runtime::clock::Time;

/// The last known state of a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Its node name, `celery@host`.
    pub hostname: String,
    /// The last sign of life: a heartbeat or a reply.
    pub seen_at: Time,
    /// When it reported its shutdown.
    pub offline_at: Option<Time>,
    pub facts: WorkerFacts,
}

/// What is known of a worker, stored as one JSON object. New fields get a default: old rows lack them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerFacts {
    /// Seconds between heartbeats; null when it sends none.
    pub freq: Option<f64>,
    /// The last heartbeat, in microseconds.
    pub heartbeat_at: Option<i64>,
    pub active: Option<i64>,
    pub processed: Option<i64>,
    pub load: Option<[f64; 3]>,
    /// Resident memory with that of its children. Only taskgate's own workers report it.
    pub memory_kib: Option<i64>,
    /// The highest resident memory of its main process, from `stats`. For workers that do not report `memory_kib`.
    pub peak_kib: Option<i64>,
    /// `py-celery 5.7.0 (Linux)`
    pub software: Option<String>,
    /// Class of the pool; `prefork`, `threads` and so on for Celery's own.
    pub pool: Option<String>,
    pub concurrency: Option<i64>,
    pub prefetch: Option<i64>,
    pub pid: Option<i64>,
    /// Its last event, in microseconds by its own clock.
    pub heard_at: Option<i64>,
    /// Its last answer, in microseconds; null when it never answered.
    pub replied_at: Option<i64>,
    /// When its process began, in microseconds, computed from the uptime that it reports.
    pub began_at: Option<i64>,
    /// When this process took the name over from another process, by its own clock. It does not have that process's tasks.
    pub replaced_at: Option<i64>,
    /// The first sign of the process that took the name over, in microseconds: a task taken between `replaced_at` and this may be with either.
    pub taken_over_at: Option<i64>,
    /// When it came online again, if it is not known yet whether it is the same process.
    pub doubted_at: Option<i64>,
    /// When it came online again after it had lost its connection.
    pub cut_at: Option<i64>,
    /// The id of the process that had the name before.
    pub former_pid: Option<i64>,
    /// When an event of a former process came again, by the worker's clock: several workers share the name.
    pub shared_at: Option<i64>,
    /// Whether its remote control is switched off, because it did not answer for a long time.
    pub deaf: bool,
    /// Whether it sends task events; null until that is known.
    pub tells: Option<bool>,
    /// Queues it consumes from.
    pub queues: Vec<String>,
    /// Tasks it registers; null until it has answered, or if there are too many to keep.
    pub tasks: Option<Vec<String>>,
}

/// A requested revoke.
#[derive(Debug, Clone, PartialEq)]
pub struct Revocation {
    pub task_id: TaskId,
    pub requested_at: Time,
    pub terminate: bool,
    /// `SIGTERM` and the like.
    pub signal: String,
    pub reason: Option<String>,
}

#[async_trait]
pub trait Control: Send + Sync {
    /// Writes the current state of workers; an older state does not replace a newer one.
    async fn note_workers(&self, workers: &[Worker]) -> Result<(), Error>;

    /// All workers, by name.
    async fn workers(&self) -> Result<Vec<Worker>, Error>;

    /// Forgets workers that were last seen before this time.
    async fn forget_workers(&self, before: Time) -> Result<i64, Error>;

    /// Remembers that these workers were told to stop consuming a queue.
    async fn note_paused_consumers(&self, queue: &str, hostnames: &[String]) -> Result<(), Error>;

    /// Returns and forgets the workers that were told to stop consuming a queue.
    async fn take_paused_consumers(&self, queue: &str) -> Result<Vec<String>, Error>;

    /// Remembers a revoke; a later one of the same task replaces it.
    async fn remember_revocation(&self, revocation: &Revocation) -> Result<(), Error>;

    /// The newest revokes whose tasks are not final yet, are unknown to this ledger, or were ended by the revoke itself: a step of
    /// a canvas may still be sent by the worker that has the step before.
    async fn open_revocations(&self, limit: i64) -> Result<Vec<Revocation>, Error>;

    /// Forgets revokes requested before this time, and those whose task is final.
    async fn forget_revocations(&self, before: Time) -> Result<i64, Error>;
}
