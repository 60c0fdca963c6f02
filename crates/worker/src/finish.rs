//! Stores how a task ended and sends its continuation (callbacks, next step, errbacks), in Celery's order: the continuation is sent
//! before the result is stored.
//!
//! Every step is retried while a server is down: the end of a task that ran must not be lost. Each step is safe to repeat.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::value::RawValue;
use tracing::{info, warn};

use super::chords::Because;
use super::context::Context;
use super::error::{Failure, Retry, TaskError};
use super::events::timestamp;
use super::follow::{Follow, NotSent};
use super::request::{Outcome, Request, celery_error};
use super::shared::SharedRef;
use broker::Return;
use celery::event::TaskNews;
use celery::exception::Exception;
use celery::json;
use celery::pyrepr::{Sequence, safe};
use celery::result::{ResultMeta, ResultTuple};
use celery::task::{Json, TaskId};
use celery::{Envelope, Message};
use runtime::clock;

/// The end of one request.
#[derive(Clone)]
pub(crate) struct Finish {
    shared: SharedRef,
    request: Arc<Request>,
    /// When its handler ended, if one ran: the next task may end before this end is stored.
    ended_at: Option<Timestamp>,
}

/// Why a task does not run, or was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revocation {
    Revoked,
    Expired,
    Terminated { signal: i32 },
}

/// What happens to the message once everything is stored.
enum Verdict {
    Ack,
    /// It goes back to its queue, to run here or elsewhere.
    Return(Return),
    /// Its task rejected it.
    Reject,
    /// Its task failed and must not be acknowledged.
    Leave,
    /// The worker stops before it could send what follows: the message stays reserved, and is delivered again.
    Keep,
}

impl Finish {
    pub fn new(shared: SharedRef, request: Arc<Request>) -> Self {
        Self { shared, request, ended_at: None }
    }

    /// Records the current time as the end of the handler, however long storing it takes.
    pub fn handler_ended(&mut self) {
        self.ended_at = Some(timestamp());
    }

    /// The id of a message that could not be decoded as a whole.
    pub fn readable_id(raw: &[u8]) -> Option<TaskId> {
        let headers = Envelope::decode(raw).ok()?.headers;
        TaskId::parse(json::Fields::parse(&headers).ok()?.text("id")?).ok()
    }

    /// Stores STARTED for tasks that track it.
    pub async fn started(&self, pid: u32) {
        if !self.request.tracks_start(&self.shared.settings) {
            return;
        }
        let mut meta = format!("{{\"pid\": {pid}, \"hostname\": ");
        json::push_string(&mut meta, &self.shared.settings.hostname);
        meta.push('}');
        self.store(self.record("STARTED", json::written(meta))).await;
    }

    /// Settles a run. Returns whether its message must not run again.
    pub async fn ended(&self, context: &Context, outcome: Outcome, runtime: Duration, late: bool) -> bool {
        let children = std::mem::take(&mut *context.run().children.lock().expect("nothing panics under this lock"));
        let verdict = match outcome {
            Outcome::Returned(value) => self.succeeded(value, children, runtime).await,
            Outcome::Error(TaskError::Fail(failure)) => self.failed_or_retried(*failure, children).await,
            Outcome::Error(TaskError::Retry(retry)) => self.retried(*retry, children).await,
            Outcome::Error(TaskError::Reject { reason, requeue }) => self.rejected(&reason, requeue, late).await,
            Outcome::Error(TaskError::Ignore) => Verdict::Ack,
            Outcome::SoftTimeLimit => self.failed_or_retried(soft_time_limit(), children).await,
            Outcome::TimeLimit(limit) => self.failed(time_limit(limit), children).await,
            Outcome::WorkerLost(text) => self.worker_lost(&text, late, children).await,
            Outcome::Terminated { signal } => {
                self.revoked(Revocation::Terminated { signal }).await;
                Verdict::Ack
            }
            Outcome::Cancelled => self.cancelled(late).await,
        };
        let done = !late || matches!(verdict, Verdict::Ack | Verdict::Reject);
        if late {
            self.deal_with_message(verdict).await;
        }
        done
    }

    async fn deal_with_message(&self, verdict: Verdict) {
        match verdict {
            Verdict::Ack => self.shared.acks.ack(self.request.origin.tag.as_deref()).await,
            Verdict::Return(place) => self.shared.give_back(&self.request.origin, place).await,
            Verdict::Reject => self.shared.reject(&self.request.origin).await,
            Verdict::Leave => self.shared.leave(&self.request.origin).await,
            Verdict::Keep => {}
        }
    }

