//! The ledger on SQLite: for dev, and for a single process of serve.
//!
//! There are no other replicas, so `changes()` never fires. Statements are constants (a test prepares every one of them); only lists are
//! put together from constant pieces with bound values.

#[path = "../both/audit.rs"]
mod audit;
#[path = "../both/bulk.rs"]
mod bulk;
mod canvas_rows;
mod claim;
#[path = "../both/claims.rs"]
mod claims;
#[path = "../both/control.rs"]
mod control;
mod control_writes;
mod dags;
mod dialect;
pub mod django;
mod events;
#[path = "../both/fan_out.rs"]
mod fan_out;
mod findings;
mod firing;
mod gate_writes;
#[path = "../both/groups.rs"]
mod groups;
#[path = "../both/incidents.rs"]
mod incidents;
mod insert;
mod insert_rows;
mod learn;
#[path = "../both/lease.rs"]
mod lease;
#[path = "../both/limits.rs"]
mod limits;
mod line_writes;
#[path = "../both/lines.rs"]
mod lines;
#[path = "../both/logs.rs"]
mod logs;
mod migrate;
#[path = "../both/on_facts.rs"]
mod on_facts;
#[path = "../both/outbox.rs"]
mod outbox;
mod outbox_rows;
mod own_statements;
#[path = "../both/passes.rs"]
mod passes;
mod pool;
mod prune;
#[path = "../both/rate_gates.rs"]
mod rate_gates;
mod rows;
mod save;
#[path = "../both/schedules.rs"]
mod schedules;
#[path = "../both/statements.rs"]
mod statements;
mod stats;
mod steps;
mod tasks;
#[path = "../both/tokens.rs"]
mod tokens;
mod traces;
#[path = "../both/waits.rs"]
mod waits;
#[path = "../both/webhooks.rs"]
mod webhooks;
mod worker_writes;
#[path = "../both/workers.rs"]
mod workers;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection;
use tokio::sync::broadcast;

use super::{
    Backlog, Carrier, Changed, Conflict, Cursor, Drained, EdgeKind, Error, Event, Fence, Filter, Group, Inserted,
    Lease, Ledger, Message, News, Page, Submission, Task, UnreadableRow, Withdrawn,
};
use crate::unreadable::Unreadable;
use celery::task::{GroupId, Phase, QueueName, TaskId};
use runtime::clock::Time;

pub use claim::ClaimError;
use pool::Pools;
pub use pool::Synchronous;
pub(crate) use pool::is_transient_code;
pub use statements::statements;

/// Cheap to share; the pools close when it is dropped.
pub struct SqliteLedger {
    pools: Pools,
    /// Held during a pass over the outbox, and during a withdrawal.
    carrying: tokio::sync::Mutex<()>,
    unreadable: Unreadable,
    changed: broadcast::Sender<Changed>,
    /// A gateway's lock on the file; commands have none.
    _claim: Option<claim::Claim>,
}

