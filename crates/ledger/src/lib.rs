//! The ledger, the history database: a port with two adapters, PostgreSQL and SQLite.
//!
//! Invariants, the same for both adapters and checked by one conformance suite:
//! * a submission is inserted whole or not at all: tasks, messages, events, outbox rows, edges, groups and keys in one commit;
//! * `seq` of a task grows by one with every change, in the transaction that writes the change and its event;
//! * a state only moves forward: [`change::apply`] decides, under the row's lock, and late news changes nothing;
//! * an accepted task that is not known to be published has an outbox row, or an event in the part of the feed that was not yet searched for
//!   such tasks; an outbox row is deleted only in the transaction that records the task's publication or withdrawal.
//!
//! The files of `both` are modules of both adapters: shared code is written once, and `dialect` has the differences.
//!
//! Every method is one statement or one transaction. The caller passes times. Absence is `Ok(None)`.

#![expect(
    clippy::duplicate_mod,
    reason = "the files of `both` are modules of either adapter, each with its own `dialect`"
)]

mod admission;
mod applied;
pub mod audit;
mod bulk;
pub mod change;
mod dags;
mod derived;
mod error;
mod fan_out;
mod findings;
mod headers;
mod history;
pub mod inbox;
mod incidents;
mod limits;
mod line_reads;
mod lines;
mod logs;
mod looks;
mod passing;
pub mod postgres;
mod query;
mod rate_gates;
mod rows;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
mod schedules;
pub mod sqlite;
mod statements;
mod stats;
mod steps;
pub mod stored;
mod submission;
mod tokens;
mod traces;
mod types;
mod unreadable;
mod waits;
mod webhooks;
mod workers;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

pub use audit::{Act, Audits, ChainHash, NewAct, Seal, Sealed};
pub use bulk::{Bulk, BulkAction, BulkState, BulkStep, Bulks, NewBulk};
pub use celery::task::canvas::EdgeKind;
pub use dags::{Dags, NewDag, NewPart, ReadyPart, Release};
pub use error::Error;
pub use fan_out::{FanOut, FanOuts, NewFanOut};
pub use findings::{Finding, Findings};
pub use incidents::{FoundIncident, Incidents, KeptIncident, Mark, Notice, SettledNotice};
pub use limits::{COUNTED, InLine, KeyState, Limits, Rule};
pub use logs::{Line, Logs, Piece};
pub use query::{Cursor, Filter, Page};
pub use rate_gates::AtGate;
pub use schedules::{
    Created, Edit, Fired, Firing, Firings, MOST_AHEAD, NewRun, NextTick, Outcome, Run, Schedule, Schedules,
};
pub use stats::{
    Count, Counted, End, Ended, FailureKind, Figure, MEASURES, REJECTED, Span, Stats, Tally, Window, raised,
    raised_parts,
};
pub use steps::{Neighbour, Steps};
pub use submission::{
    Conflict, Edge, IdempotencyKey, Inserted, NewGroup, NewTask, Outgoing, Submission, UniqueKey, Way,
};
#[cfg(any(test, feature = "sample"))]
pub use types::sample_task;
pub use types::{
    Adoption, Event, Failure, Fence, Group, GroupMember, Lease, Message, News, Source, Task, TaskOptions, Withdrawn,
};
pub use unreadable::UnreadableRow;

pub use tokens::{Scope, SecretHash, Token, Tokens};
pub use traces::{PoolUse, Traces};
pub use waits::{EndedWait, NewWait, Wait, WaitState, Waits};
pub use webhooks::{
    CATALOG_ENDPOINT, Claim, Delivery, DeliveryFilter, DeliveryState, Endpoint, EndpointDocument, NewDelivery,
    SUBMISSIONS_ENDPOINT, Tried, Webhooks,
};
pub use workers::{Control, Revocation, Worker, WorkerFacts};

use celery::task::{GroupId, Priority, QueueName, Spread, TaskId};
use runtime::clock::Time;

pub type SharedLedger = Arc<dyn Ledger>;

/// How long a task that must not be published now sleeps before it is tried again.
pub const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Publishes messages while the ledger holds locks on their outbox rows.
#[async_trait]
pub trait Carrier: Send + Sync {
    /// Publishes in order. Returns the numbers of tasks that are certainly in the broker; the others stay in the outbox.
    async fn carry(&self, batch: &[Outgoing]) -> Vec<i64>;