    async fn succeeded(&self, value: Json, mut children: Vec<ResultTuple>, runtime: Duration) -> Verdict {
        match self.follow().after_success(&value).await {
            Ok(sent) => children.extend(sent),
            Err(not_sent) => return self.not_sent(not_sent, children).await,
        }
        let shown = self.shared.events.enabled().then(|| safe(&value, Sequence::List));
        let record = ResultMeta { children: Some(children), ..self.done("SUCCESS", value.clone()) };
        self.store(record).await;
        self.follow().report("SUCCESS", &value).await;
        self.event(|| TaskNews::Succeeded { result: shown, runtime: Some(runtime.as_secs_f64()) });
        Verdict::Ack
    }

    /// A record would say that the task is over although what follows it is not sent.
    async fn not_sent(&self, why: NotSent, children: Vec<ResultTuple>) -> Verdict {
        match why {
            NotSent::Failed(failure) => self.failed(*failure, children).await,
            NotSent::Stopping => {
                let id = self.request.id();
                warn!(task.id = %id, "{id} is done, and what follows it is not sent: its message is kept");
                Verdict::Keep
            }
        }
    }

    async fn failed_or_retried(&self, failure: Failure, children: Vec<ResultTuple>) -> Verdict {
        if self.request.retries_failure(&failure.exception.kind) {
            return self.retried(Retry { cause: Some(failure), ..Retry::default() }, children).await;
        }
        self.failed(failure, children).await
    }

    async fn failed(&self, failure: Failure, children: Vec<ResultTuple>) -> Verdict {
        let message = &self.request.message;
        warn!(task.id = %message.id, task.name = %message.task, error = %failure.exception.repr(), "{} {} failed: {}", message.task, message.id, failure.exception.repr());
        self.fail(&failure, children).await;
        let traceback = self.traceback(&failure);
        self.event(|| TaskNews::Failed { exception: failure.exception.repr(), traceback });
        match self.request.task.options.acks_on_failure_or_timeout {
            Some(false) => Verdict::Leave,
            _ => Verdict::Ack,
        }
    }

    /// Stores FAILURE for this task and all that can no longer run, and sends the errbacks.
    async fn fail(&self, failure: &Failure, children: Vec<ResultTuple>) {
        let value = failure.exception.encode();
        let traceback = self.traceback(failure);
        let record = ResultMeta {
            traceback: traceback.clone(),
            children: Some(children),
            ..self.done("FAILURE", value.clone())
        };
        self.store(record).await;
        let follow = self.follow();
        follow.report("FAILURE", &value).await;
        follow.fall_out(&follow.after_failure(), Because { value: &value, traceback: traceback.as_deref() }).await;
    }

    async fn retried(&self, retry: Retry, children: Vec<ResultTuple>) -> Verdict {
        let policy = self.request.retry_policy();
        let retries = self.request.message.retries;
        if retry.max_retries.map_or(!policy.allows(retries), |max| retries >= max) {
            let exhausted = retry.cause.unwrap_or_else(|| self.exhausted());
            return self.failed(exhausted, children).await;
        }
        let delay = retry.delay.unwrap_or_else(|| policy.delay_for(retries, rand::random()));
        let eta = Timestamp::from_microsecond(clock::now().plus(delay).as_micros()).unwrap_or(Timestamp::MAX);
        let next = self.request.next_attempt(eta);
        let origin = &self.request.origin;
        if let Err(not_sent) = self.follow().send_again(next, origin).await {
            return self.not_sent(not_sent, children).await;
        }
        let cause = retry.cause.unwrap_or_else(|| Failure::without_arguments("celery.exceptions", "Retry"));
        let traceback = self.traceback(&cause);
        let record = ResultMeta {
            traceback: traceback.clone(),
            children: Some(vec![ResultTuple::task(self.request.id())]),
            ..self.record("RETRY", cause.exception.encode())
        };
        self.store(record).await;
        info!(task.id = %self.request.id(), delay_ms = delay.as_millis(), "{} runs again in {delay:?}: {}", self.request.id(), cause.exception.repr());
        self.event(|| TaskNews::Retried { exception: cause.exception.repr(), traceback });
        Verdict::Ack
    }

    fn exhausted(&self) -> Failure {
        let message = &self.request.message;
        let text = format!(
            "Can't retry {}[{}] args:{} kwargs:{}",
            message.task,
            message.id,
            self.request.shown_args(),
            self.request.shown_kwargs()
        );
        Failure { exception: celery_error("MaxRetriesExceededError", &text), traceback: None }
    }

    async fn rejected(&self, reason: &str, requeue: bool, late: bool) -> Verdict {
        if requeue && late {
            self.event(|| TaskNews::Rejected { requeue: true });
            return Verdict::Return(Return::Last);
        }
        let failure = Failure::with_arguments("celery.exceptions", "Reject", &(reason, requeue));
        self.failed(failure, Vec::new()).await;
        self.event(|| TaskNews::Rejected { requeue });
        Verdict::Reject
    }

