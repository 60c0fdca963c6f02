//! Sends the messages that follow from a task: callbacks, the next step, errbacks, its next attempt, and those its handler sends.
//!
//! Each message is published with a marker, so that a call that is repeated after a lost answer does not repeat the message.

use serde_json::value::RawValue;
use tracing::error;

use super::error::Failure;
use super::events::timestamp;
use super::shared::SharedRef;
use broker::{Push, Target};
use celery::continuation::{self, Aftermath, Continuation, Send, Sender};
use celery::result::ResultTuple;
use celery::task::{Priority, QueueName, TaskId};
use celery::{DecodeError, Message, Properties, Signature, envelope};
use runtime::clock;

#[derive(Clone, Copy)]
pub(super) struct Follow<'a> {
    pub shared: &'a SharedRef,
    /// The task that sends the messages.
    pub parent: &'a Message,
}

impl Follow<'_> {
    /// Sends callbacks and the next step of the chain. Returns what was sent.
    ///
    /// # Errors
    /// The failure of the task, when a signature in its message cannot be sent; then nothing is sent.
    pub async fn after_success(&self, value: &RawValue) -> Result<Vec<ResultTuple>, Failure> {
        let embed = &self.parent.embed;
        if embed.callbacks.is_empty() && embed.chain.as_ref().is_none_or(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let plan = self.plan(|sender| continuation::after_success(self.parent, value, sender))?;
        Ok(self.carry_out(plan).await)
    }

    /// Sends the body of a chord whose header is complete.
    ///
    /// # Errors
    /// When the body cannot be sent.
    pub async fn body(&self, body: &Signature, results: &RawValue) -> Result<(), Failure> {
        let plan = self.plan(|sender| continuation::chord_body(self.parent, body, results, sender))?;
        self.carry_out(plan).await;
        Ok(())
    }

    /// Sends a signature for a handler. Returns the results of all tasks sent, that of the whole signature last.
    ///
    /// # Errors
    /// When the signature cannot be sent.
    pub async fn child(&self, signature: &Signature) -> Result<Vec<ResultTuple>, Failure> {
        let plan = self.plan(|sender| continuation::child(self.parent, signature, sender))?;
        Ok(self.carry_out(plan).await)
    }

    /// The tasks that fail with this one, and its errbacks.
    pub fn after_failure(&self) -> Aftermath {
        self.aftermath(|sender| continuation::after_failure(self.parent, sender))
    }

    /// The tasks that fail with a chord's body, and its errbacks.
    pub fn chord_failed(&self, body: &Signature) -> Aftermath {
        self.aftermath(|sender| continuation::chord_failed(self.parent, body, sender))
    }

    /// Sends the next attempt to the queue of this one.
    pub async fn send_again(&self, message: Message, queue: &QueueName, priority: Priority) {
        let routing_key = queue.as_str().to_owned();
        self.send(&[Send { message, exchange: String::new(), routing_key, priority: priority.get() }]).await;
    }

    fn aftermath(&self, make: impl FnOnce(&mut Sender<'_>) -> Result<Aftermath, DecodeError>) -> Aftermath {
        self.plan(make).unwrap_or_else(|failure| {
            let id = &self.parent.id;
            error!(task.id = %id, "what follows the failure of {id} cannot be sent: {}", failure.exception.text());
            Aftermath::default()
        })
    }

    fn plan<T>(&self, make: impl FnOnce(&mut Sender<'_>) -> Result<T, DecodeError>) -> Result<T, Failure> {
        let settings = &self.shared.settings;
        let host = settings.hostname.split_once('@').map_or(settings.hostname.as_str(), |(_, host)| host);
        let origin = format!("gen{}@{host}", std::process::id());
        let mut ids = || TaskId::from(clock::new_id());
        let mut sender =
            Sender { now: timestamp(), origin: &origin, default_queue: settings.default_queue.as_str(), ids: &mut ids };
        Ok(make(&mut sender)?)
    }

    async fn carry_out(&self, plan: Continuation) -> Vec<ResultTuple> {
        let backend = &self.shared.backend;
        for (group, structure) in &plan.saved_groups {
            self.shared.patiently("saving a group", || backend.save_group(group, structure)).await;
        }
        for (group, size) in &plan.chord_sizes {
            self.shared.patiently("preparing a chord", || backend.announce_chord(group, *size)).await;
        }
        self.send(&plan.sends).await;
        plan.children
    }

    /// Publishes each message once, even if Redis's answer is lost.
    pub async fn send(&self, sends: &[Send]) {
        let mut pushes = Vec::with_capacity(sends.len());
        for send in sends {
            for queue in self.queues(send).await {
                pushes.push(push(send, queue));
            }
        }
        if pushes.is_empty() {
            return;
        }
        let broker = &self.shared.broker;
        if self.shared.patiently("sending a task", || broker.publish(&pushes, None)).await.is_some() {
            let tags: Vec<String> = pushes.into_iter().map(|push| push.tag).collect();
            self.shared.patiently("forgetting markers", || broker.forget_markers(&tags)).await;
        }
    }

    /// The queues for a message: the one named by the default exchange's routing key, else those bound to the exchange.
    async fn queues(&self, send: &Send) -> Vec<QueueName> {
        if send.exchange.is_empty() {
            // Steps that wait go to an internal queue, which clients may not name.
            return QueueName::stored(&send.routing_key).into_iter().collect();
        }
        let broker = &self.shared.broker;
        let bound = || broker.bound(&send.exchange, &send.routing_key);
        let bound = self.shared.patiently("reading bindings", bound).await.unwrap_or_default();
        bound.iter().filter_map(|queue| QueueName::parse(queue).ok()).collect()
    }
}

fn push(send: &Send, queue: QueueName) -> Push {
    let tag = clock::random_id().to_string();
    let id = send.message.id.as_str();
    let properties = Properties {
        exchange: send.exchange.as_str().into(),
        ..Properties::task(id, &send.routing_key, send.priority, &tag)
    };
    let envelope = envelope(&send.message.headers(), &send.message.body(), &properties);
    Push { target: Target::Queue(queue, Priority::clamped(send.priority.into())), envelope, tag }
}
