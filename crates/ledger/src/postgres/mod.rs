//! The ledger on PostgreSQL, in the schema `taskgate`, for any number of replicas.
//!
//! Times are stored as microseconds. Statements are constants (a test prepares every one of them); only lists are put together
//! from constant pieces with bound values.

#[path = "../both/audit.rs"]
mod audit;
#[path = "../both/bulk.rs"]
mod bulk;
mod canvas_rows;
#[path = "../both/claims.rs"]
mod claims;
mod columns;
mod conditions;
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
mod gather;
#[path = "../both/groups.rs"]
mod groups;
#[path = "../both/incidents.rs"]
mod incidents;
mod insert;
mod kinds;
mod known;
mod lane;
mod learn;
#[path = "../both/lease.rs"]
mod lease;
#[path = "../both/limits.rs"]
mod limits;
mod line_writes;
#[path = "../both/lines.rs"]
mod lines;
mod list;
#[path = "../both/logs.rs"]
mod logs;
mod migrate;
mod notify;
mod numbers;
#[path = "../both/on_facts.rs"]
mod on_facts;
mod ordinary;
#[path = "../both/outbox.rs"]
mod outbox;
mod outbox_rows;
mod own_statements;
#[path = "../both/passes.rs"]
mod passes;
mod pool;
mod pooled;
mod prune;
mod publication;
#[path = "../both/rate_gates.rs"]
mod rate_gates;
mod replica;
mod rows;
mod save;
#[path = "../both/schedules.rs"]
mod schedules;
mod slots;
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
mod withdraw;
mod worker_writes;
#[path = "../both/workers.rs"]
mod workers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{
    Backlog, Carrier, Changed, Conflict, Cursor, Drained, EdgeKind, Error, Event, Fence, Filter, Group, Inserted,
    Lease, Ledger, Message, News, Page, Submission, Task, Withdrawn,
};
use celery::task::{GroupId, Phase, QueueName, TaskId};
use runtime::clock::{self, Time};

use kinds::Kinds;
use known::Known;
use lane::Lane;
pub use pool::PostgresConfig;
pub(crate) use pool::begin_elsewhere;
use pooled::{Door, Pool};
pub use statements::statements;

/// How many commits of other replicas a watcher may lag behind. A watcher that lags more reads everything again.
const CHANGES: usize = 1024;

/// Each method is one call on the pool; a clone shares it.
pub struct PostgresLedger {
    config: PostgresConfig,
    pool: Pool,
    /// The pool of the listener, which can listen only if there is no pooler in between.
    listening: Pool,
    store: Store,
    lanes: Lanes,
    unreadable: crate::unreadable::Unreadable,
    changed: broadcast::Sender<Changed>,
}

/// The state that every write needs.
struct Store {
    pool: Pool,
    /// This process's name in notifications,
    replica: Arc<str>,
    /// and whether anybody hears them.
    others: Arc<notify::Others>,
    kinds: Kinds,
    known: Known,
    /// The time of acceptance up to which the feed was searched for unpublished tasks.
    gathered: AtomicI64,
    outside: gather::Outside,
}

/// Checks that a URL is valid, without connecting.
///
/// # Errors
/// Why it is not valid.
pub fn understands(url: &str) -> Result<(), Error> {
    pool::direct_options(&PostgresConfig::new(url)).map(|_| ()).map_err(|error| Error::Refused(Box::new(error)))
}

/// Dedicated connections for the services that write one batch after the other.
struct Lanes {
    submissions: Lane,
    publications: Lane,
    /// Batches of ordinary steps.
    steps: Lane,
    /// Other batches of news, each a transaction of several statements.
    news: Pool,
}

impl Lanes {
    fn open(config: &PostgresConfig, door: &Arc<Door>) -> Result<Self, Error> {
        let news = pool::pool(&PostgresConfig { max_connections: 1, ..config.clone() }, door)?;
        let lane = || Lane::new(config, door);
        Ok(Self { submissions: lane()?, publications: lane()?, steps: lane()?, news })
    }
}