    async fn worker_lost(&self, text: &str, late: bool, children: Vec<ResultTuple>) -> Verdict {
        if late && self.request.task.options.reject_on_worker_lost {
            warn!(task.id = %self.request.id(), "{}: {text}: it goes back to its queue", self.request.id());
            return Verdict::Return(Return::Last);
        }
        self.failed(Failure::new("billiard.exceptions", "WorkerLostError", text), children).await
    }

    /// Settles a run that a cold shutdown ended: a late-acknowledged message goes back; any other cannot, so its task fails.
    async fn cancelled(&self, late: bool) -> Verdict {
        self.event(|| TaskNews::Cancelled);
        if late {
            return Verdict::Return(Return::Next);
        }
        let text = "the worker was stopped while the task ran";
        self.fail(&Failure::new("billiard.exceptions", "WorkerLostError", text), Vec::new()).await;
        Verdict::Ack
    }

    /// Settles a task that must not run, or that a revoke ended.
    pub async fn revoked(&self, revocation: Revocation) {
        let (reason, signal) = match revocation {
            Revocation::Revoked => ("revoked", None),
            Revocation::Expired => ("expired", None),
            Revocation::Terminated { signal } => ("terminated", Some(signal)),
        };
        info!(task.id = %self.request.id(), "{} is {reason}", self.request.id());
        self.event(|| TaskNews::Revoked {
            terminated: signal.is_some(),
            signum: signal.map(i64::from),
            expired: revocation == Revocation::Expired,
        });
        let value = celery_error("TaskRevokedError", reason).encode();
        self.store(self.done("REVOKED", value.clone())).await;
        self.follow().report("REVOKED", &value).await;
    }

    /// Settles a task that is not registered here.
    pub async fn not_registered(&self) {
        let failure =
            Failure { exception: celery_error("NotRegistered", self.request.message.task.as_str()), traceback: None };
        self.fail(&failure, Vec::new()).await;
        self.event(|| TaskNews::Failed { exception: failure.exception.repr(), traceback: None });
    }

    /// Settles a message that its queue has delivered as often as allowed.
    pub async fn poisonous(&self) {
        let before = self.request.origin.delivered_before.unwrap_or_default();
        let text = format!("it was delivered {before} times before, and did not end");
        let failure = Failure::new("taskgate", "PoisonTask", &text);
        self.failed(failure, Vec::new()).await;
    }

    async fn store(&self, record: ResultMeta) {
        if !self.request.stores_result() {
            return;
        }
        self.shared.store(self.request.id(), self.request.origin.reply.as_ref(), record.encode()).await;
    }

    /// A record of this task.
    fn record(&self, status: &str, result: Json) -> ResultMeta {
        record(&self.request.message, status, result)
    }

    /// A record of a final state.
    fn done(&self, status: &str, result: Json) -> ResultMeta {
        ResultMeta { date_done: Some(self.ended_at.unwrap_or_else(timestamp)), ..self.record(status, result) }
    }

    /// The traceback shown below the error; Celery's own exceptions have none.
    fn traceback(&self, failure: &Failure) -> Option<String> {
        let silent = ["NotRegistered", "TimeLimitExceeded", "WorkerLostError", "Reject", "TaskRevokedError"];
        if silent.contains(&failure.exception.kind.as_str()) {
            return None;
        }
        Some(failure.traceback.clone().unwrap_or_else(|| in_pythons_form(&self.request.message, &failure.exception)))
    }

    fn event(&self, news: impl FnOnce() -> TaskNews) {
        self.shared.events.task(&self.request.message.id, news);
    }

    fn follow(&self) -> Follow<'_> {
        Follow { shared: &self.shared, parent: &self.request.message, reply: self.request.origin.reply.as_ref() }
    }
}

/// A record of `message`'s task in a state that is not final.
pub(crate) fn record(message: &Message, status: &str, result: Json) -> ResultMeta {
    let mut record = ResultMeta::new(message.id.clone(), status, result);
    record.group_id.clone_from(&message.group);
    record.parent_id.clone_from(&message.parent_id);
    record
}

fn in_pythons_form(message: &Message, exception: &Exception) -> String {
    format!("Traceback (most recent call last):\n  in {}\n{}: {}\n", message.task, exception.kind, exception.text())
}

fn soft_time_limit() -> Failure {
    Failure::without_arguments("billiard.exceptions", "SoftTimeLimitExceeded")
}

fn time_limit(limit: Duration) -> Failure {
    let mut seconds = String::from("[");
    json::push_number(&mut seconds, limit.as_secs_f64());
    seconds.push(']');
    let seconds: Box<RawValue> = json::written(seconds);
    Failure {
        exception: Exception {
            kind: "TimeLimitExceeded".to_owned(),
            message: seconds,
            module: Some("billiard.exceptions".to_owned()),
            wrapper: None,
        },
        traceback: None,
    }
}
