//! The port for any result backend.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use celery::task::{GroupId, Json, TaskId};
use lapin::Acker;
use lapin::options::BasicAckOptions;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Backend, Error, Watch};
use crate::Memory;

/// Cheap to clone.
pub type ResultBackend = Arc<dyn Results>;

/// The result backend, where the fleet's workers store states and return values.
#[async_trait]
pub trait Results: Send + Sync {
    async fn ping(&self) -> Result<(), Error>;

    /// Checks that it takes writes.
    async fn writable(&self) -> Result<(), Error> {
        self.ping().await
    }

    /// What it does when its memory is full; `None` when it does not report that.
    async fn memory(&self) -> Result<Option<Memory>, Error> {
        Ok(None)
    }

    /// Whether [`Results::follow`] tells of records as they are written. Where it does not, the record of an end is looked up when an
    /// event tells that end.
    fn tells(&self) -> bool {
        true
    }

    /// The newest records; `None` for a missing one, and on backends where a record can be read only once.
    async fn records(&self, ids: &[TaskId]) -> Result<Vec<Option<Vec<u8>>>, Error>;

    /// Reads records as they are written until `stop`, reconnecting for ever. On backends where a record can be read only once, it is read
    /// only while `active`, by the recorder.
    async fn follow(&self, sink: mpsc::Sender<Heard>, active: Arc<AtomicBool>, stop: CancellationToken);

    /// The prefixes of results, for each fleet that stores some there.
    async fn prefixes(&self) -> Result<BTreeSet<String>, Error> {
        Ok(BTreeSet::new())
    }

    /// Writes what must exist in the backend before a member of a group is published.
    async fn prepare_group(&self, id: &GroupId, size: Option<i32>, structure: Option<&Json>) -> Result<(), Error>;
}

/// A message from the backend.
#[derive(Debug)]
pub enum Heard {
    /// A record: its task and the raw text.
    Record { task_id: String, payload: Vec<u8>, receipt: Receipt },
    /// The subscription was (re)established: earlier records may have been missed.
    Gap,
}

/// Acknowledges a record that can be read only once. Without [`Receipt::done`] it is read again.
#[derive(Debug, Default)]
pub struct Receipt(Option<Acker>);

impl Receipt {
    pub(crate) fn of(acker: Acker) -> Self {
        Self(Some(acker))
    }

    /// Acknowledges the record, which is in the ledger. If the connection is gone, it is delivered again, and the ledger drops it.
    pub async fn done(self) {
        if let Some(acker) = self.0 {
            let _ = acker.ack(BasicAckOptions::default()).await;
        }
    }
}

#[async_trait]
impl Results for Backend {
    async fn ping(&self) -> Result<(), Error> {
        Self::ping(self).await
    }

    async fn writable(&self) -> Result<(), Error> {
        Self::writable(self).await
    }

    async fn memory(&self) -> Result<Option<Memory>, Error> {
        Self::memory(self).await
    }

    async fn records(&self, ids: &[TaskId]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        Self::records(self, ids).await
    }

    async fn prefixes(&self) -> Result<BTreeSet<String>, Error> {
        Self::prefixes(self).await
    }

    /// A channel reaches all subscribers, so standby replicas listen too.
    async fn follow(&self, sink: mpsc::Sender<Heard>, _: Arc<AtomicBool>, stop: CancellationToken) {
        Watch::new(self.clone(), sink).run(stop).await;
    }

    async fn prepare_group(&self, id: &GroupId, size: Option<i32>, structure: Option<&Json>) -> Result<(), Error> {
        Self::prepare_group(self, id, size, structure).await
    }
}
