//! One delivery: the call, the registered task, and what is needed to put the message back.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::registry::Task;
use super::retry::{RETRY_HEADER, policy};
use super::settings::Settings;
use broker::Delivery;
use broker::backend::Reply;
use celery::exception::Exception;
use celery::task::{Json, Priority, QueueName, RetryPolicy};
use celery::{DecodeError, Decoded, Message};

/// A reserved message that can be run.
#[derive(Debug)]
pub(crate) struct Request {
    pub message: Message,
    pub task: Arc<Task>,
    pub origin: Origin,
}

/// Where a message came from, and how to put it back.
#[derive(Debug)]
pub(crate) struct Origin {
    pub queue: QueueName,
    /// `None`: the message is not reserved.
    pub tag: Option<String>,
    pub raw: Vec<u8>,
    pub exchange: String,
    pub routing_key: String,
    pub priority: Priority,
    pub redelivered: bool,
    /// How often its queue delivered it before, where queues count.
    pub delivered_before: Option<u32>,
    /// Where its results go when they come back over the broker.
    pub reply: Option<Reply>,
}

/// The hard and soft time limit of one run, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Limits {
    pub soft: Option<Duration>,
    pub hard: Option<Duration>,
}

impl Origin {
    /// Reads a delivery.
    ///
    /// # Errors
    /// The origin with the reason, when the message cannot be run.
    pub fn read(delivery: Delivery) -> (Self, Result<Message, DecodeError>) {
        let decoded = Decoded::decode(&delivery.raw);
        let mut origin = Self {
            exchange: String::new(),
            routing_key: delivery.queue.as_str().to_owned(),
            queue: delivery.queue,
            tag: delivery.tag,
            raw: delivery.raw,
            priority: Priority::default(),
            redelivered: false,
            delivered_before: delivery.delivered_before,
            reply: None,
        };
        let message = decoded.map(|decoded| {
            let own =
                decoded.properties.correlation_id.map_or_else(|| decoded.message.id.to_string(), |id| id.into_owned());
            origin.reply =
                decoded.properties.reply_to.map(|queue| Reply { queue: queue.into_owned(), correlation_id: own });
            origin.exchange = decoded.properties.exchange.into_owned();
            origin.routing_key = decoded.properties.routing_key.into_owned();
            origin.priority = Priority::clamped(decoded.properties.priority.into());
            origin.redelivered = decoded.redelivered;
            decoded.message
        });
        (origin, message)
    }
}

impl Request {
    pub fn id(&self) -> &str {
        self.message.id.as_str()
    }

    /// Whether its result goes on to another task, which may run anywhere.
    pub fn is_followed(&self) -> bool {
        let embed = &self.message.embed;
        let has_steps = embed.chain.as_ref().is_some_and(|steps| !steps.is_empty());
        has_steps || !embed.callbacks.is_empty() || embed.chord.is_some()
    }

    pub fn stores_result(&self) -> bool {
        !self.message.ignore_result.unwrap_or(self.task.options.ignore_result)
    }

    pub fn acks_late(&self, settings: &Settings) -> bool {
        self.task.options.acks_late.unwrap_or(settings.acks_late)
    }

    pub fn tracks_start(&self, settings: &Settings) -> bool {
        self.stores_result() && self.task.options.track_started.unwrap_or(settings.track_started)
    }

    /// The limits in the message, else `task`, those of the task (or set by remote control).
    pub fn limits(&self, task: Limits) -> Limits {
        let given = |seconds: Option<f64>| seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Limits {
            soft: given(self.message.limits.soft).or(task.soft),
            hard: given(self.message.limits.hard).or(task.hard),
        }
    }

    pub fn retry_policy(&self) -> RetryPolicy {
        self.asked_policy().unwrap_or_else(|| self.task.options.retry.clone())
    }

    /// Whether a failure of this class is retried, according to its task or its sender.
    pub fn retries_failure(&self, class: &str) -> bool {
        match self.asked_policy() {
            Some(asked) => asked.covers(class),
            None => self.task.options.retry_failures && self.task.options.retry.covers(class),
        }
    }

    /// The retry policy in the message.
    fn asked_policy(&self) -> Option<RetryPolicy> {
        let header = self.message.custom.iter().find(|(name, _)| name == RETRY_HEADER).map(|(_, value)| &**value);
        policy(header)
    }

    /// Whether its queue has delivered it as often as `most` allows, this delivery included.
    pub fn is_exhausted(&self, most: Option<u32>) -> bool {
        self.origin.delivered_before.zip(most).is_some_and(|(before, most)| before >= most)
    }

    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.message.expires.is_some_and(|expires| expires < now)
    }

    /// The message of the next attempt.
    pub fn next_attempt(&self, eta: Timestamp) -> Message {
        let mut message = self.message.clone();
        message.retries += 1;
        message.eta = Some(eta);
        message.parent_id.get_or_insert_with(|| self.message.id.clone());
        message
    }

    /// The arguments as shown in remote control and events.
    pub fn shown_args(&self) -> String {
        use celery::pyrepr::{Sequence, safe};
        self.message.argsrepr.clone().unwrap_or_else(|| safe(&self.message.args, Sequence::Tuple))
    }

    pub fn shown_kwargs(&self) -> String {
        use celery::pyrepr::{Sequence, safe};
        self.message.kwargsrepr.clone().unwrap_or_else(|| safe(&self.message.kwargs, Sequence::List))
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Returned(Json),
    Error(super::TaskError),
    SoftTimeLimit,
    TimeLimit(Duration),
    Terminated {
        signal: i32,
    },
    /// The process that ran it died.
    WorkerLost(String),
    /// Ended by a cold shutdown.
    Cancelled,
}

/// Exceptions that Celery itself raises.
pub(crate) fn celery_error(kind: &str, message: &str) -> Exception {
    Exception::new("celery.exceptions", kind, message)
}