impl SqliteLedger {
    /// As [`SqliteLedger::open`], for a gateway: no other gateway can use this file until this is dropped. `holder` is shown to a gateway
    /// that tries.
    ///
    /// # Errors
    /// When another gateway uses the file, or its folder cannot be written.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn claim(path: impl AsRef<Path>, synchronous: Synchronous, holder: &str) -> Result<Self, ClaimError> {
        let claim = claim::take(path.as_ref(), holder)?;
        Ok(Self { _claim: Some(claim), ..Self::open(path, synchronous) })
    }

    /// Opens the file at the first call, and creates it if it does not exist.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open(path: impl AsRef<Path>, synchronous: Synchronous) -> Self {
        let (changed, _) = broadcast::channel(1);
        Self {
            pools: pool::open(path.as_ref(), synchronous),
            carrying: tokio::sync::Mutex::new(()),
            unreadable: Unreadable::default(),
            changed,
            _claim: None,
        }
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    async fn migrate(&self) -> Result<(), Error> {
        migrate::migrate(&self.pools.write).await
    }

    async fn ping(&self) -> Result<(), Error> {
        sqlx::query(own_statements::PING).execute(&self.pools.read).await?;
        Ok(())
    }

    async fn writable(&self) -> Result<(), Error> {
        // Another caller is writing at this moment, so there is no need to try a write.
        let Some(mut writer) = self.pools.write.try_acquire() else { return self.ping().await };
        let mut tx = writer.begin_with("begin immediate").await?;
        sqlx::query(lease::PROBE).bind("").execute(&mut *tx).await?;
        Ok(tx.rollback().await?)
    }

    async fn insert(&self, batch: &[Submission]) -> Result<Vec<Result<Inserted, Conflict>>, Error> {
        insert::insert(&self.pools, batch).await
    }

    async fn published(&self, pushed: &[(i64, Time)]) -> Result<Vec<Event>, Error> {
        outbox_rows::published(&self.pools, pushed).await
    }

    async fn drain(&self, now: Time, settle: Duration, limit: i64, carrier: &dyn Carrier) -> Result<Drained, Error> {
        let _alone = self.carrying.lock().await;
        outbox_rows::drain(self, now, settle, limit, carrier).await
    }

    async fn backlog(&self, now: Time) -> Result<Backlog, Error> {
        outbox::backlog(self, now).await
    }

    async fn next_due(&self, now: Time) -> Result<Option<Time>, Error> {
        outbox::next_due(self, now).await
    }

    async fn withdraw(&self, id: &TaskId, news: News) -> Result<Withdrawn, Error> {
        let _alone = self.carrying.lock().await;
        outbox_rows::withdraw(&self.pools, id, news).await
    }

    async fn requeue(&self, tasks: &[(TaskId, i64)], reason: &str, at: Time) -> Result<Vec<Event>, Error> {
        let _alone = self.carrying.lock().await;
        outbox::requeue(self, tasks, reason, at).await
    }

    async fn remark(&self, ids: &[TaskId], reason: &str, at: Time) -> Result<Vec<Event>, Error> {
        outbox::remark(self, ids, reason, at).await
    }

    async fn pause_queue(&self, queue: &QueueName, at: Time) -> Result<bool, Error> {
        control::pause(self, queue, at).await
    }

    async fn resume_queue(&self, queue: &QueueName, at: Time) -> Result<bool, Error> {
        control::resume(self, queue, at).await
    }

    async fn paused_queues(&self) -> Result<Vec<(String, Time)>, Error> {
        control::paused(self).await
    }

    async fn request_revoke(&self, id: &TaskId, at: Time) -> Result<Option<Task>, Error> {
        control::request_revoke(self, id, at).await
    }

    async fn dismiss(&self, ids: &[TaskId]) -> Result<i64, Error> {
        control::dismiss(self, ids).await
    }

    async fn learn(&self, news: &[News], _durable: bool) -> Result<Vec<Event>, Error> {
        Ok(learn::learn(&self.pools, news, None).await?.unwrap_or_default())
    }

    async fn learn_fenced(&self, news: &[News], _durable: bool, fence: &Fence) -> Result<Option<Vec<Event>>, Error> {
        learn::learn(&self.pools, news, Some(fence)).await
    }

    fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changed.subscribe()
    }

    async fn lease(&self, name: &str, holder: &str, now: Time, ttl: Duration) -> Result<Option<Lease>, Error> {
        lease::take(&self.pools.write, name, holder, now, ttl).await
    }

    async fn release(&self, name: &str, holder: &str) -> Result<(), Error> {
        lease::release(&self.pools.write, name, holder).await
    }

    async fn task(&self, id: &TaskId) -> Result<Option<Task>, Error> {
        tasks::task(&self.pools.read, id).await
    }

    async fn message(&self, id: &TaskId) -> Result<Option<Message>, Error> {
        tasks::message(&self.pools.read, id).await
    }

    async fn tasks(&self, filter: &Filter, page: &Page) -> Result<(Vec<Task>, Option<Cursor>), Error> {
        tasks::tasks(&self.pools.read, filter, page).await
    }

    async fn events(&self, id: &TaskId, after: i64, limit: i64) -> Result<Vec<Event>, Error> {
        events::events(&self.pools.read, id, after, limit).await
    }

    async fn feed(&self, after: i64, filter: &Filter, limit: i64) -> Result<(Vec<Event>, i64), Error> {
        events::feed(&self.pools.read, after, filter, limit).await
    }

    async fn feed_end(&self) -> Result<i64, Error> {
        events::feed_end(&self.pools.read).await
    }

    async fn group(&self, id: &GroupId) -> Result<Option<Group>, Error> {
        groups::group(&self.pools.read, id).await
    }

    async fn graph(&self, id: &TaskId) -> Result<Option<(Vec<Task>, Vec<(TaskId, TaskId, EdgeKind)>)>, Error> {
        match tasks::task(&self.pools.read, id).await? {
            Some(task) => groups::graph(&self.pools.read, task).await.map(Some),
            None => Ok(None),
        }
    }

    async fn unfinished(&self, phases: &[Phase], after_no: i64, limit: i64) -> Result<Vec<Task>, Error> {
        tasks::unfinished(&self.pools.read, &self.unreadable, phases, after_no, limit).await
    }

    fn unreadable(&self) -> Vec<UnreadableRow> {
        self.unreadable.list(std::time::Instant::now())
    }

    async fn tasks_by_id(&self, ids: &[TaskId]) -> Result<Vec<Task>, Error> {
        tasks::tasks_by_id(&self.pools.read, ids).await
    }

    async fn expired(&self, since: Time, now: Time, limit: i64) -> Result<Vec<Task>, Error> {
        tasks::expired(&self.pools.read, &self.unreadable, since, now, limit).await
    }

    async fn standing(&self, ids: &[TaskId]) -> Result<Vec<Task>, Error> {
        tasks::standing(&self.pools.read, ids).await
    }

    async fn queues(&self, limit: i64) -> Result<Vec<String>, Error> {
        tasks::queues(&self.pools.read, limit).await
    }

    async fn result_sizes(&self, name: &str, since: Time, limit: i64) -> Result<Vec<i64>, Error> {
        tasks::result_sizes(&self.pools.read, name, since, limit).await
    }

    async fn names(&self, limit: i64) -> Result<Vec<String>, Error> {
        tasks::names(&self.pools.read, limit).await
    }

    async fn census(&self) -> Result<HashMap<(String, Phase), i64>, Error> {
        tasks::census(&self.pools.read).await
    }

    async fn tombstone(&self, id: &str) -> Result<Option<Time>, Error> {
        use sqlx::Row;
        let id = super::rows::clean(id).into_owned();
        let row = sqlx::query(tasks::TOMBSTONE).bind(id).fetch_optional(&self.pools.read).await?;
        row.map(|row| Ok(Time(row.try_get(0)?))).transpose()
    }

    async fn prune(&self, before: Time, limit: i64, now: Time) -> Result<i64, Error> {
        prune::tasks(&self.pools, before, limit, now).await
    }

    async fn prune_payload(&self, before: Time, limit: i64) -> Result<i64, Error> {
        prune::payloads(&self.pools, before, limit).await
    }

    async fn prune_keys(&self, now: Time, limit: i64) -> Result<i64, Error> {
        prune::keys(&self.pools, now, limit).await
    }
}
