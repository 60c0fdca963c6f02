//! Sends the next steps after a step, and does its chord's bookkeeping, in place of a worker.
//!
//! Every call may be repeated. A message has the delivery tag of its task's first delivery: the relay's markers turn a second one
//! away, and a revoke that came before forbids it. New ids come from the step's own and from what they are for, so a repetition makes
//! the same ones, and no two plans of a step share any.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::Parts;
use super::settle::Trouble;
use broker::backend::{Backend, Claim, Unless};
use broker::{Push, Target};
use celery::chord::{self, Part};
use celery::continuation::{self, Aftermath, Continuation, Send, Sender};
use celery::exception::Exception;
use celery::result::{ResultMeta, ResultTuple, decode_saved_group};
use celery::task::{Json, Phase, Priority, QueueName, TaskId};
use celery::{DecodeError, Message, Properties, Signature, envelope};
use ledger::{News, Source};
use runtime::clock::{self, Time};
use serde_json::value::RawValue;

/// How long to wait for the records of a nested header: Celery's `result_chord_join_timeout`.
const JOIN_TIMEOUT: Duration = Duration::from_secs(3);
const JOIN_PAUSE: Duration = Duration::from_millis(50);
/// The queue of signatures from other clients that name none.
const DEFAULT_QUEUE: &str = "celery";

/// A step that has ended.
pub(super) struct Follow<'a> {
    parts: &'a Parts,
    message: &'a Message,
    /// The published tasks.
    sent: Mutex<Vec<(TaskId, String)>>,
}

impl<'a> Follow<'a> {
    pub fn new(parts: &'a Parts, message: &'a Message) -> Self {
        Self { parts, message, sent: Mutex::default() }
    }

    /// Sends callbacks and the next step of the chain. The inner error is an invalid signature; then nothing is sent.
    pub async fn after_success(
        &self,
        value: Option<&RawValue>,
    ) -> Result<Result<Vec<ResultTuple>, DecodeError>, Trouble> {
        let plan = self.plan("success", |sender| match value {
            Some(value) => continuation::after_success(self.message, value, sender),
            None => continuation::after_nothing(self.message, sender),
        });
        match plan {
            Ok(plan) => Ok(Ok(self.carry_out(plan).await?)),
            Err(error) => Ok(Err(error)),
        }
    }

    pub fn after_failure(&self) -> Aftermath {
        self.aftermath("failure", |sender| continuation::after_failure(self.message, sender))
    }

    /// The result record of the step.
    pub fn record(&self, status: &str, result: Json, at: Time) -> ResultMeta {
        let mut record = ResultMeta::new(self.message.id.clone(), status, result);
        record.group_id.clone_from(&self.message.group);
        record.parent_id.clone_from(&self.message.parent_id);
        record.date_done = Some(timestamp(at));
        record
    }

    pub async fn store(&self, record: &ResultMeta) -> Result<(), Trouble> {
        let Some(backend) = &self.parts.backend else { return Ok(()) };
        let id = self.message.id.as_str();
        backend.store(id, &record.encode(), self.parts.result_expires, Unless::Succeeded).await?;
        Ok(())
    }

    /// Reports the end to the chord that the step is in, if any.
    pub async fn report(&self, state: &str, value: &Json) -> Result<(), Trouble> {
        let (Some(body), Some(group)) = (&self.message.embed.chord, &self.message.group) else { return Ok(()) };
        let part = Part { task_id: self.message.id.as_str().to_owned(), state: state.to_owned(), value: value.clone() };
        Box::pin(self.add_part(group.as_str(), self.message.group_index, &part, body)).await
    }

    /// Stores the failure of all tasks that will never run, returns the parts of chord members, and sends the errbacks.
    pub async fn fall_out(&self, aftermath: &Aftermath, value: &Json) -> Result<(), Trouble> {
        for doomed in &aftermath.doomed {
            let (Some(backend), Ok(id)) = (&self.parts.backend, TaskId::parse(&doomed.task_id)) else { continue };
            let mut record = ResultMeta::new(id, "FAILURE", value.clone());
            record.date_done = Some(timestamp(clock::now()));
            let text = record.encode();
            backend.store(&doomed.task_id, &text, self.parts.result_expires, Unless::Succeeded).await?;
            if let (Some(body), Some(group)) = (&doomed.chord, &doomed.group) {
                let (task_id, state) = (doomed.task_id.clone(), "FAILURE".to_owned());
                let part = Part { task_id, state, value: value.clone() };
                Box::pin(self.add_part(group, doomed.group_index, &part, body)).await?;
            }
        }
        self.send(&aftermath.errbacks).await
    }

