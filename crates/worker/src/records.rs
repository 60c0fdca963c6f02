//! Where a worker stores states and results: in Redis, or with Celery's `rpc://` in the queue that each task's message names.
//!
//! What only Redis can (chords, and records that can be read again) is [`Records::chords`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use broker::Error;
use broker::amqp::WorkerSide;
use broker::backend::{Backend, Record, Stored, Unless};

pub(crate) type RecordsRef = Arc<dyn Records>;

#[async_trait]
pub(crate) trait Records: Send + Sync {
    /// Stores records in their order, each unless a SUCCESS exists. Returns an outcome for each. May be repeated.
    async fn store_all(&self, records: &[Record], expires: Duration) -> Result<Vec<Stored>, Error>;

    /// Stores one record. May be repeated.
    async fn store(&self, record: &Record, expires: Duration, unless: Unless) -> Result<(), Error>;

    /// A capability: the bookkeeping of chords.
    fn chords(&self) -> Option<&Backend>;

    /// Its address, without user and password.
    fn address(&self) -> String;
}

#[async_trait]
impl Records for Backend {
    async fn store_all(&self, records: &[Record], expires: Duration) -> Result<Vec<Stored>, Error> {
        Self::store_all(self, records, expires).await
    }

    async fn store(&self, record: &Record, expires: Duration, unless: Unless) -> Result<(), Error> {
        Self::store(self, &record.task_id, &record.text, expires, unless).await?;
        Ok(())
    }

    fn chords(&self) -> Option<&Backend> {
        Some(self)
    }

    fn address(&self) -> String {
        let (host, port) = self.link().place();
        format!("redis://{host}:{port}/{}", self.link().db())
    }
}

/// Results over RabbitMQ. Nothing is kept, so nothing stands in the way of a record.
#[async_trait]
impl Records for WorkerSide {
    async fn store_all(&self, records: &[Record], _: Duration) -> Result<Vec<Stored>, Error> {
        self.send_results(records).await
    }

    async fn store(&self, record: &Record, _: Duration, _: Unless) -> Result<(), Error> {
        self.send_result(record).await
    }

    fn chords(&self) -> Option<&Backend> {
        None
    }

    fn address(&self) -> String {
        "rpc://".to_owned()
    }
}
