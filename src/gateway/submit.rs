//! From a call to rows in the ledger: check, fill in what the catalog says, plan, commit. The relay does the rest.
//!
//! Nothing is published here. When this answers, the task is on disk, and a crash in the next instant changes nothing.

use std::collections::HashSet;
use std::time::Duration;

use super::Gateway;
use super::plan::{self as canvas, Node, Plan};
use crate::clock::{self, Time};
use crate::services::commit::CommitError;
use crate::store::{self, Conflict, IdempotencyKey, Inserted, NewTask, TaskOptions, UniqueKey};
use crate::task::Invalid;
use crate::task::signature::{Expires, Signature, TaskSignature};
use crate::task::submission::{self, Submission};
use crate::task::{GroupId, Json, Phase, QueueName, TaskId, TaskName};

/// A call, and who calls how.
#[derive(Debug)]
pub struct SubmitRequest {
    pub submission: Submission,
    /// Names come from the catalog: the allow-list is not asked.
    pub trusted: bool,
    pub traceparent: Option<String>,
    pub idempotency: Option<Idempotency>,
    /// Id of the token.
    pub token: Option<String>,
    pub retry_of: Option<TaskId>,
    pub schedule: Option<String>,
}

impl SubmitRequest {
    pub fn new(submission: Submission) -> Self {
        Self {
            submission,
            trusted: false,
            traceparent: None,
            idempotency: None,
            token: None,
            retry_of: None,
            schedule: None,
        }
    }
}

/// `Idempotency-Key` as the edge read it.
#[derive(Debug)]
pub struct Idempotency {
    pub scope: String,
    pub key: String,
    pub fingerprint: Vec<u8>,
    /// Makes the answer that repetitions get, from what will be submitted.
    pub answer: fn(&Submitted) -> Json,
}

/// What a submission became.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// The task whose result is the canvas's result; `None` for a group.
    pub task_id: Option<TaskId>,
    pub group_id: Option<GroupId>,
    pub phase: Phase,
    pub status: String,
    pub task: Option<TaskName>,
    pub queue: Option<QueueName>,
    /// Tasks in it.
    pub count: usize,
    /// All tasks of a canvas (empty for a single task, and above 1,000).
    pub children: Vec<(TaskId, TaskName)>,
    /// It was there already: `unique` joined it.
    pub joined: bool,
}

/// More children are not listed in an answer.
const MAX_CHILDREN: usize = 1_000;
/// How long an answer is kept for repetitions.
const IDEMPOTENCY_TTL: Duration = Duration::from_hours(24);

