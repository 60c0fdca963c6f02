//! Queues: their length and consumers; pause, resume, purge.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use super::Gateway;
use super::revoke::end_revoked;
use crate::live::management::ManagementError;
use crate::reconcile::workers::queue_names;
use crate::tell::queue_age::{AgeError, oldest, task_id};
use broker::{Depth, Replies, Request, Standing};
use celery::Decoded;
use celery::task::{Phase, QueueName};
use ledger::{Adoption, News, Source};
use runtime::clock::{self, Time};

use super::inspect::DEFAULT_PATIENCE;

const NO_CONTENTS: &str =
    "RabbitMQ shows no messages of its queues but through its management API: broker.management_url is not set";
/// How many messages a purge removes at a time.
const PURGED_AT_ONCE: usize = 200;

/// The present state of a queue.
#[derive(Debug, Clone)]
pub struct Queue {
    pub name: String,
    /// Messages in the broker, by priority step.
    pub depth: Depth,
    /// Tasks held in the ledger until their start time, or by a pause or a limit.
    pub held: i64,
    /// Tasks that workers have.
    pub reserved: i64,
    /// When the oldest waiting message was queued, if known.
    pub oldest: Option<Time>,
    /// Online workers that serve it.
    pub consumers: usize,
    pub paused: bool,
}