    /// Whether a message that is in the broker already is not published a second time. Then a pass need not wait until its records are on
    /// disk: after a crash it is repeated.
    fn knows_repetitions(&self) -> bool {
        false
    }

    /// Why tasks of this queue and priority cannot be published now; `None` when they can. Such a task sleeps for [`REFUSED_FOR`] and
    /// does not block others.
    fn refuses(&self, _queue: &QueueName, _priority: Priority) -> Option<String> {
        None
    }

    /// Why this task's message cannot be published to any queue; `None` when it can. Such a row sleeps as well.
    fn refuses_message(&self, _id: &TaskId) -> Option<String> {
        None
    }

    /// The shortest interval between two publications of tasks of this name, for the whole fleet; `None` without a limit.
    fn pace(&self, _name: &str) -> Option<Duration> {
        None
    }

    /// How many messages of this queue may be in the broker and not yet at a worker; `None` without a limit. `shared`: keys take turns in the
    /// queue's line.
    fn window(&self, _queue: &str, _shared: bool) -> Option<u32> {
        None
    }

    /// The rank of a priority in a line: the lowest goes first.
    fn rank(&self, priority: Priority) -> i16 {
        priority.get().into()
    }
}

/// Why a task cannot be published now: because of its message, its own queue, or another queue of its message.
pub(crate) fn refusal(carrier: &dyn Carrier, task: &Task) -> Option<String> {
    if let Some(why) = carrier.refuses_message(&task.id) {
        return Some(why);
    }
    let own = QueueName::stored(task.queue.as_deref()?).ok()?;
    match &task.options.spread {
        Some(Spread::Fanout { .. }) => None,
        spread => {
            let copies = spread.as_ref().map_or(&[][..], Spread::copies);
            std::iter::once(&own).chain(copies).find_map(|queue| carrier.refuses(queue, task.priority))
        }
    }
}

/// The result of a pass over the outbox.
#[derive(Debug, Default)]
pub struct Drained {
    pub events: Vec<Event>,
    /// Rows that were due and locked for this pass.
    pub claimed: usize,
    /// How many of these are now in the broker.
    pub carried: usize,
    /// Tasks whose `expires` had passed: ended as `expired` instead of published.
    pub expired: usize,
    /// Whether tasks wait until others of their key have ended.
    pub for_ends: bool,
    /// Whether tasks wait in lines for room in their queues.
    pub in_line: bool,
    /// Whether a window was nearly empty while tasks waited for room in it.
    pub dry: bool,
    /// Whether another pass would find more at once, because this one reads only so many rows.
    pub again: bool,
    /// When the next rate lets a task pass, as it stands after this pass.
    pub next_opening: Option<Time>,
}

/// The tasks that wait to be published.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backlog {
    /// Outbox rows that are due, and accepted tasks in the feed that have not been published yet.
    pub due: i64,
    /// Acceptance time of the oldest due row.
    pub oldest: Option<Time>,
}

/// A notification of another replica's commit.
#[derive(Debug, Clone)]
pub enum Changed {
    /// These tasks changed.
    Tasks(Arc<[TaskId]>),
    /// Some tasks changed, too many to name: watchers must read again.
    Any,
    /// The connection is new or was lost: notifications were missed, and commits that were not on disk may be undone.
    Gap,
}

/// Bytes of progress reports (`meta`) after which a page of events ends, which bounds the buffer for a slow reader.
pub const EVENTS_BYTES: i64 = 256 << 10;

