//! Workers, queues, verdicts and canvases as the API shows them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Mask;
use crate::reconcile::silence::Silence;
use crate::usecase::queues::{Queue, QueuedMessage};
use crate::usecase::revoke::{Revoked, Verdict};
use broker::Replies;
use celery::task::{Phase, TaskId};
use ledger::{EdgeKind, Task, Worker};
use runtime::clock::Time;

/// The verdict of a revoke: what is certain.
// No further fields: an answer about many tasks is no verdict of one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Revoked)]
pub struct RevokedView {
    pub task_id: String,
    /// `prevented`: it will never run. `signalled`: a worker has it and was told to drop it. `too_late`: it had ended.
    #[schema(value_type = String, example = "prevented")]
    pub verdict: &'static str,
    /// It certainly does not run any more.
    pub confirmed: bool,
    pub detail: String,
}

impl From<Revoked> for RevokedView {
    fn from(revoked: Revoked) -> Self {
        let verdict = match revoked.verdict {
            Verdict::Prevented => "prevented",
            Verdict::Signalled => "signalled",
            Verdict::TooLate => "too_late",
        };
        let Revoked { task_id, confirmed, detail, .. } = revoked;
        Self { task_id: task_id.to_string(), verdict, confirmed, detail }
    }
}

/// A task that a person has resolved.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Resolved)]
pub struct ResolvedView {
    pub task_id: String,
    /// Precise, as in a task.
    #[schema(value_type = String, example = "lost")]
    pub phase: Phase,
    /// Celery's state.
    pub status: String,
    pub seq: i64,
    pub reason: Option<String>,
}

impl ResolvedView {
    pub fn of(task: &Task) -> Self {
        Self {
            task_id: task.id.to_string(),
            phase: task.phase,
            status: task.status.clone(),
            seq: task.seq,
            reason: task.reason.clone(),
        }
    }
}

/// A worker.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Worker)]
pub struct WorkerView {
    #[schema(example = "celery@host")]
    pub hostname: String,
    /// `online` or `offline`.
    #[schema(value_type = String, example = "online")]
    pub status: &'static str,
    /// Seconds since the last heartbeat or answer.
    pub heartbeat_age: f64,
    /// Tasks it runs now.
    pub active: Option<i64>,
    /// Tasks it ran since it started.
    pub processed: Option<i64>,
    /// The pool, as an argument of `-P`.
    #[schema(example = "prefork")]
    pub pool: Option<String>,
    pub concurrency: Option<i64>,
    /// The most messages that it reserves.
    pub prefetch: Option<i64>,
    pub pid: Option<i64>,
    pub queues: Vec<String>,
    /// Averages over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Resident, with its children, as taskgate's workers tell; of Celery's workers the most that the main process has had. Null when
    /// it tells neither.
    pub memory_bytes: Option<i64>,
    #[schema(example = "py-celery 5.7.0 (Linux)")]
    pub software: Option<String>,
    /// What the worker does not report, what is therefore unknown, and what to change; null when it reports everything.
    pub trouble: Option<String>,
}