/// A message in a queue, decoded.
#[derive(Debug)]
pub struct QueuedMessage {
    /// 0 is the next to be served.
    pub position: i64,
    pub priority_step: u8,
    pub bytes: usize,
    pub content: Result<Box<Decoded>, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The broker does not support this.
    #[error("{0}")]
    Unable(String),
    #[error("Redis cannot be reached")]
    Redis(#[from] broker::Error),
    #[error("the ledger failed")]
    Ledger(#[from] ledger::Error),
}

impl From<AgeError> for QueueError {
    fn from(error: AgeError) -> Self {
        match error {
            AgeError::Broker(error) => Self::Redis(error),
            AgeError::Ledger(error) => Self::Ledger(error),
        }
    }
}

impl From<ManagementError> for QueueError {
    fn from(error: ManagementError) -> Self {
        match error {
            ManagementError::Quorum(_) | ManagementError::TooDeep | ManagementError::TooLarge => {
                Self::Unable(error.to_string())
            }
            ManagementError::Away(_)
            | ManagementError::Unreadable(_)
            | ManagementError::Refused { .. }
            | ManagementError::NoQueue(_) => Self::Redis(broker::Error::Unexpected(error.to_string())),
        }
    }
}

impl Gateway {
    /// All queues known from the configuration, the ledger or the workers.
    pub async fn queues(&self) -> Result<Vec<Queue>, QueueError> {
        let census = self.ledger.census().await?;
        let paused: BTreeSet<String> = self.ledger.paused_queues().await?.into_iter().map(|(queue, _)| queue).collect();
        let mut consumers: BTreeMap<String, usize> = BTreeMap::new();
        for (worker, _) in self.workers().await?.into_iter().filter(|(_, online)| *online) {
            for queue in worker.facts.queues {
                *consumers.entry(queue).or_default() += 1;
            }
        }
        let mut names: BTreeSet<String> = self.catalog.queues().iter().map(ToString::to_string).collect();
        names.extend(census.keys().map(|(queue, _)| queue.clone()).filter(|queue| !queue.is_empty()));
        names.extend(paused.iter().chain(consumers.keys()).cloned());
        let names: Vec<String> = names.into_iter().collect();
        let depths = self.broker.depths(&names).await?;
        let mut queues = Vec::with_capacity(names.len());
        for (name, depth) in names.into_iter().zip(depths) {
            let count = |phases: &[Phase]| phases.iter().filter_map(|phase| census.get(&(name.clone(), *phase))).sum();
            queues.push(Queue {
                held: count(&[Phase::Held]),
                reserved: count(&[Phase::Received, Phase::Running, Phase::Retrying]),
                oldest: if depth.total() > 0 { oldest(&self.broker, self.ledger.as_ref(), &name).await? } else { None },
                consumers: consumers.get(&name).copied().unwrap_or(0),
                paused: paused.contains(&name),
                depth,
                name,
            });
        }
        Ok(queues)
    }

    /// A page of a queue's messages in the order of delivery. Nothing is removed.
    pub async fn queue_messages(
        &self,
        queue: &QueueName,
        skip: i64,
        limit: i64,
    ) -> Result<Vec<QueuedMessage>, QueueError> {
        let page = match (self.broker.lists(), &self.management) {
            (Some(lists), _) => lists.contents(queue.as_str(), skip, limit).await?,
            (None, Some(management)) => management.contents(queue.as_str(), skip, limit).await?,
            (None, None) => return Err(QueueError::Unable(NO_CONTENTS.to_owned())),
        };
        let message = |(position, standing): (i64, Standing)| QueuedMessage {
            position,
            priority_step: standing.step,
            bytes: standing.payload.len(),
            content: Decoded::decode(&standing.payload).map(Box::new).map_err(|error| format!("the message {error}")),
        };
        Ok((skip..).zip(page).map(message).collect())
    }

    /// Removes all messages that wait in a queue now. Their tasks end as `revoked`. Returns the number of messages.
    ///
    /// # Cancel safety
    /// A dropped call leaves the rest of the queue as it is.
    pub async fn purge(&self, queue: &QueueName) -> Result<usize, QueueError> {
        let depths = self.broker.depths(&[queue.to_string()]).await?;
        let waiting: i64 = depths.iter().map(Depth::total).sum();
        // Messages that arrive during the purge stay.
        let waiting = usize::try_from(waiting).unwrap_or(0);
        let mut purged = 0;
        while purged < waiting {
            let taken = self.broker.take_out(queue.as_str(), PURGED_AT_ONCE.min(waiting - purged)).await?;
            if taken.is_empty() {
                break;
            }
            purged += taken.len();
            for message in taken {
                self.end_purged(queue, &message).await?;
            }
        }
        Ok(purged)
    }

    async fn end_purged(&self, queue: &QueueName, message: &Standing) -> Result<(), QueueError> {
        let Some(id) = task_id(&message.payload) else { return Ok(()) };
        let mut news = News::new(id.clone(), Source::Ledger, Phase::Revoked, clock::now());
        news.reason = Some(format!("queue {queue} was purged"));
        if self.ledger.task(&id).await?.is_some() {
            end_revoked(self, &id, news).await?;
        } else if let Ok(decoded) = Decoded::decode(&message.payload) {
            news.adoption = Some(adoption(&decoded, queue));
            self.hub.publish(&self.ledger.learn(&[news], true).await?);
        }
        Ok(())
    }

    /// Pauses a queue: the ledger holds its tasks, and the workers that serve it are told to stop consuming it. Returns their
    /// replies. While Redis is down the pause is still recorded, and workers are told when they come online.
    pub async fn pause(&self, queue: &QueueName) -> Result<Replies, QueueError> {
        self.ledger.pause_queue(queue, clock::now()).await?;
        self.pauses.refresh(&self.ledger).await?;
        let serving = self.broker.ask(&Request::to_all("active_queues", "{}"), DEFAULT_PATIENCE).await?;
        let serves = |reply: &RawValue| queue_names(reply).iter().any(|name| name == queue.as_str());
        let consumers: Vec<String> =
            serving.iter().filter(|(_, reply)| serves(reply)).map(|(name, _)| name.clone()).collect();
        if consumers.is_empty() {
            return Ok(Replies::new());
        }
        self.ledger.note_paused_consumers(queue.as_str(), &consumers).await?;
        let arguments = serde_json::json!({"queue": queue.as_str()}).to_string();
        let request = Request::to_all("cancel_consumer", &arguments).to(Some(consumers));
        Ok(self.broker.ask(&request, DEFAULT_PATIENCE).await?)
    }

    /// Resumes a queue: its workers consume it again, and held tasks are published.
    pub async fn resume(&self, queue: &QueueName) -> Result<Replies, QueueError> {
        let announcing = self.hub.announcing();
        self.ledger.resume_queue(queue, clock::now()).await?;
        self.pauses.refresh(&self.ledger).await?;
        self.relay.nudge();
        drop(announcing);
        let consumers = self.ledger.take_paused_consumers(queue.as_str()).await?;
        if consumers.is_empty() {
            return Ok(Replies::new());
        }
        let arguments = serde_json::json!({"queue": queue.as_str()}).to_string();
        let request = Request::to_all("add_consumer", &arguments).to(Some(consumers.clone()));
        match self.broker.ask(&request, DEFAULT_PATIENCE).await {
            Ok(replies) => Ok(replies),
            Err(error) => {
                // A worker that could not be reached still does not consume the queue; the next resume tells it again.
                self.ledger.note_paused_consumers(queue.as_str(), &consumers).await?;
                Err(error.into())
            }
        }
    }
}

fn adoption(decoded: &Decoded, queue: &QueueName) -> Adoption {
    let message = &decoded.message;
    Adoption {
        name: Some(message.task.to_string()),
        shadow: message.shadow.clone(),
        queue: Some(queue.to_string()),
        priority: Some(celery::task::Priority::clamped(decoded.properties.priority.into())),
        root_id: message.root_id.clone(),
        parent_id: message.parent_id.clone(),
        group_id: message.group.clone(),
        argsrepr: message.argsrepr.clone(),
        kwargsrepr: message.kwargsrepr.clone(),
    }
}
