//! What the gateway may ask of any result backend.

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

/// Where the fleet's workers leave states and return values.
#[async_trait]
pub trait Results: Send + Sync {
    async fn ping(&self) -> Result<(), Error>;

    /// Whether it takes what must be written there.
    async fn writable(&self) -> Result<(), Error> {
        self.ping().await
    }

    /// What it does when its memory is full; `None` when it does not say.
    async fn memory(&self) -> Result<Option<Memory>, Error> {
        Ok(None)
    }

    /// The newest records, `None` where there is none, and where a record can be read only once.
    async fn records(&self, ids: &[TaskId]) -> Result<Vec<Option<Vec<u8>>>, Error>;

    /// Reads records as they are written until `stop`, reconnecting for ever. Where a record can be read only once it is read only
    /// while `active`: by whoever writes it down.
    async fn follow(&self, sink: mpsc::Sender<Heard>, active: Arc<AtomicBool>, stop: CancellationToken);

    /// What stands before the names of results, for each fleet that keeps some there.
    async fn prefixes(&self) -> Result<BTreeSet<String>, Error> {
        Ok(BTreeSet::new())
    }

    /// What must stand in the backend before a member of a group is published.
    async fn prepare_group(&self, id: &GroupId, size: Option<i32>, structure: Option<&Json>) -> Result<(), Error>;
}

/// What a backend says.
#[derive(Debug)]
pub enum Heard {
    /// A record: the task it is of and the raw text.
    Record { task_id: String, payload: Vec<u8>, receipt: Receipt },
    /// The subscription stands (again): whatever was written before may have been missed.
    Gap,
}

/// Ends a record that can be read only once. Without [`Receipt::done`] it is read again.
#[derive(Debug, Default)]
pub struct Receipt(Option<Acker>);

impl Receipt {
    pub(crate) fn of(acker: Acker) -> Self {
        Self(Some(acker))
    }

    /// The record is written down. When its connection is gone it comes again, and nothing is written twice.
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

    /// A channel tells everybody: whoever waits for its turn listens too.
    async fn follow(&self, sink: mpsc::Sender<Heard>, _: Arc<AtomicBool>, stop: CancellationToken) {
        Watch::new(self.clone(), sink).run(stop).await;
    }

    async fn prepare_group(&self, id: &GroupId, size: Option<i32>, structure: Option<&Json>) -> Result<(), Error> {
        Self::prepare_group(self, id, size, structure).await
    }
}