#[async_trait]
pub trait Ledger:
    Audits
    + Bulks
    + Control
    + Dags
    + FanOuts
    + Findings
    + Incidents
    + Logs
    + Limits
    + Schedules
    + Stats
    + Steps
    + Tokens
    + Traces
    + Waits
    + Webhooks
    + Send
    + Sync
{
    /// `postgres` or `sqlite`.
    fn kind(&self) -> &'static str;

    /// Migrates the schema, under a lock, so that all replicas may call it.
    async fn migrate(&self) -> Result<(), Error>;

    /// One round trip; fails while the ledger does not answer.
    async fn ping(&self) -> Result<(), Error>;

    /// Checks that the database takes writes, by a write that is rolled back. A standby or a server with a full disk still answers
    /// [`Ledger::ping`].
    async fn writable(&self) -> Result<(), Error>;

    /// Whether [`Ledger::changes`] reports commits of other replicas at once; if not, watchers read every second.
    async fn hears_others(&self) -> Result<bool, Error> {
        Ok(true)
    }

    /// How far this replica lags behind its primary. `None` on the primary.
    async fn lag(&self) -> Result<Option<Duration>, Error> {
        self.ping().await.map(|()| None)
    }

    // ---- down ------------------------------------------------------------------------------------------------------

    /// Inserts each submission whole or refuses it whole, all in one commit; returns the answers in the same order.
    /// A task that waits for its time, in a line or at a gate gets an outbox row. On PostgreSQL a task that goes to the broker at once
    /// ([`Way::Direct`]) gets none: if it is not published, a pass finds it in the feed and puts it into the outbox. A `waiting` task gets none.
    async fn insert(&self, batch: &[Submission]) -> Result<Vec<Result<Inserted, Conflict>>, Error>;

    /// Records publications on the direct path, with the time of each push: tasks become `queued`, and their outbox rows, if any, are deleted.
    async fn published(&self, pushed: &[(i64, Time)]) -> Result<Vec<Event>, Error>;

    /// Makes a pass over the outbox: adds tasks that the direct path did not publish, locks up to `limit` due rows in the order of acceptance,
    /// lets `carrier` publish them and records the outcome. Only one pass runs at a time over all replicas (an advisory lock; a second caller
    /// gets an empty pass). Rows accepted less than `settle` ago are left to the direct path of the replica that accepted them, unless
    /// `settle` is zero. Rows of paused queues are parked until the queue is resumed.
    async fn drain(&self, now: Time, settle: Duration, limit: i64, carrier: &dyn Carrier) -> Result<Drained, Error>;

    async fn backlog(&self, now: Time) -> Result<Backlog, Error>;

    /// When the next held row becomes due, after `now`.
    async fn next_due(&self, now: Time) -> Result<Option<Time>, Error>;

    /// Takes a task out of the outbox (`accepted`, `held`) or out of its canvas (`waiting`) and ends it with `news`.
    async fn withdraw(&self, id: &TaskId, news: News) -> Result<Withdrawn, Error>;

    /// Puts tasks back into the outbox as further deliveries (`delivery` + 1, phase `accepted`), with the reason in their histories.
    /// Skips tasks that are unknown, finished, without a message, or changed since the `seq` on which the decision is based.
    async fn requeue(&self, tasks: &[(TaskId, i64)], reason: &str, at: Time) -> Result<Vec<Event>, Error>;

    /// Adds a remark to the histories of tasks, each with its own `seq`; unknown tasks are skipped.
    async fn remark(&self, ids: &[TaskId], reason: &str, at: Time) -> Result<Vec<Event>, Error>;

    /// Pauses a queue: passes over the outbox hold its tasks (`held`, with the reason). False when it was paused already.
    async fn pause_queue(&self, queue: &QueueName, at: Time) -> Result<bool, Error>;

    /// Ends a pause: held tasks are published in the order of acceptance. False when the queue was not paused.
    async fn resume_queue(&self, queue: &QueueName, at: Time) -> Result<bool, Error>;

    /// Paused queues by name, with the time of the pause.
    async fn paused_queues(&self) -> Result<Vec<(String, Time)>, Error>;

    /// Records a request to revoke the task, only the first time; returns the task's state.
    async fn request_revoke(&self, id: &TaskId, at: Time) -> Result<Option<Task>, Error>;

    /// Dismisses dead letters: removes them from the list, but not from the history. Returns how many.
    async fn dismiss(&self, ids: &[TaskId]) -> Result<i64, Error>;

    // ---- up --------------------------------------------------------------------------------------------------------

    /// Applies news in order; returns the resulting events in order. News of unknown tasks is dropped unless it has an
    /// [`Adoption`]. `durable: false` may use an asynchronous commit.
    async fn learn(&self, news: &[News], durable: bool) -> Result<Vec<Event>, Error>;

    /// As [`Ledger::learn`], but only while the lease still has this term; else `None`, and nothing is written. A new holder of the lease
    /// waits for writes that began before.
    async fn learn_fenced(&self, news: &[News], durable: bool, fence: &Fence) -> Result<Option<Vec<Event>>, Error>;

    /// Notifications of other replicas' commits. A receiver that lagged must treat that as [`Changed::Any`].
    fn changes(&self) -> broadcast::Receiver<Changed>;

    /// Takes or renews a named lease for `holder`; `None` while another holder has it. The term grows with every new holder.
    async fn lease(&self, name: &str, holder: &str, now: Time, ttl: Duration) -> Result<Option<Lease>, Error>;

    /// Releases a lease at shutdown, so that another replica need not wait until it expires.
    async fn release(&self, name: &str, holder: &str) -> Result<(), Error>;

    // ---- reading ---------------------------------------------------------------------------------------------------

    async fn task(&self, id: &TaskId) -> Result<Option<Task>, Error>;

    /// The published message of a task (null for `waiting` and adopted ones whose message was never seen).
    async fn message(&self, id: &TaskId) -> Result<Option<Message>, Error>;

    /// Newest first.
    async fn tasks(&self, filter: &Filter, page: &Page) -> Result<(Vec<Task>, Option<Cursor>), Error>;

    /// Events of one task with `seq` > `after`, ascending: at most `limit`, and fewer where they hold more than
    /// [`EVENTS_BYTES`].
    async fn events(&self, id: &TaskId, after: i64, limit: i64) -> Result<Vec<Event>, Error>;

    /// The feed: matching events with positions above `after`, ascending, and the position up to which it read. An event is visible only
    /// when all lower positions are. Reads `limit` events, or fewer if they hold more than [`EVENTS_BYTES`].
    async fn feed(&self, after: i64, filter: &Filter, limit: i64) -> Result<(Vec<Event>, i64), Error>;

    /// The newest feed position for which all lower positions are visible.
    async fn feed_end(&self) -> Result<i64, Error>;

    async fn group(&self, id: &GroupId) -> Result<Option<Group>, Error>;

    /// Nodes and edges of the whole canvas that `id` belongs to (the task itself when it stands alone).
    async fn graph(&self, id: &TaskId) -> Result<Option<(Vec<Task>, Vec<(TaskId, TaskId, EdgeKind)>)>, Error>;

    /// Tasks that are not final, by ascending number after `after_no`, of these phases (all when empty). Leaves out
    /// [rows that cannot be read](Ledger::unreadable).
    async fn unfinished(&self, phases: &[celery::task::Phase], after_no: i64, limit: i64) -> Result<Vec<Task>, Error>;

    /// The rows of unfinished tasks that this process has met lately and cannot read. In memory, without a query.
    fn unreadable(&self) -> Vec<UnreadableRow>;

    /// The tasks with these ids that are in the ledger, as from [`Ledger::task`].
    async fn tasks_by_id(&self, ids: &[TaskId]) -> Result<Vec<Task>, Error>;

    /// The tasks with these ids that are in the ledger, in any phase, without the large texts.
    async fn standing(&self, ids: &[TaskId]) -> Result<Vec<Task>, Error>;

    /// Queued tasks whose `expires` is after `since` and not after `now`, in that order, without the large texts.
    async fn expired(&self, since: Time, now: Time, limit: i64) -> Result<Vec<Task>, Error>;

    /// Numbers of unfinished tasks by queue and phase.
    async fn census(&self) -> Result<HashMap<(String, celery::task::Phase), i64>, Error>;

    /// All queues in the history, by name. Costs one look-up for each queue, however many tasks there are.
    async fn queues(&self, limit: i64) -> Result<Vec<String>, Error>;

    /// All task names in the history, sorted. Costs one look-up for each name, however many tasks there are.
    async fn names(&self, limit: i64) -> Result<Vec<String>, Error>;

    /// The sizes in bytes of the results of the newest successful tasks of this name, at most `limit`. Checks the newest hundred tasks of the
    /// name, and reads no result.
    async fn result_sizes(&self, name: &str, since: Time, limit: i64) -> Result<Vec<i64>, Error>;

    /// When a finished task was pruned: its tombstone.
    async fn tombstone(&self, id: &str) -> Result<Option<Time>, Error>;

    // ---- the end of history ----------------------------------------------------------------------------------------

    /// Deletes up to `limit` of the oldest tasks that finished before `before`, and leaves tombstones. One short transaction; call it again
    /// until it returns less than `limit`.
    async fn prune(&self, before: Time, limit: i64, now: Time) -> Result<i64, Error>;

    /// Removes the messages (arguments) of up to `limit` tasks that finished before `before`; the tasks stay.
    async fn prune_payload(&self, before: Time, limit: i64) -> Result<i64, Error>;

    /// Removes up to `limit` expired keys of each kind.
    async fn prune_keys(&self, now: Time, limit: i64) -> Result<i64, Error>;
}