/// Why a call was refused; nothing of it is in the ledger.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error("the request does not fit")]
    Invalid(Vec<Invalid>),
    #[error("task {name} is not in the catalog and not allowed by submit.allow")]
    NotAllowed { name: TaskName, nearest: Option<String> },
    #[error("the id {0} is already used")]
    IdTaken(String),
    /// The same request was answered before.
    #[error("the request is a repetition")]
    Replay(Json),
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    #[error("{backlog} accepted tasks wait for Redis, the limit is {limit}")]
    Backlog { backlog: i64, limit: u64, retry_after: Duration },
    #[error("the submission could not be written")]
    Ledger(#[from] CommitError),
    #[error("the ledger could not be read")]
    Read(#[from] store::Error),
}

impl Gateway {
    /// Accepts a call, or refuses it with everything that is wrong with it.
    ///
    /// # Cancel safety
    /// A dropped call may leave the submission accepted.
    pub async fn submit(&self, request: SubmitRequest) -> Result<Submitted, SubmitError> {
        self.check_backlog()?;
        if !request.trusted {
            self.check_names(&request.submission.signature)?;
        }
        let now = clock::now();
        let plan = self.plan(&request, now)?;
        let submitted = summary(&plan);
        let submission = self.rows(plan, request, &submitted, now);
        let outcome = self.commit.commit(submission).await?;
        match outcome {
            Ok(Inserted { .. }) => Ok(submitted),
            Err(Conflict::TaskId(id)) => Err(SubmitError::IdTaken(id.to_string())),
            Err(Conflict::GroupId(id)) => Err(SubmitError::IdTaken(id.to_string())),
            Err(Conflict::Replay(answer)) => Err(SubmitError::Replay(answer)),
            Err(Conflict::KeyReused) => Err(SubmitError::KeyReused),
            Err(Conflict::Joined(id)) => self.joined(&id).await,
        }
    }

    /// 503 with the time it will take, rather than a promise that grows without bound.
    pub fn check_backlog(&self) -> Result<(), SubmitError> {
        let (backlog, limit) = (self.relay.backlog(), self.limits.backlog);
        if u64::try_from(backlog).unwrap_or(0) < limit {
            return Ok(());
        }
        Err(SubmitError::Backlog { backlog, limit, retry_after: self.relay.drain_time() })
    }

    fn check_names(&self, signature: &Signature) -> Result<(), SubmitError> {
        let mut refused = None;
        signature.visit(&mut |task| {
            if refused.is_none() && !self.catalog.permits(task.task.as_str()) {
                refused = Some(task.task.clone());
            }
        });
        let Some(name) = refused else { return Ok(()) };
        let nearest = crate::spelling::nearest(name.as_str(), &self.catalog.names()).map(str::to_owned);
        Err(SubmitError::NotAllowed { name, nearest })
    }

    /// Chooses ids and writes the messages.
    pub(super) fn plan(&self, request: &SubmitRequest, now: Time) -> Result<Plan, SubmitError> {
        let mut ids = || TaskId::from(clock::new_id());
        let fill = |task: &TaskSignature| self.filled_in(task);
        let context = canvas::Context {
            now: jiff::Timestamp::from_microsecond(now.as_micros()).unwrap_or_default(),
            origin: &self.origin,
            traceparent: request.traceparent.as_deref(),
            labels: &request.submission.labels,
        };
        canvas::plan(&request.submission.signature, &mut ids, &fill, &context).map_err(SubmitError::Invalid)
    }

    /// The task's own wishes first, then the catalog's, the routes', the default.
    fn filled_in(&self, task: &TaskSignature) -> TaskSignature {
        let defaults = self.catalog.defaults_for(task.task.as_str());
        let mut filled = task.clone();
        filled.queue = filled.queue.or(defaults.queue);
        filled.priority = filled.priority.or(defaults.priority);
        filled.soft_time_limit = filled.soft_time_limit.or(defaults.soft_time_limit);
        filled.time_limit = filled.time_limit.or(defaults.time_limit);
        filled.expires = filled.expires.or(defaults.expires.map(Expires::After));
        filled.ignore_result = filled.ignore_result.or(defaults.ignore_result);
        filled
    }

    fn rows(&self, plan: Plan, request: SubmitRequest, submitted: &Submitted, now: Time) -> store::Submission {
        let SubmitRequest { submission, traceparent, idempotency, token, retry_of, schedule, .. } = request;
        let Submission { unique, limits, webhooks, .. } = submission;
        let first = plan.nodes.first().map(|node| node.id.clone());
        let key_owner = submitted.task_id.clone().or(first);
        let wishes =
            Wishes { traceparent, token, limits: json(&limits), webhooks: json(&webhooks), retry_of, schedule };
        let held: HashSet<QueueName> = HashSet::new();
        let tasks = plan.nodes.into_iter().map(|node| self.row(node, &wishes, &held, now)).collect();
        store::Submission {
            at: now,
            tasks,
            edges: plan.edges,
            groups: plan.groups,
            idempotency: idempotency.map(|given| IdempotencyKey {
                answer: (given.answer)(submitted),
                scope: given.scope,
                key: given.key,
                fingerprint: given.fingerprint,
                expires_at: now.plus(IDEMPOTENCY_TTL),
            }),
            unique: unique.zip(key_owner).map(|(unique, task_id)| unique_key(unique, task_id, now)),
        }
    }

    fn row(&self, node: Node, wishes: &Wishes, _held: &HashSet<QueueName>, now: Time) -> NewTask {
        let defaults = self.catalog.defaults_for(node.name.as_str());
        let due_at = node.due_at.map(|at| Time(at.as_microsecond())).filter(|at| *at > now && node.is_published);
        let phase = match (node.is_published, due_at) {
            (false, _) => Phase::Waiting,
            (true, Some(_)) => Phase::Held,
            (true, None) => Phase::Accepted,
        };
        let options = TaskOptions {
            soft_time_limit: node.soft_time_limit,
            time_limit: node.time_limit,
            redact: defaults.redact,
            recovery: recovery(defaults.recovery, defaults.idempotent),
            budget: defaults.budget,
            retry: node.retry.as_ref().map(json_value).or(defaults.retry),
            webhooks: wishes.webhooks.clone().or(defaults.webhooks),
            limits: wishes.limits.clone().or(defaults.limits),
            traceparent: wishes.traceparent.clone(),
            token: wishes.token.clone(),
            branch: node.is_branch,
        };
        NewTask {
            id: node.id,
            name: node.name,
            queue: node.queue,
            priority: node.priority,
            phase,
            headers: node.headers,
            body: node.body,
            due_at,
            expires_at: node.expires_at.map(|at| Time(at.as_microsecond())),
            root_id: node.root_id,
            parent_id: node.parent_id,
            group_id: node.group_id,
            group_index: node.group_index,
            ignore_result: node.ignore_result,
            retry_of: wishes.retry_of.clone(),
            schedule: wishes.schedule.clone(),
            labels: node.labels,
            options,
        }
    }

    async fn joined(&self, id: &TaskId) -> Result<Submitted, SubmitError> {
        let task = self.ledger.task(id).await?.ok_or_else(|| SubmitError::IdTaken(id.to_string()))?;
        Ok(Submitted {
            task_id: Some(task.id),
            group_id: task.group_id,
            phase: task.phase,
            status: task.status,
            task: task.name.and_then(|name| TaskName::parse(name).ok()),
            queue: task.queue.and_then(|queue| QueueName::parse(queue).ok()),
            count: 1,
            children: Vec::new(),
            joined: true,
        })
    }
}

/// What holds for every task of a submission.
struct Wishes {
    traceparent: Option<String>,
    token: Option<String>,
    limits: Option<serde_json::Value>,
    webhooks: Option<serde_json::Value>,
    retry_of: Option<TaskId>,
    schedule: Option<String>,
}

fn summary(plan: &Plan) -> Submitted {
    let (task_id, group_id) = match &plan.result {
        canvas::Outcome::Task(id) => (Some(id.clone()), plan.groups.first().map(|group| group.id.clone())),
        canvas::Outcome::Group(id) => (None, Some(id.clone())),
    };
    let shown = plan.nodes.iter().find(|node| Some(&node.id) == task_id.as_ref());
    let phase = if plan.nodes.iter().any(|node| node.is_published && node.due_at.is_none()) {
        Phase::Accepted
    } else {
        Phase::Held
    };
    let single = plan.nodes.len() == 1 && group_id.is_none();
    let listed = !single && plan.nodes.len() <= MAX_CHILDREN;
    Submitted {
        phase: shown.map_or(phase, |node| if node.is_published { phase } else { Phase::Waiting }),
        status: Phase::Accepted.status().to_owned(),
        task: shown.map(|node| node.name.clone()),
        queue: shown.map(|node| node.queue.clone()),
        count: plan.nodes.len(),
        children: if listed {
            plan.nodes.iter().map(|node| (node.id.clone(), node.name.clone())).collect()
        } else {
            Vec::new()
        },
        task_id,
        group_id,
        joined: false,
    }
}

fn unique_key(unique: submission::Unique, task_id: TaskId, now: Time) -> UniqueKey {
    let until = match unique.until {
        submission::UniqueWhile::Active => store::UniqueWhile::Active,
        submission::UniqueWhile::Seconds(secs) => {
            store::UniqueWhile::Until(now.plus(Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX)))
        }
    };
    UniqueKey { key: unique.key, until, task_id }
}

fn recovery(said: Option<crate::catalog::Recovery>, idempotent: bool) -> Option<String> {
    match said {
        Some(recovery) => Some(recovery.as_str().to_owned()),
        None => idempotent.then(|| "rerun".to_owned()),
    }
}

fn json<T: serde::Serialize>(items: &[T]) -> Option<serde_json::Value> {
    (!items.is_empty()).then(|| json_value(&items))
}

fn json_value<T: serde::Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).expect("vocabulary is JSON")
}
