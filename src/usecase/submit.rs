//! Turns a request into rows of the ledger (the history database): check, add the catalog's defaults, plan, commit.
//!
//! Nothing is published here; the relay does that. When this returns, the task is on disk and survives any crash.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use super::keys::{self, Dropping};
use super::limits::{Keys, at_once};
use super::offload::Roster;
use super::revoke::RevokeError;
use super::rows::{dag, edge, groups, recovery};
use super::rules::add_links;
use super::submitted::summary;
use super::unique::{Contest, unique_key};
use super::way::due_at;
use crate::guard::tokens::Visibility;
use crate::live::commit::CommitError;
use celery::json::Members;
use celery::plan::{self, Plan, PlannedNode};
use celery::task::canvas::{NodeDefaults, Outcome};
use celery::task::pause;
use celery::task::submission::{OnConflict, Submission};
use celery::task::{Invalid, Json, Phase, Signature, TaskId, TaskName, TaskSignature};
use ledger::{Conflict, IdempotencyKey, NewTask, TaskOptions, Way};
use runtime::clock::{self, Time};
use runtime::heavy;

pub use super::submitted::Submitted;

/// A submission and its caller: token, trace context, idempotency key.
#[derive(Debug)]
pub struct SubmitRequest {
    pub submission: Submission,
    /// The task name comes from the catalog, so `submit.allow` does not apply.
    pub trusted: bool,
    /// Its transaction is committed, so nobody could be told of a refusal: it waits for a worker, like every accepted task.
    pub committed: bool,
    /// Whether this is a canvas from the catalog: its steps still obey the rules of their own entries.
    pub whole: bool,
    /// Whether it comes together with many others, which share commits.
    pub among_many: bool,
    /// Shared by all that come together.
    pub roster: Roster,
    /// The signature to submit after a failure of the whole, if there is one.
    pub on_failure: Option<serde_json::Value>,
    pub traceparent: Option<String>,
    pub idempotency: Option<Idempotency>,
    /// Id of the token.
    pub token: Option<String>,
    /// Which task names the caller's token may use.
    pub visibility: Visibility,
    pub retry_of: Option<TaskId>,
    pub schedule: Option<String>,
}

impl SubmitRequest {
    pub fn new(submission: Submission) -> Self {
        Self {
            submission,
            trusted: false,
            committed: false,
            whole: false,
            among_many: false,
            roster: Roster::default(),
            on_failure: None,
            traceparent: None,
            idempotency: None,
            token: None,
            visibility: Visibility::default(),
            retry_of: None,
            schedule: None,
        }
    }
}

/// The `Idempotency-Key`, parsed by the edge.
#[derive(Debug)]
pub struct Idempotency {
    pub scope: String,
    pub key: String,
    pub fingerprint: Vec<u8>,
    /// Writes the answer that repeated requests get.
    pub answer: Answer,
}

/// Builds the answer to record before the edge sends it.
pub struct Answer(pub(crate) Box<dyn FnOnce(&Submitted) -> Json + Send>);