    /// News of the tasks that were sent: they are queued.
    pub fn queued(&self) -> Vec<News> {
        let now = clock::now();
        let sent = self.sent.lock().expect("nothing panics under this lock");
        sent.iter().map(|(id, _)| News::new(id.clone(), Source::Ledger, Phase::Queued, now)).collect()
    }

    /// Removes the markers, because the step is settled and nothing is sent again.
    pub async fn forget_markers(&self) {
        let Some(lists) = self.parts.broker.lists() else { return };
        let tags: Vec<String> = {
            let sent = self.sent.lock().expect("nothing panics under this lock");
            sent.iter().map(|(_, tag)| tag.clone()).collect()
        };
        // Markers that stay cost a few bytes until they are swept.
        let _ = lists.forget_markers(&tags).await;
    }

    async fn add_part(&self, group: &str, index: Option<i64>, part: &Part, body: &Signature) -> Result<(), Trouble> {
        let Some(backend) = &self.parts.backend else { return Ok(()) };
        let token = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}/{group}", self.message.id).as_bytes()).to_string();
        let Some(claim) = backend.add_part(group, index, part, self.parts.result_expires, &token).await? else {
            return Ok(());
        };
        let results = match self.results(backend, &claim).await? {
            Ok(results) => results,
            Err(error) => return self.fail_body(backend, &claim, body, &error).await,
        };
        if !backend.prolong(&claim).await? {
            return Ok(());
        }
        match self.plan("body", |sender| continuation::chord_body(self.message, body, &results, sender)) {
            Ok(plan) => {
                self.carry_out(plan).await?;
                backend.finish_chord(&claim).await?;
                Ok(())
            }
            Err(error) => self.fail_body(backend, &claim, body, &chord_error(&error.to_string())).await,
        }
    }

    /// The list of all results, in the header's structure; the inner error is the failure of the body.
    async fn results(&self, backend: &Backend, claim: &Claim) -> Result<Result<Json, Exception>, Trouble> {
        if let Some(saved) = backend.saved_group(claim).await? {
            return match decode_saved_group(&saved) {
                Ok(structure) => self.join(backend, &structure).await,
                Err(error) => Ok(Err(chord_error(&error.to_string()))),
            };
        }
        let parts = backend.parts(claim).await?;
        Ok(match parts.iter().find(|part| part.has_failed()) {
            Some(failed) => Err(failed.chord_error()),
            None => Ok(chord::body_argument(parts.iter().map(|part| &*part.value))),
        })
    }

    /// The results of a nested header, from the records of its members.
    async fn join(&self, backend: &Backend, structure: &ResultTuple) -> Result<Result<Json, Exception>, Trouble> {
        let ids: Vec<TaskId> = chord::leaves(structure).into_iter().filter_map(|id| TaskId::parse(id).ok()).collect();
        let deadline = Instant::now() + JOIN_TIMEOUT;
        loop {
            let records: Vec<ResultMeta> = backend
                .records(&ids)
                .await?
                .into_iter()
                .flatten()
                .filter_map(|record| ResultMeta::decode(&record).ok())
                .collect();
            if let Some(failed) = records.iter().filter_map(part_of).find(Part::has_failed) {
                return Ok(Err(failed.chord_error()));
            }
            let succeeded = |id: &str| {
                let is_it = |record: &&ResultMeta| record.task_id.as_ref().is_some_and(|own| own.as_str() == id);
                records
                    .iter()
                    .find(is_it)
                    .filter(|record| record.status == "SUCCESS")
                    .map(|record| record.result.clone())
            };
            if let Some(results) = chord::nested(structure, &succeeded) {
                return Ok(Ok(results));
            }
            if Instant::now() >= deadline {
                return Ok(Err(chord_error("the results of the header were not there in time")));
            }
            tokio::time::sleep(JOIN_PAUSE).await;
        }
    }

    /// Fails a body that will never run, with the steps after it, and sends its errbacks.
    async fn fail_body(
        &self,
        backend: &Backend,
        claim: &Claim,
        body: &Signature,
        error: &Exception,
    ) -> Result<(), Trouble> {
        warn!(task.id = body.options.task_id, "the body of a chord fails: {}", error.text());
        let aftermath =
            self.aftermath("chord failure", |sender| continuation::chord_failed(self.message, body, sender));
        Box::pin(self.fall_out(&aftermath, &error.encode())).await?;
        backend.fail_chord(claim).await?;
        Ok(())
    }

    fn aftermath(
        &self,
        purpose: &str,
        make: impl FnOnce(&mut Sender<'_>) -> Result<Aftermath, DecodeError>,
    ) -> Aftermath {
        self.plan(purpose, make).unwrap_or_else(|error| {
            let id = &self.message.id;
            warn!(task.id = %id, "what follows the failure of {id} cannot be sent: {error}");
            Aftermath::default()
        })
    }

    /// The step may be planned for more than one purpose: its success sends what follows, and its part may send the chord's body.
    fn plan<T>(
        &self,
        purpose: &str,
        make: impl FnOnce(&mut Sender<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut made = 0;
        let mut ids = || {
            made += 1;
            new_id(&self.message.id, purpose, made)
        };
        let (now, origin) = (timestamp(clock::now()), self.parts.origin.as_str());
        make(&mut Sender { now, origin, default_queue: DEFAULT_QUEUE, ids: &mut ids })
    }

    async fn carry_out(&self, plan: Continuation) -> Result<Vec<ResultTuple>, Trouble> {
        if let Some(backend) = &self.parts.backend {
            for (group, structure) in &plan.saved_groups {
                backend.save_group(group, structure).await?;
            }
            for (group, size) in &plan.chord_sizes {
                backend.announce_chord(group, *size).await?;
            }
        }
        self.send(&plan.sends).await?;
        Ok(plan.children)
    }

    async fn send(&self, sends: &[Send]) -> Result<(), Trouble> {
        let mut pushes = Vec::with_capacity(sends.len());
        for send in sends {
            for queue in self.queues(send).await? {
                pushes.push(push(send, queue));
            }
        }
        if pushes.is_empty() {
            return Ok(());
        }
        for (outcome, push) in self.parts.broker.publish(&pushes, None).await?.iter().zip(&pushes) {
            if let Some(why) = outcome.refusal() {
                return Err(Trouble::Unsent { tag: push.tag.clone(), why: why.to_owned() });
            }
        }
        let sent = sends.iter().map(|send| (send.message.id.clone(), send.message.id.delivery_tag(1)));
        self.sent.lock().expect("nothing panics under this lock").extend(sent);
        Ok(())
    }

    /// The queues of a message: with the default exchange a single one, else the bound queues.
    async fn queues(&self, send: &Send) -> Result<Vec<QueueName>, Trouble> {
        let bound = match self.parts.broker.lists() {
            Some(lists) if !send.exchange.is_empty() => lists.bound(&send.exchange, &send.routing_key).await?,
            _ => vec![send.routing_key.clone()],
        };
        Ok(bound.iter().filter_map(|queue| QueueName::stored(queue).ok()).collect())
    }
}

/// The same for every repetition.
fn new_id(step: &TaskId, purpose: &str, number: u32) -> TaskId {
    TaskId::from(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{step}/{purpose}/{number}").as_bytes()))
}

fn push(send: &Send, queue: QueueName) -> Push {
    let (id, tag) = (send.message.id.as_str(), send.message.id.delivery_tag(1));
    let mut properties = Properties::task(id, queue.as_str(), send.priority, &tag);
    properties.reply_to = Some(tag.as_str().into());
    let envelope = envelope(&send.message.headers(), &send.message.body(), &properties);
    Push { target: Target::Queue(queue, Priority::clamped(send.priority.into())), envelope, tag }
}

fn part_of(record: &ResultMeta) -> Option<Part> {
    let task_id = record.task_id.as_ref()?.as_str().to_owned();
    Some(Part { task_id, state: record.status.clone(), value: record.result.clone() })
}

fn chord_error(text: &str) -> Exception {
    Exception::new("celery.exceptions", "ChordError", text)
}

fn timestamp(at: Time) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_makes_the_same_ids_and_another_purpose_makes_others() {
        let step = TaskId::parse("a").unwrap();
        assert_eq!(new_id(&step, "success", 1), new_id(&step, "success", 1));
        let others =
            [new_id(&step, "success", 2), new_id(&step, "body", 1), new_id(&TaskId::parse("b").unwrap(), "success", 1)];
        assert!(!others.contains(&new_id(&step, "success", 1)));
    }
}
