//! The worker's part in chords: reports the end of a member, and sends the body after the last one.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::events::timestamp;
use super::follow::{Follow, NotSent};
use broker::backend::{Backend, Claim, Record, Reply, Unless};
use celery::Signature;
use celery::chord::{self, Part};
use celery::continuation::{Aftermath, Doomed};
use celery::exception::Exception;
use celery::result::{ResultMeta, ResultTuple, decode_saved_group};
use celery::task::{Json, TaskId};
use runtime::clock;

/// How long the worker of the last member waits for missing records of others: Celery's `result_chord_join_timeout`.
const JOIN_TIMEOUT: Duration = Duration::from_secs(3);
const JOIN_PAUSE: Duration = Duration::from_millis(50);

/// The error of a task, which everything that depends on it gets as well.
#[derive(Clone, Copy)]
pub(super) struct Because<'a> {
    pub value: &'a Json,
    pub traceback: Option<&'a str>,
}

impl Follow<'_> {
    /// Reports the end of the task to its chord, if it has one.
    pub async fn report(&self, state: &str, value: &Json) {
        let (Some(body), Some(group)) = (&self.parent.embed.chord, &self.parent.group) else { return };
        if self.shared.records.chords().is_none() {
            return warn!(task.id = %self.parent.id, "the chord of {} never completes: results are not in Redis", self.parent.id);
        }
        let part = Part { task_id: self.parent.id.as_str().to_owned(), state: state.to_owned(), value: value.clone() };
        Box::pin(self.add_part(group.as_str(), self.parent.group_index, &part, body)).await;
    }

    /// Stores the failure of all tasks that will never run, reports those that are members of a chord, and sends the errbacks.
    pub async fn fall_out(&self, aftermath: &Aftermath, because: Because<'_>) {
        for doomed in &aftermath.doomed {
            self.store_failure(doomed, because).await;
            if let (Some(body), Some(group)) = (&doomed.chord, &doomed.group) {
                let (task_id, state) = (doomed.task_id.clone(), "FAILURE".to_owned());
                let part = Part { task_id, state, value: because.value.clone() };
                Box::pin(self.add_part(group, doomed.group_index, &part, body)).await;
            }
        }
        if let Err(not_sent) = self.send(&aftermath.errbacks).await {
            let id = &self.parent.id;
            error!(task.id = %id, "the errbacks of {id} are not called: {}", not_sent.text());
        }
    }

    async fn add_part(&self, group: &str, index: Option<i64>, part: &Part, body: &Signature) {
        let Some(backend) = self.shared.records.chords() else { return };
        let token = clock::random_id().simple().to_string();
        let expires = self.shared.settings.result_expires;
        let add = || backend.add_part(group, index, part, expires, &token);
        let Some(Some(claim)) = self.shared.patiently("reporting to a chord", add).await else { return };
        debug!(group.id = group, "the header of chord {group} is complete");
        match self.results(backend, &claim).await {
            Ok(results) => self.send_body(backend, &claim, body, &results).await,
            Err(error) => self.fail_body(backend, &claim, body, &error).await,
        }
    }

    async fn send_body(&self, backend: &Backend, claim: &Claim, body: &Signature, results: &Json) {
        if self.shared.patiently("holding a chord", || backend.prolong(claim)).await != Some(true) {
            return;
        }
        match self.body(body, results).await {
            Ok(()) => {}
            // The claim runs out, and whoever claims it next sends the body.
            Err(NotSent::Stopping) => return,
            Err(NotSent::Failed(failure)) => return self.fail_body(backend, claim, body, &failure.exception).await,
        }
        self.shared.patiently("ending a chord", || backend.finish_chord(claim)).await;
    }

    /// The list of all results, in the structure of the header.
    ///
    /// # Errors
    /// The `ChordError` that the body gets.
    async fn results(&self, backend: &Backend, claim: &Claim) -> Result<Json, Exception> {
        let saved = self.shared.patiently("reading a chord", || backend.saved_group(claim)).await.flatten();
        if let Some(saved) = saved {
            let structure = decode_saved_group(&saved).map_err(|error| chord_error(&error.to_string()))?;
            return self.join(backend, &structure).await;
        }
        let parts = self.shared.patiently("reading a chord", || backend.parts(claim)).await.unwrap_or_default();
        match parts.iter().find(|part| part.has_failed()) {
            Some(failed) => Err(failed.chord_error()),
            None => Ok(chord::body_argument(parts.iter().map(|part| &*part.value))),
        }
    }

    /// Collects the results of a nested header from its members' records.
    async fn join(&self, backend: &Backend, structure: &ResultTuple) -> Result<Json, Exception> {
        let ids: Vec<TaskId> = chord::leaves(structure).into_iter().filter_map(|id| TaskId::parse(id).ok()).collect();
        let deadline = Instant::now() + JOIN_TIMEOUT;
        loop {
            let read = || backend.records(&ids);
            let records = self.shared.patiently("joining a chord", read).await.unwrap_or_default();
            let records: Vec<ResultMeta> =
                records.into_iter().flatten().filter_map(|record| ResultMeta::decode(&record).ok()).collect();
            let find =
                |id: &str| records.iter().find(|record| record.task_id.as_ref().is_some_and(|own| own.as_str() == id));
            let parts = ids.iter().filter_map(|id| find(id.as_str())).map(|record| Part {
                task_id: record.task_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
                state: record.status.clone(),
                value: record.result.clone(),
            });
            if let Some(failed) = parts.into_iter().find(Part::has_failed) {
                return Err(failed.chord_error());
            }
            let succeeded =
                |id: &str| find(id).filter(|record| record.status == "SUCCESS").map(|record| record.result.clone());
            if let Some(results) = chord::nested(structure, &succeeded) {
                return Ok(results);
            }
            if Instant::now() >= deadline {
                return Err(chord_error("the results of the header were not there in time"));
            }
            tokio::time::sleep(JOIN_PAUSE).await;
        }
    }

    /// Fails a body that will never run, together with what follows it, and sends its errbacks.
    async fn fail_body(&self, backend: &Backend, claim: &Claim, body: &Signature, error: &Exception) {
        warn!(task.id = body.options.task_id, "the body of a chord fails: {}", error.text());
        let value = error.encode();
        let traceback = format!("celery.exceptions.{}: {}\n", error.kind, error.text());
        let because = Because { value: &value, traceback: Some(&traceback) };
        Box::pin(self.fall_out(&self.chord_failed(body), because)).await;
        self.shared.patiently("failing a chord", || backend.fail_chord(claim)).await;
    }

    async fn store_failure(&self, doomed: &Doomed, because: Because<'_>) {
        let Ok(task_id) = TaskId::parse(&doomed.task_id) else { return };
        let record = ResultMeta {
            traceback: because.traceback.map(str::to_owned),
            date_done: Some(timestamp()),
            ..ResultMeta::new(task_id, "FAILURE", because.value.clone())
        };
        let reply = self.reply.map(|reply| Reply { correlation_id: doomed.task_id.clone(), ..reply.clone() });
        let record = Record { task_id: doomed.task_id.clone(), text: record.encode(), reply };
        let expires = self.shared.settings.result_expires;
        let store = || self.shared.records.store(&record, expires, Unless::Succeeded);
        self.shared.patiently("storing a failure", store).await;
    }
}

fn chord_error(text: &str) -> Exception {
    Exception::new("celery.exceptions", "ChordError", text)
}