impl Answer {
    pub fn new(write: impl FnOnce(&Submitted) -> Json + Send + 'static) -> Self {
        Self(Box::new(write))
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

/// The cost of checking and planning a task, expressed in bytes of a body that cost the same to parse.
const BYTES_A_TASK: usize = 512;
/// The cost of compiling a schema, in tasks: enough to be done off the threads that answer requests.
const TASKS_A_SCHEMA: usize = heavy::SMALL / BYTES_A_TASK + 1;

/// Why a submission was refused. Nothing was written into the ledger.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("the request does not fit")]
    Invalid(Vec<Invalid>),
    #[error("task {name} is not in the catalog and not allowed by submit.allow")]
    NotAllowed { name: TaskName, nearest: Option<String> },
    #[error("the token may not submit {name}")]
    NotYours { name: TaskName, patterns: Vec<String> },
    #[error("the id {id} is already used")]
    IdTaken {
        id: String,
        /// JSON pointer to the id in the request.
        pointer: String,
    },
    /// The same request was answered before.
    #[error("the request is a repetition")]
    Replay(Json),
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    /// No task of the key may start now, and the submission does not want to wait.
    #[error("no task of {key} may start now")]
    Limited { key: String, retry_after: Duration },
    #[error("{backlog} accepted tasks wait for Redis, the limit is {limit}")]
    Backlog { backlog: i64, limit: u64, retry_after: Duration },
    /// The catalog entry is strict, and no worker would run the task now.
    #[error("{0}")]
    NobodyRunsIt(String),
    #[error("{holder} holds the unique key {key}")]
    KeyHeld {
        key: String,
        holder: TaskId,
        /// Whether a replacement failed, because others were faster or the caller may not revoke the holder.
        fought: bool,
    },
    #[error("the task that it replaces could not be revoked")]
    Revoke(#[from] RevokeError),
    #[error("the submission could not be written")]
    Ledger(#[from] CommitError),
    #[error("the ledger could not be read")]
    Read(#[from] ledger::Error),
}

/// JSON pointer to the id of a single task.
const TASK_ID: &str = "/task_id";

impl SubmitError {
    pub(crate) fn taken(id: &str) -> Self {
        Self::IdTaken { id: id.to_owned(), pointer: TASK_ID.to_owned() }
    }

    /// `wait` in microseconds. It is rounded up, so that a client that waits the whole seconds does not come too early.
    pub(crate) fn limited(key: String, wait: i64) -> Self {
        let seconds = u64::try_from(wait).unwrap_or_default().div_ceil(1_000_000);
        Self::Limited { key, retry_after: Duration::from_secs(seconds) }
    }
}

impl Gateway {
    /// Accepts a submission, or refuses it with all its faults.
    ///
    /// # Cancel safety
    /// A dropped call may leave the submission accepted.
    pub async fn submit(self: &Arc<Self>, request: SubmitRequest) -> Result<Submitted, SubmitError> {
        self.check_backlog()?;
        self.check_hooks(&request.submission.webhooks).await?;
        let bytes = tasks(&request.submission.signature) * BYTES_A_TASK;
        let judge = Arc::clone(self);
        let (request, places) = heavy::run(bytes, move || {
            let mut request = request;
            judge.check_call(&request)?;
            judge.settle_unique(&mut request)?;
            let places = request.submission.given_ids();
            Ok::<_, SubmitError>((request, places))
        })
        .await?;
        self.check_retries(&request.submission).await?;
        let strict = !request.committed && self.names_strict(&request.submission.signature);
        self.look_before_refusing(strict).await?;
        let (contest, caller, roster) = (Contest::of(&request), keys::caller(&request), request.roster.clone());
        let among_many = request.among_many;
        let planner = Arc::clone(self);
        let (mut submission, submitted) = heavy::run(bytes, move || planner.prepared(request, clock::now())).await?;
        // Held until the commit: no sweep removes what no task names yet.
        let _files = self.offload(&mut submission.tasks, &roster).await;
        let replaces = contest.as_ref().is_some_and(|contest| contest.wish == OnConflict::Replace);
        let spare = replaces.then(|| (submission.clone(), submitted.clone()));
        self.prepare_queue(&submission).await;
        let dropping = Dropping::of(&submission, caller);
        let is_dag = submission.dag.is_some();
        // What few submissions do is boxed, so that the others do not carry the memory for it through every layer.
        match self.commit.commit_among(submission, among_many).await? {
            Ok(inserted) => {
                if is_dag {
                    self.dags.nudge();
                }
                if !dropping.is_empty() {
                    Box::pin(self.drop_older(&dropping, &inserted)).await;
                }
                Ok(submitted)
            }
            Err(conflict) => Box::pin(self.conflicting(conflict, places, contest, spare)).await,
        }
    }

    /// The answer to a submission that was not written. `places` are the ids that its caller chose.
    async fn conflicting(
        self: &Arc<Self>,
        conflict: Conflict,
        places: Vec<(String, TaskId)>,
        contest: Option<Contest>,
        spare: Option<(ledger::Submission, Submitted)>,
    ) -> Result<Submitted, SubmitError> {
        match conflict {
            Conflict::TaskId(id) => {
                let place = places.into_iter().find(|(_, given)| *given == id);
                let pointer = place.map_or_else(|| TASK_ID.to_owned(), |(pointer, _)| pointer);
                Err(SubmitError::IdTaken { id: id.to_string(), pointer })
            }
            Conflict::GroupId(id) => Err(SubmitError::taken(id.as_str())),
            Conflict::Replay(answer) => Err(SubmitError::Replay(answer)),
            Conflict::KeyReused => Err(SubmitError::KeyReused),
            Conflict::Joined(id) => match contest {
                Some(contest) => self.contested(contest, spare, id).await,
                None => self.joined(&id).await,
            },
            Conflict::Limited { key, wait } => Err(SubmitError::limited(key, wait)),
        }
    }

    /// Builds the rows of a submission. The caller commits them.
    pub(crate) fn prepared(
        &self,
        mut request: SubmitRequest,
        now: Time,
    ) -> Result<(ledger::Submission, Submitted), SubmitError> {
        self.settle_unique(&mut request)?;
        let mut signature = std::mem::replace(&mut request.submission.signature, Signature::Group(Vec::new()));
        if self.catalog.has_links() && (!request.trusted || request.whole) {
            add_links(&self.catalog, &mut signature, false);
        }
        let plan = self.plan(signature, request.traceparent.as_deref(), now)?;
        self.check_plan(&plan)?;
        let (outcome, idempotency) = (plan.outcome.clone(), request.idempotency.take());
        let committed = request.committed;
        let mut rows = self.rows(plan, request, now);
        if !committed {
            self.check_strict(&rows.tasks)?;
        }
        let submitted = Submitted { warnings: self.warnings(&rows.tasks), ..summary(outcome, &rows.tasks) };
        rows.idempotency = idempotency.map(|given| self.idempotency_key(given, &submitted, now));
        Ok((rows, submitted))
    }

    /// Chooses ids and writes the messages.
    pub fn plan(&self, signature: Signature, traceparent: Option<&str>, now: Time) -> Result<Plan, SubmitError> {
        let mut ids = || TaskId::from(clock::new_id());
        let headers = trace_headers(traceparent);
        let context = self.context(&headers, now);
        plan::plan(signature, &context, &mut ids, &|task| self.defaults(task)).map_err(SubmitError::Invalid)
    }

    /// Values for what the submission leaves out: from the catalog entry, else the routes, else the default.
    pub(crate) fn defaults(&self, task: &TaskSignature) -> NodeDefaults {
        let declared = self.catalog.defaults_for(task.task.as_str());
        NodeDefaults {
            queue: self
                .declared_queue(task)
                .or(declared.queue)
                .unwrap_or_else(|| self.catalog.queue_for(task.task.as_str())),
            priority: declared.priority,
            soft_time_limit: declared.soft_time_limit,
            time_limit: declared.time_limit,
            ignore_result: declared.ignore_result,
        }
    }

    /// Builds the ledger rows, without the answer to record, which the caller adds.
    pub(crate) fn rows(&self, plan: Plan, request: SubmitRequest, now: Time) -> ledger::Submission {
        let SubmitRequest { submission, trusted, whole, on_failure, traceparent, token, retry_of, schedule, .. } =
            request;
        let Submission { unique, limits, fair, webhooks, labels, .. } = submission;
        let key_owner = match &plan.outcome {
            Outcome::Task(index) => plan.nodes.get(*index).map(|planned| planned.node.id.clone()),
            Outcome::Group(_) => plan.root.clone(),
        };
        let wishes = Wishes {
            traceparent,
            token,
            keys: Keys { limits, fair },
            webhooks: json(&webhooks),
            labels,
            retry_of,
            schedule,
            root: plan.root.clone(),
            on_failure,
            trusted: trusted && !whole,
            fed: plan.edges.iter().map(|(_, to, _)| *to).collect(),
        };
        let groups = groups(&plan);
        let edges = plan.edges.iter().map(edge).collect();
        let dag = plan.dag.zip(plan.root).map(|(whole, root)| dag(whole, root));
        let nodes = plan.nodes.into_iter().enumerate();
        let tasks = nodes.map(|(index, node)| self.row(node, &wishes, wishes.fed.contains(&index), now)).collect();
        ledger::Submission {
            at: now,
            tasks,
            edges,
            groups,
            fan_out: None,
            dag,
            idempotency: None,
            unique: unique.zip(key_owner).map(|(unique, task_id)| unique_key(unique, task_id, now)),
        }
    }

    fn row(&self, planned: PlannedNode, wishes: &Wishes, fed: bool, now: Time) -> NewTask {
        let PlannedNode { node, headers, body, expires_at } = planned;
        let mut defaults = self.catalog.defaults_for(node.task.task.as_str());
        // A task of a paused queue is held. The next pass over the outbox keeps holding it, or publishes it after a resume.
        let is_paused = self.pauses.current().contains(node.queue().as_str());
        // The endpoint has already computed the keys from the request.
        let declared = Keys { limits: std::mem::take(&mut defaults.limits), fair: defaults.fair.take() };
        let (declared, own_labels) =
            if wishes.trusted { (declared, Vec::new()) } else { self.by_name(&node.task, fed, declared) };
        let Keys { limits, fair } = wishes.keys.and(declared);
        // A task with a limit is held too: only a pass over the outbox knows whether the limit lets it through.
        let is_limited = defaults.rate_limit.is_some() || !limits.is_empty();
        let is_held = is_paused || is_limited;
        let due_at = headers.as_ref().and_then(|_| due_at(&node.task, now).or(is_held.then_some(at_once(now))));
        let phase = match (&headers, due_at) {
            (None, _) => Phase::Waiting,
            (Some(_), Some(_)) => Phase::Held,
            (Some(_), None) => Phase::Accepted,
        };
        let spread = self.spread(&node).cloned();
        let waits = due_at.is_some_and(|at| at > at_once(now)) || is_paused || headers.is_none();
        let way = if waits { Way::Direct } else { self.way(&node, &limits, fair.is_some(), spread.as_ref()) };
        let options = TaskOptions {
            soft_time_limit: node.soft_time_limit(),
            time_limit: node.time_limit(),
            redact: defaults.redact,
            recovery: recovery(defaults.recovery, defaults.idempotent),
            max_deliveries: defaults.max_deliveries,
            budget: defaults.budget,
            retry: node.task.retry.as_ref().map(json_value).or(defaults.retry),
            on_failure: wishes.on_failure.clone().or(defaults.on_failure),
            // The catalog's webhooks are found by the task's name at each event.
            webhooks: wishes.webhooks.clone(),
            limits: json(&limits),
            fair,
            traceparent: wishes.traceparent.clone(),
            token: wishes.token.clone(),
            branch: node.branch,
            attempt: 0,
            spread,
        };
        let (queue, priority, ignore_result) = (node.queue().clone(), node.priority(), node.ignore_result());
        let (group_id, group_index) = node.group.unzip();
        let mut labels = node.task.labels;
        labels.extend(wishes.labels.iter().cloned());
        // A caller may not override the entry's labels.
        labels.retain(|(name, _)| !own_labels.iter().any(|(own, _)| own == name));
        labels.extend(own_labels);
        NewTask {
            root_id: wishes.root.clone().unwrap_or_else(|| node.id.clone()),
            id: node.id,
            name: node.task.task,
            queue,
            priority: priority.unwrap_or_default(),
            phase,
            headers,
            body,
            due_at,
            expires_at: expires_at.map(|at| Time(at.as_microsecond())),
            parent_id: None,
            group_id,
            group_index,
            ignore_result: ignore_result.unwrap_or(false),
            retry_of: wishes.retry_of.clone(),
            schedule: wishes.schedule.clone(),
            labels,
            options,
            way,
        }
    }

    /// The row that keeps the answer for repeated requests.
    pub(crate) fn idempotency_key(&self, given: Idempotency, submitted: &Submitted, now: Time) -> IdempotencyKey {
        IdempotencyKey {
            answer: (given.answer.0)(submitted),
            scope: given.scope,
            key: given.key,
            fingerprint: given.fingerprint,
            expires_at: now.plus(self.keep_idempotency),
        }
    }
}

/// The number of tasks. A step that waits counts as many, because its schema is compiled.
fn tasks(signature: &Signature) -> usize {
    let mut count = 0;
    signature.visit(&mut |task| count += if task.task.as_str() == pause::WAIT { TASKS_A_SCHEMA } else { 1 });
    count
}

/// Options shared by all tasks of a submission.
struct Wishes {
    traceparent: Option<String>,
    token: Option<String>,
    keys: Keys,
    webhooks: Option<serde_json::Value>,
    labels: Vec<(String, String)>,
    retry_of: Option<TaskId>,
    schedule: Option<String>,
    root: Option<TaskId>,
    on_failure: Option<serde_json::Value>,
    /// Whether it came through the endpoint of a catalog entry.
    trusted: bool,
    /// Indexes of nodes with a predecessor.
    fed: HashSet<usize>,
}

pub(crate) fn timestamp(time: Time) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(time.as_micros()).unwrap_or_default()
}

pub(crate) fn trace_headers(traceparent: Option<&str>) -> Members {
    traceparent.map(|text| ("traceparent".to_owned(), json_text(text))).into_iter().collect()
}

fn json_text(text: &str) -> Json {
    celery::task::json::verbatim(serde_json::Value::from(text).to_string()).expect("a JSON string")
}

fn json<T: serde::Serialize>(items: &[T]) -> Option<serde_json::Value> {
    (!items.is_empty()).then(|| json_value(&items))
}

fn json_value<T: serde::Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).expect("vocabulary is JSON")
}
