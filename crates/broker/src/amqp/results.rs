//! Celery's `rpc://`: workers send each state and result as a message to the queue that the task's message named. Ours is durable and
//! shared by all replicas; the active recorder reads it.
//!
//! A record is acknowledged when it is in the ledger. An unacknowledged record is delivered again, to this process or to its successor,
//! so no result is lost while the broker has its data; the ledger drops duplicates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use celery::task::{GroupId, Json, Priority, QueueName, TaskId};
use celery::{Properties, envelope};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use runtime::clock;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::error::short;
use super::link::{Link, LinkConfig};
use super::queues;
use crate::backend::{Heard, Receipt, Record, Results};
use crate::{Error, Push, Target};

/// Maximum number of unacknowledged records.
const AHEAD: u16 = 2_000;
/// Pause between attempts to connect, and between checks whether this replica is the recorder.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads results from a queue.
pub struct RpcResults {
    link: Link,
    queue: String,
}

impl RpcResults {
    /// Makes no connection yet.
    pub fn new(config: LinkConfig, queue: &str) -> Self {
        Self { link: Link::new(config, "reads results"), queue: queue.to_owned() }
    }

    async fn listen(&self, sink: &mpsc::Sender<Heard>, active: &AtomicBool) -> Result<(), Error> {
        queues::declare(&self.link, &self.queue, "{}").await?;
        let channel = self.link.channel().await?;
        self.link.answer(channel.basic_qos(AHEAD, BasicQosOptions::default())).await?;
        let tag = format!("taskgate-{}", clock::new_id());
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(short(&self.queue)?, tag.as_str().into(), options, FieldTable::default());
        let mut records = self.link.answer(consume).await?;
        if sink.send(Heard::Gap).await.is_err() {
            return Ok(());
        }
        while active.load(Ordering::Relaxed) {
            match tokio::time::timeout(PAUSE, records.next()).await {
                Ok(Some(came)) => {
                    if sink.send(record(came?)).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(_) => {}
            }
        }
        // Unacknowledged records go back to the queue.
        queues::close(Some(channel)).await;
        Ok(())
    }
}

#[async_trait]
impl Results for RpcResults {
    async fn ping(&self) -> Result<(), Error> {
        queues::close(Some(self.link.channel().await?)).await;
        Ok(())
    }

    async fn records(&self, ids: &[TaskId]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        Ok(vec![None; ids.len()])
    }

    async fn follow(&self, sink: mpsc::Sender<Heard>, active: Arc<AtomicBool>, stop: CancellationToken) {
        let mut was_up = true;
        while !stop.is_cancelled() && !sink.is_closed() {
            if active.load(Ordering::Relaxed) {
                let outcome = tokio::select! {
                    () = stop.cancelled() => return,
                    outcome = self.listen(&sink, &active) => outcome,
                };
                match &outcome {
                    Ok(()) => info!("stopped reading the queue of results"),
                    Err(error) if was_up => warn!(error = %error, "results cannot be read, trying again: {error}"),
                    Err(_) => {}
                }
                was_up = outcome.is_ok();
            }
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(PAUSE) => {} }
        }
    }

    /// Does nothing: Celery has no chords with this backend, and other groups need no preparation.
    async fn prepare_group(&self, _: &GroupId, _: Option<i32>, _: Option<&Json>) -> Result<(), Error> {
        Ok(())
    }
}

/// The message with a worker's record; `None` when its task's message named no queue. Persistent, unlike Celery's by default: a durable queue
/// keeps it over a restart.
pub fn reply(record: &Record) -> Option<Push> {
    let to = record.reply.as_ref()?;
    let queue = QueueName::stored(&to.queue).ok()?;
    let tag = clock::random_id().to_string();
    let properties = Properties {
        correlation_id: Some(to.correlation_id.as_str().into()),
        ..Properties::task(&record.task_id, queue.as_str(), 0, &tag)
    };
    let envelope = envelope("{}", &record.text, &properties);
    Some(Push { target: Target::Queue(queue, Priority::default()), envelope, tag })
}

/// Reads a record; the task's id is the correlation id.
fn record(came: Delivery) -> Heard {
    let task_id = came.properties.correlation_id().as_ref().map(ToString::to_string).unwrap_or_default();
    Heard::Record { task_id, payload: came.data, receipt: Receipt::of(came.acker) }
}