impl PostgresLedger {
    /// Opens no connection yet: the database may still be starting. `stop` ends the listening task.
    ///
    /// # Errors
    /// When the URL is invalid.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect(config: &PostgresConfig, stop: CancellationToken) -> Result<Self, Error> {
        let door = Door::new(config);
        let (pool, lanes) = (pool::pool(config, &door)?, Lanes::open(config, &door)?);
        let listening = pool::unlimited(config)?;
        let (changed, _) = broadcast::channel(CHANGES);
        let replica: Arc<str> = clock::random_id().simple().to_string().into();
        let others: Arc<notify::Others> = Arc::default();
        let listener = notify::Listener {
            pool: listening.clone(),
            replica: replica.clone(),
            others: Arc::clone(&others),
            changed: changed.clone(),
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with the token; it holds nothing that a shutdown waits for"
        )]
        tokio::spawn(listener.run(stop));
        let store = Store {
            pool: pool.clone(),
            replica,
            others,
            kinds: Kinds::default(),
            known: Known::default(),
            gathered: AtomicI64::new(0),
            outside: gather::Outside::default(),
        };
        Ok(Self {
            config: config.clone(),
            pool,
            listening,
            store,
            lanes,
            unreadable: crate::unreadable::Unreadable::default(),
            changed,
        })
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn migrate(&self) -> Result<(), Error> {
        migrate::migrate(&self.config).await
    }

    async fn ping(&self) -> Result<(), Error> {
        sqlx::query(own_statements::PING).execute(&self.pool).await?;
        Ok(())
    }

    async fn hears_others(&self) -> Result<bool, Error> {
        Ok(!self.listening.is_pooled().await?)
    }

    async fn writable(&self) -> Result<(), Error> {
        let mut tx = pool::begin(&self.pool).await?;
        sqlx::query(lease::PROBE).bind(&*self.store.replica).execute(&mut *tx).await?;
        Ok(tx.rollback().await?)
    }

    async fn lag(&self) -> Result<Option<Duration>, Error> {
        replica::lag(&self.pool).await
    }

    async fn insert(&self, batch: &[Submission]) -> Result<Vec<Result<Inserted, Conflict>>, Error> {
        insert::insert(&self.store, &self.lanes.submissions, batch).await
    }

    async fn published(&self, pushed: &[(i64, Time)]) -> Result<Vec<Event>, Error> {
        publication::published(&self.store, &self.lanes.publications, pushed).await
    }

    async fn drain(&self, now: Time, settle: Duration, limit: i64, carrier: &dyn Carrier) -> Result<Drained, Error> {
        outbox_rows::drain(self, now, settle, limit, carrier).await
    }

    async fn backlog(&self, now: Time) -> Result<Backlog, Error> {
        outbox::backlog(self, now).await
    }

    async fn next_due(&self, now: Time) -> Result<Option<Time>, Error> {
        outbox::next_due(self, now).await
    }

    async fn withdraw(&self, id: &TaskId, news: News) -> Result<Withdrawn, Error> {
        withdraw::withdraw(&self.store, id, news).await
    }

    async fn requeue(&self, tasks: &[(TaskId, i64)], reason: &str, at: Time) -> Result<Vec<Event>, Error> {
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

    async fn learn(&self, news: &[News], durable: bool) -> Result<Vec<Event>, Error> {
        Ok(learn::learn(&self.pool, &self.lanes.steps, &self.store, news, durable, None).await?.unwrap_or_default())
    }

    async fn learn_fenced(&self, news: &[News], durable: bool, fence: &Fence) -> Result<Option<Vec<Event>>, Error> {
        learn::learn(&self.lanes.news, &self.lanes.steps, &self.store, news, durable, Some(fence)).await
    }

    fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changed.subscribe()
    }

    async fn lease(&self, name: &str, holder: &str, now: Time, ttl: Duration) -> Result<Option<Lease>, Error> {
        lease::take(&self.pool, name, holder, now, ttl).await
    }

    async fn release(&self, name: &str, holder: &str) -> Result<(), Error> {
        lease::release(&self.pool, name, holder).await
    }

    async fn task(&self, id: &TaskId) -> Result<Option<Task>, Error> {
        tasks::task(&self.pool, id).await
    }

    async fn message(&self, id: &TaskId) -> Result<Option<Message>, Error> {
        tasks::message(&self.pool, id).await
    }

    async fn tasks(&self, filter: &Filter, page: &Page) -> Result<(Vec<Task>, Option<Cursor>), Error> {
        list::tasks(&self.pool, filter, page).await
    }

    async fn events(&self, id: &TaskId, after: i64, limit: i64) -> Result<Vec<Event>, Error> {
        events::events(&self.pool, id, after, limit).await
    }

    async fn feed(&self, after: i64, filter: &Filter, limit: i64) -> Result<(Vec<Event>, i64), Error> {
        events::feed(&self.pool, after, filter, limit).await
    }

    async fn feed_end(&self) -> Result<i64, Error> {
        events::feed_end(&self.pool).await
    }

    async fn group(&self, id: &GroupId) -> Result<Option<Group>, Error> {
        groups::group(&self.pool, id).await
    }

    async fn graph(&self, id: &TaskId) -> Result<Option<(Vec<Task>, Vec<(TaskId, TaskId, EdgeKind)>)>, Error> {
        match tasks::task(&self.pool, id).await? {
            Some(task) => groups::graph(&self.pool, task).await.map(Some),
            None => Ok(None),
        }
    }

    async fn unfinished(&self, phases: &[Phase], after_no: i64, limit: i64) -> Result<Vec<Task>, Error> {
        tasks::unfinished(&self.pool, &self.unreadable, phases, after_no, limit).await
    }

    fn unreadable(&self) -> Vec<crate::UnreadableRow> {
        self.unreadable.list(std::time::Instant::now())
    }

    async fn tasks_by_id(&self, ids: &[TaskId]) -> Result<Vec<Task>, Error> {
        tasks::tasks_by_id(&self.pool, ids).await
    }

    async fn expired(&self, since: Time, now: Time, limit: i64) -> Result<Vec<Task>, Error> {
        tasks::expired(&self.pool, &self.unreadable, since, now, limit).await
    }

    async fn standing(&self, ids: &[TaskId]) -> Result<Vec<Task>, Error> {
        tasks::standing(&self.pool, ids).await
    }

    async fn queues(&self, limit: i64) -> Result<Vec<String>, Error> {
        tasks::queues(&self.pool, limit).await
    }

    async fn result_sizes(&self, name: &str, since: Time, limit: i64) -> Result<Vec<i64>, Error> {
        tasks::result_sizes(&self.pool, name, since, limit).await
    }

    async fn names(&self, limit: i64) -> Result<Vec<String>, Error> {
        tasks::names(&self.pool, limit).await
    }

    async fn census(&self) -> Result<HashMap<(String, Phase), i64>, Error> {
        tasks::census(&self.pool).await
    }

    async fn tombstone(&self, id: &str) -> Result<Option<Time>, Error> {
        tasks::tombstone(&self.pool, id).await
    }

    async fn prune(&self, before: Time, limit: i64, now: Time) -> Result<i64, Error> {
        prune::tasks(&self.pool, before, limit, now).await
    }

    async fn prune_payload(&self, before: Time, limit: i64) -> Result<i64, Error> {
        prune::payloads(&self.pool, before, limit).await
    }

    async fn prune_keys(&self, now: Time, limit: i64) -> Result<i64, Error> {
        prune::keys(&self.pool, now, limit).await
    }
}
