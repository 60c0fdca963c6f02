//! Admits a message that was taken: it waits for its turn, or is settled at once.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::{info, warn};

use super::{Dispatcher, Entry, Key, Stage};
use crate::events::timestamp;
use crate::finish::{Finish, Revocation};
use crate::registry::Task;
use crate::request::{Origin, Request};
use crate::settings::UnknownTask;
use broker::Return;
use celery::event::{Call, TaskNews};
use celery::{DecodeError, Message};

impl Dispatcher {
    pub(super) fn admit(&mut self, origin: Origin, read: Result<Message, DecodeError>) {
        let message = match read {
            Ok(message) => message,
            Err(error) => return self.refuse(origin, &error),
        };
        if self.recent.knows(self.shared.transport.tags(), &origin, &message) {
            info!(task.id = %message.id, "{} was already finished, its message is dropped", message.id);
            return self.drop_message(origin);
        }
        if origin.redelivered && self.runs_already(&origin, &message) {
            info!(task.id = %message.id, "{} runs here, its message was delivered again and ends with it", message.id);
            return self.places.free(1);
        }
        let Some(task) = self.tasks.get(&message.task).cloned() else { return self.unknown(origin, message) };
        let request = Arc::new(Request { message, task, origin });
        if let Some(revocation) = self.revocation(&request) {
            let key = self.insert(request, Stage::Settling);
            return self.settle_revoked(key, revocation);
        }
        if request.is_exhausted(self.shared.settings.max_deliveries) {
            warn!(task.id = %request.message.id, "{} was delivered too often without an end: it fails", request.message.id);
            let key = self.insert(request, Stage::Settling);
            return self.settle(key, |finish| async move { finish.poisonous().await });
        }
        self.received(&request);
        match request.message.eta.filter(|eta| *eta > timestamp()) {
            Some(eta) => self.hold(request, eta),
            None => {
                let key = self.insert(request, Stage::Reserved);
                self.ready.push_back(key);
            }
        }
    }

    /// Whether this is a second delivery of a message whose task runs here, because the channel broke on which it came first. It then ends
    /// with the first.
    fn runs_already(&self, origin: &Origin, message: &Message) -> bool {
        let Some(again) = origin.tag.as_deref() else { return false };
        let is_same =
            |request: &Request| request.message.id == message.id && request.message.retries == message.retries;
        let runs = |entry: &&Entry| matches!(entry.stage, Stage::Active { .. } | Stage::Settling);
        let mut running = self.entries.values().filter(runs).filter(|entry| is_same(&entry.request));
        running.any(|entry| {
            entry.request.origin.tag.as_deref().is_some_and(|held| self.shared.transport.adopt(held, again))
        })
    }

    /// Drops a message that no worker could run, as Celery does, but reports it.
    pub(super) fn refuse(&mut self, origin: Origin, error: &DecodeError) {
        warn!(queue.name = %origin.queue, bytes = origin.raw.len(), error = %error, "a message from {} {error}: dropped", origin.queue);
        metrics::counter!("taskgate_worker_messages_refused_total").increment(1);
        if let Some(id) = Finish::readable_id(&origin.raw) {
            self.shared.events.task(&id, || TaskNews::Rejected { requeue: false });
        }
        self.drop_message(origin);
    }

    pub(super) fn drop_message(&mut self, origin: Origin) {
        let (shared, places) = (Arc::clone(&self.shared), Arc::clone(&self.places));
        self.tracker.spawn(async move {
            shared.acks.ack(origin.tag.as_deref()).await;
            places.free(1);
        });
    }

    /// Handles a task that is not registered here.
    pub(super) fn unknown(&mut self, origin: Origin, message: Message) {
        let task = Arc::new(Task::unknown(message.task.clone()));
        let request = Arc::new(Request { message, task, origin });
        let name = &request.message.task;
        if self.shared.settings.unknown_task == UnknownTask::Requeue && !request.origin.redelivered {
            warn!(task.id = %request.message.id, task.name = %name, "unknown task {name}: back to its queue");
            return self.give_back(&request, Return::Last);
        }
        warn!(task.id = %request.message.id, task.name = %name, "unknown task {name}: it fails");
        let key = self.insert(request, Stage::Settling);
        self.settle(key, |finish| async move { finish.not_registered().await });
    }

    pub(super) fn received(&self, request: &Request) {
        let message = &request.message;
        self.shared.events.task(&message.id, || {
            TaskNews::Received(Box::new(Call {
                name: Some(message.task.as_str().to_owned()),
                args: Some(request.shown_args()),
                kwargs: Some(request.shown_kwargs()),
                root_id: message.root_id.clone(),
                parent_id: message.parent_id.clone(),
                retries: message.retries.into(),
                eta: message.eta,
                expires: message.expires,
                redelivered: request.origin.redelivered,
                ..Call::default()
            }))
        });
    }

    pub(super) fn hold(&mut self, request: Arc<Request>, eta: Timestamp) {
        let key = self.insert(request, Stage::Scheduled(eta));
        let is_prefetched = self.scheduled.add(eta, key);
        if !is_prefetched {
            self.free_place(key);
        }
    }

    pub(super) fn insert(&mut self, request: Arc<Request>, stage: Stage) -> Key {
        self.next_key += 1;
        self.settling += usize::from(matches!(stage, Stage::Settling));
        self.entries.insert(self.next_key, Entry { request, stage, place: true });
        self.next_key
    }

    /// The reason why a message must not run, if there is one.
    pub(super) fn revocation(&self, request: &Request) -> Option<Revocation> {
        if self.revoked.contains(&request.message) {
            return Some(Revocation::Revoked);
        }
        request.is_expired(timestamp()).then_some(Revocation::Expired)
    }
}
