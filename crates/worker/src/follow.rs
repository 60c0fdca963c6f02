//! Sends the messages that follow from a task: callbacks, the next step, errbacks, its next attempt, and those its handler sends.
//!
//! Each message is published with a marker, so that a call that is repeated after a lost answer does not repeat the message. (RabbitMQ has
//! no markers: there a lost answer may repeat it.) Where results come back over the broker, what follows names the same queue for them.
//!
//! A message that cannot be sent is never dropped in silence: its task fails with the reason, or, when the worker stops before anything is
//! decided, its task stays unfinished and its message with the broker.

use serde_json::value::RawValue;
use tracing::error;

use super::error::Failure;
use super::events::timestamp;
use super::request::Origin;
use super::shared::{GivenUp, SharedRef};
use broker::backend::Reply;
use broker::{Push, Target};
use celery::continuation::{self, Aftermath, Continuation, Send, Sender};
use celery::result::ResultTuple;
use celery::task::TaskId;
use celery::{DecodeError, Message, Properties, Signature, envelope};
use runtime::clock;

/// What Celery says of a chord without a result backend that counts its parts.
const NO_CHORDS: &str = "chords need results in Redis: with rpc:// nobody counts the parts";

/// Why a message was not sent.
#[derive(Debug)]
pub(super) enum NotSent {
    /// The worker stops before it was known. Nobody can be told.
    Stopping,
    /// It cannot be sent: the failure of the task that it follows from.
    Failed(Box<Failure>),
}

impl From<Failure> for NotSent {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl NotSent {
    pub fn text(&self) -> String {
        match self {
            Self::Stopping => "the worker is stopping".to_owned(),
            Self::Failed(failure) => failure.exception.text(),
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Follow<'a> {
    pub shared: &'a SharedRef,
    /// The task that sends the messages.
    pub parent: &'a Message,
    /// Where the results of that task go, where they come back over the broker.
    pub reply: Option<&'a Reply>,
}

impl Follow<'_> {
    /// Sends callbacks and the next step of the chain. Returns what was sent.
    ///
    /// # Errors
    /// The failure of the task, when a signature in its message cannot be sent: if that is known from the message, nothing is sent; if the
    /// broker refuses it, the others may have been.
    pub async fn after_success(&self, value: &RawValue) -> Result<Vec<ResultTuple>, NotSent> {
        let embed = &self.parent.embed;
        if embed.callbacks.is_empty() && embed.chain.as_ref().is_none_or(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let plan = self.plan(|sender| continuation::after_success(self.parent, value, sender))?;
        self.carry_out(plan).await
    }

    /// Sends the body of a chord whose header is complete.
    ///
    /// # Errors
    /// When the body cannot be sent.
    pub async fn body(&self, body: &Signature, results: &RawValue) -> Result<(), NotSent> {
        let plan = self.plan(|sender| continuation::chord_body(self.parent, body, results, sender))?;
        self.carry_out(plan).await?;
        Ok(())
    }

    /// Sends a signature for a handler. Returns the results of all tasks sent, that of the whole signature last.
    ///
    /// # Errors
    /// When the signature cannot be sent.
    pub async fn child(&self, signature: &Signature) -> Result<Vec<ResultTuple>, NotSent> {
        let plan = self.plan(|sender| continuation::child(self.parent, signature, sender))?;
        self.carry_out(plan).await
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
    ///
    /// # Errors
    /// When the broker refuses it.
    pub async fn send_again(&self, message: Message, origin: &Origin) -> Result<(), NotSent> {
        let routing_key = origin.queue.as_str().to_owned();
        let priority = origin.priority.get();
        self.send(&[Send { message, exchange: String::new(), routing_key, priority, reply_to: None }]).await
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

    /// # Errors
    /// When there is a chord in it, and results are not in Redis: then nothing is sent. Or when the broker refuses a message.
    async fn carry_out(&self, plan: Continuation) -> Result<Vec<ResultTuple>, NotSent> {
        if let Some(backend) = self.shared.records.chords() {
            for (group, structure) in &plan.saved_groups {
                self.shared.patiently("saving a group", || backend.save_group(group, structure)).await;
            }
            for (group, size) in &plan.chord_sizes {
                self.shared.patiently("preparing a chord", || backend.announce_chord(group, *size)).await;
            }
        } else if !plan.chord_sizes.is_empty() {
            return Err(Failure::new("builtins", "NotImplementedError", NO_CHORDS).into());
        }
        self.send(&plan.sends).await?;
        Ok(plan.children)
    }

    /// Publishes each message once, even if Redis's answer is lost.
    ///
    /// # Errors
    /// When the broker refuses one of them, or to say where it goes, again and again; the others may have been published. Or when the worker
    /// stops meanwhile.
    pub async fn send(&self, sends: &[Send]) -> Result<(), NotSent> {
        let mut pushes = Vec::with_capacity(sends.len());
        for send in sends {
            let targets = self.shared.attempt("reading bindings", || self.shared.transport.targets(send)).await;
            let targets = targets.map_err(|given_up| self.not_sent(&given_up))?;
            pushes.extend(targets.into_iter().map(|target| self.push(send, target)));
        }
        if pushes.is_empty() {
            return Ok(());
        }
        let transport = &self.shared.transport;
        let published = self.shared.attempt("sending a task", || transport.publish(&pushes)).await;
        let tags: Vec<String> = pushes.iter().map(|push| push.tag.clone()).collect();
        if let Err(given_up) = published {
            transport.abandon(&tags);
            return Err(self.not_sent(&given_up));
        }
        self.shared.patiently("forgetting markers", || transport.settle(&tags)).await;
        Ok(())
    }

    fn not_sent(&self, given_up: &GivenUp) -> NotSent {
        let GivenUp::Refused(error) = given_up else { return NotSent::Stopping };
        let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
        let text = format!("a message that follows from {} was not sent: {error}{cause}", self.parent.id);
        Failure::new("taskgate", "NotSent", &text).into()
    }

    fn push(&self, send: &Send, target: Target) -> Push {
        let tag = clock::random_id().to_string();
        let reply_to = send.reply_to.as_deref().or(self.reply.map(|reply| reply.queue.as_str()));
        let properties = Properties {
            exchange: send.exchange.as_str().into(),
            reply_to: reply_to.map(Into::into),
            ..Properties::task(send.message.id.as_str(), &send.routing_key, send.priority, &tag)
        };
        let envelope = envelope(&send.message.headers(), &send.message.body(), &properties);
        Push { target, envelope, tag }
    }
}