impl WorkerView {
    pub fn of(worker: Worker, online: bool, now: Time) -> Self {
        let silence = Silence::of(&worker, now).filter(|_| online);
        let trouble = silence.map(|silence| silence.told(&worker.hostname));
        let facts = worker.facts;
        Self {
            trouble,
            hostname: worker.hostname,
            status: if online { "online" } else { "offline" },
            heartbeat_age: now.since(worker.seen_at).as_secs_f64(),
            active: if online { facts.active } else { Some(0) },
            processed: facts.processed,
            pool: facts.pool,
            concurrency: facts.concurrency,
            prefetch: facts.prefetch,
            pid: facts.pid,
            queues: facts.queues,
            load: facts.load,
            memory_bytes: facts.memory_kib.or(facts.peak_kib).map(|kib| kib.saturating_mul(1_024)),
            software: facts.software,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkerList)]
pub struct WorkerListView {
    pub workers: Vec<WorkerView>,
}

/// A queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Queue)]
pub struct QueueView {
    pub name: String,
    /// Messages in the broker.
    pub waiting: i64,
    /// The same by priority step: `0` is served first, `9` last.
    pub priorities: BTreeMap<String, i64>,
    /// Tasks held in the ledger: for their time, a pause or a limit.
    pub held: i64,
    /// Tasks that workers have.
    pub reserved: i64,
    /// Age of the oldest waiting message; null when nothing waits or it is unknown.
    pub oldest_seconds: Option<f64>,
    /// Online workers that serve it.
    pub consumers: usize,
    pub paused: bool,
    /// What is wrong with its key in Redis, so that it counts as empty; normally null.
    pub trouble: Option<String>,
}

impl QueueView {
    pub fn of(queue: Queue, now: Time) -> Self {
        let priorities = queue.depth.lists.iter().map(|(step, count)| (step.to_string(), *count)).collect();
        Self {
            name: queue.name,
            waiting: queue.depth.total(),
            priorities,
            held: queue.held,
            reserved: queue.reserved,
            oldest_seconds: queue.oldest.map(|at| now.since(at).as_secs_f64()),
            consumers: queue.consumers,
            paused: queue.paused,
            trouble: queue.depth.trouble,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueueList)]
pub struct QueueListView {
    pub queues: Vec<QueueView>,
}

/// A message in a queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueuedMessage)]
pub struct MessageView {
    /// 0 is served next.
    pub position: i64,
    /// The step of its list: 0, 3, 6 or 9.
    pub priority: u8,
    pub bytes: usize,
    pub task_id: Option<String>,
    pub task: Option<String>,
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    pub args: Option<Box<RawValue>>,
    #[schema(value_type = Option<Object>)]
    pub kwargs: Option<Box<RawValue>>,
    pub retries: Option<u32>,
    pub eta: Option<String>,
    pub expires: Option<String>,
    pub root_id: Option<String>,
    pub parent_id: Option<String>,
    pub group_id: Option<String>,
    pub origin: Option<String>,
    /// A worker had it and gave it back.
    pub redelivered: bool,
    /// Why the message cannot be decoded; no worker can run it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl MessageView {
    /// `redact` says which fields of which task are masked.
    pub fn of(message: QueuedMessage, redact: &dyn Fn(&str) -> Vec<String>) -> Self {
        let (position, priority, bytes) = (message.position, message.priority_step, message.bytes);
        let empty = Self {
            position,
            priority,
            bytes,
            task_id: None,
            task: None,
            args: None,
            kwargs: None,
            retries: None,
            eta: None,
            expires: None,
            root_id: None,
            parent_id: None,
            group_id: None,
            origin: None,
            redelivered: false,
            error: None,
        };
        let decoded = match message.content {
            Ok(decoded) => decoded,
            Err(error) => return Self { error: Some(error), ..empty },
        };
        let redelivered = decoded.redelivered;
        let message = decoded.message;
        let names = redact(message.task.as_str());
        let mask = Mask::new(&names);
        Self {
            args: Some(mask.json(&message.args).into_owned()),
            kwargs: Some(mask.json(&message.kwargs).into_owned()),
            task_id: Some(message.id.to_string()),
            task: Some(message.task.to_string()),
            retries: Some(message.retries),
            eta: message.eta.map(|at| at.to_string()),
            expires: message.expires.map(|at| at.to_string()),
            root_id: message.root_id.map(String::from),
            parent_id: message.parent_id.map(String::from),
            group_id: message.group.map(String::from),
            origin: Some(message.origin),
            redelivered,
            ..empty
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueuedMessageList)]
pub struct MessageListView {
    pub messages: Vec<MessageView>,
    /// The `cursor` of the next page; null on the last one. Queues change: a page may repeat or miss messages that were served meanwhile.
    pub next: Option<String>,
}

/// The result of an operation on a queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueueChange)]
pub struct QueueChangeView {
    pub queue: String,
    pub paused: bool,
    /// The answers of the workers that serve it.
    #[schema(value_type = Object)]
    pub replies: Replies,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Purged)]
pub struct PurgedView {
    pub queue: String,
    /// Messages that were removed; their tasks ended `revoked`.
    pub purged: usize,
}

/// Answers of workers, by node name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replies)]
pub struct RepliesView {
    #[schema(value_type = Object, example = json!({"celery@host": {"ok": "pong"}}))]
    pub replies: Replies,
}

/// One task of a canvas.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub struct NodeView {
    pub task_id: String,
    pub task: Option<String>,
    #[schema(value_type = String, example = "running")]
    pub phase: Phase,
}

/// A canvas.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Graph)]
pub struct GraphView {
    pub nodes: Vec<NodeView>,
    /// `[from, to]`: the second follows the first.
    pub edges: Vec<[String; 2]>,
}

impl GraphView {
    pub fn of(nodes: Vec<Task>, edges: &[(TaskId, TaskId, EdgeKind)]) -> Self {
        let node = |task: Task| NodeView { task_id: task.id.to_string(), task: task.name, phase: task.phase };
        Self {
            nodes: nodes.into_iter().map(node).collect(),
            edges: edges.iter().map(|(from, to, _)| [from.to_string(), to.to_string()]).collect(),
        }
    }
}

/// The result of a bulk re-queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Requeued)]
pub struct RequeuedView {
    pub dry_run: bool,
    pub matched: usize,
    pub requeued: usize,
    /// New tasks, each with its dead letter.
    pub tasks: Vec<RequeuedTaskView>,
    /// Dead letters that were not re-queued, with the reason.
    pub skipped: Vec<SkippedView>,
    /// There are more dead letters: call again.
    pub remaining: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RequeuedTask)]
pub struct RequeuedTaskView {
    pub task_id: String,
    pub retry_of: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Skipped)]
pub struct SkippedView {
    pub task_id: String,
    pub reason: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Dismissed)]
pub struct DismissedView {
    pub deleted: i64,
}
