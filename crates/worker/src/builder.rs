//! Configures and starts a worker: its tasks, its queues and its settings.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::children::{is_child, serve};
use super::records::RecordsRef;
use super::registry::Registry;
use super::service::Service;
use super::settings::{Autoscale, Pool, Settings, UnknownTask, hostname};
use super::transport::TransportRef;
use broker::amqp::WorkerSide;
use broker::backend::{Backend, BackendConfig};
use broker::{BrokerConfig, Error, LinkConfig, Lists, QueueOrder, amqp};
use celery::Transport;
use celery::task::{InvalidId, QueueName};

/// Configures a worker. Defaults are Celery's.
pub struct Builder {
    transport: TransportRef,
    records: RecordsRef,
    registry: Registry,
    settings: Settings,
}

/// Stops a worker: first warm, then cold.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Takes and starts no more tasks, finishes the running ones and returns the rest to their queues.
    pub warm: CancellationToken,
    /// Does not wait for running tasks: late-acknowledged messages go back to their queue.
    pub cold: CancellationToken,
}

/// Parses names of queues.
///
/// # Errors
/// When one is empty, longer than 255 characters, or has control characters.
pub fn queue_names<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Result<Vec<QueueName>, InvalidId> {
    names.into_iter().map(QueueName::parse).collect()
}

impl Builder {
    /// A worker that uses the servers at these URLs: Redis (`redis://`), or RabbitMQ as the broker (`amqp://`) with results in Redis
    /// or over RabbitMQ (`rpc://`).
    ///
    /// # Errors
    /// When a URL is invalid, or `rpc://` stands beside a broker that is Redis. Nothing is connected yet.
    pub fn connect(broker: &str, backend: &str) -> Result<Self, Error> {
        let redis = || Backend::new(BackendConfig { link: LinkConfig::new(backend), key_prefix: String::new() });
        if !broker.starts_with("amqp") && !broker.starts_with("pyamqp") {
            let lists = BrokerConfig { link: LinkConfig::new(broker), transport: Transport::default() };
            return Ok(Self::new(Lists::new(lists)?, redis()?));
        }
        let rabbit = WorkerSide::new(amqp::LinkConfig::new(broker)?, BTreeMap::new())?;
        let backend = if backend.starts_with("rpc:") { None } else { Some(redis()?) };
        Ok(Self::on_rabbitmq(rabbit, backend))
    }

    /// A worker on Redis.
    pub fn new(broker: Lists, backend: Backend) -> Self {
        Self::over(Arc::new(broker), Arc::new(backend))
    }

    /// A worker on RabbitMQ. Without a `backend`, results go to the queues that the tasks' messages name: Celery's `rpc://`.
    pub fn on_rabbitmq(broker: WorkerSide, backend: Option<Backend>) -> Self {
        let records: RecordsRef = match backend {
            Some(backend) => Arc::new(backend),
            None => Arc::new(broker.clone()),
        };
        Self::over(Arc::new(broker), records)
    }

    fn over(transport: TransportRef, records: RecordsRef) -> Self {
        Self { transport, records, registry: Registry::new(), settings: Settings::default() }
    }

    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// The queues to consume, Celery's `-Q`. Default `celery`.
    ///
    #[must_use]
    pub fn queues(mut self, queues: Vec<QueueName>) -> Self {
        self.settings.queues = queues;
        self
    }

    /// The order in which queues are served. Default round robin.
    #[must_use]
    pub fn queue_order(mut self, order: QueueOrder) -> Self {
        self.settings.queue_order = order;
        self
    }

    /// The queue for signatures that name none. Default `celery`.
    #[must_use]
    pub fn default_queue(mut self, name: QueueName) -> Self {
        self.settings.default_queue = name;
        self
    }

    /// The node's name; `%h`, `%n`, `%d` as in Celery. Default `celery@%h`.
    #[must_use]
    pub fn hostname(mut self, template: &str) -> Self {
        self.settings.hostname = hostname(template);
        self
    }

    /// How many tasks run at once; at least one. Default: the number of processors.
    #[must_use]
    pub fn concurrency(mut self, slots: usize) -> Self {
        self.settings.concurrency = slots.max(1);
        self
    }

    /// Where handlers run. Default: in this process, except those registered with [`Registry::child`].
    #[must_use]
    pub fn pool(mut self, pool: Pool) -> Self {
        self.settings.pool = pool;
        self
    }

    /// Scales the concurrency with the load, between these bounds.
    #[must_use]
    pub fn autoscale(mut self, max: usize, min: usize) -> Self {
        let min = min.max(1);
        self.settings.autoscale = Some(Autoscale { max: max.max(min), min });
        self
    }

    /// Messages reserved per slot, Celery's `worker_prefetch_multiplier`; 0 means no limit. Default 4.
    #[must_use]
    pub fn prefetch_multiplier(mut self, messages: usize) -> Self {
        self.settings.prefetch_multiplier = messages;
        self
    }

    /// Sends task events, Celery's `-E`. Default no; remote control can also switch them on.
    #[must_use]
    pub fn task_events(mut self, yes: bool) -> Self {
        self.settings.task_events = yes;
        self
    }

    /// The time between heartbeats; `None` sends none. Default two seconds.
    #[must_use]
    pub fn heartbeat(mut self, interval: Option<Duration>) -> Self {
        self.settings.heartbeat = interval;
        self
    }

    /// Asks the other workers for revoked ids at start. Default yes.
    #[must_use]
    pub fn mingle(mut self, yes: bool) -> Self {
        self.settings.mingle = yes;
        self
    }

    /// On Redis: the time after which other workers may take over the messages that a dead worker had reserved. Must be the same for all
    /// workers of a fleet. Default one hour.
    #[must_use]
    pub fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.settings.visibility_timeout = timeout;
        self
    }

    /// How long results are kept; zero keeps them for ever. Default one day.
    #[must_use]
    pub fn result_expires(mut self, expires: Duration) -> Self {
        self.settings.result_expires = expires;
        self
    }

    /// On RabbitMQ's quorum queues: a message that was delivered this often without an end is not run again; its task fails with
    /// `PoisonTask`. Returned messages count too, because the queue counts them. Default no limit.
    #[must_use]
    pub fn max_deliveries(mut self, most: Option<u32>) -> Self {
        self.settings.max_deliveries = most;
        self
    }

    /// Acknowledges messages after the task, for tasks that do not set it. Default no.
    #[must_use]
    pub fn acks_late(mut self, yes: bool) -> Self {
        self.settings.acks_late = yes;
        self
    }

    /// Stores a STARTED record, for tasks that do not set it. Default no.
    #[must_use]
    pub fn track_started(mut self, yes: bool) -> Self {
        self.settings.track_started = yes;
        self
    }

    /// Limits for tasks that have none. Default none.
    #[must_use]
    pub fn time_limits(mut self, soft: Option<Duration>, hard: Option<Duration>) -> Self {
        (self.settings.soft_time_limit, self.settings.time_limit) = (soft, hard);
        self
    }

    /// Replaces a child process after this many tasks, or above this much resident memory in KiB. Default never.
    #[must_use]
    pub fn child_limits(mut self, tasks: Option<u32>, memory_kib: Option<u64>) -> Self {
        (self.settings.max_tasks_per_child, self.settings.max_memory_per_child) = (tasks, memory_kib);
        self
    }

    /// How tasks that are not registered are handled. Default: they fail.
    #[must_use]
    pub fn unknown_task(mut self, what: UnknownTask) -> Self {
        self.settings.unknown_task = what;
        self
    }

    /// How many bytes of an attempt's log are sent; a last line says that there was more. Default 1 MiB, which is also what a gateway keeps
    /// unless its `logs.max_bytes` says otherwise.
    #[must_use]
    pub fn log_bytes(mut self, most: u64) -> Self {
        self.settings.log_bytes = most;
        self
    }

    /// How long a warm stop waits for running tasks before it becomes a cold one. Default: without a limit.
    #[must_use]
    pub fn warm_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.settings.warm_timeout = timeout;
        self
    }

    /// Runs the worker until it is stopped.
    ///
    /// The example runs a worker inside another program, with the built-in Redis server of `taskgate dev`:
    ///
    /// ```
    /// use resp::Server;
    /// use taskgate_worker::{Builder, Context, Registry, Stop, TaskError};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::bind(([127, 0, 0, 1], 0).into()).await?;
    /// let url = format!("redis://{}", server.local_addr());
    /// let stop = Stop::default();
    /// let redis = server.run(stop.cold.clone());
    ///
    /// let mut tasks = Registry::new();
    /// tasks.task("tasks.hello", async |_: Context, (name,): (String,)| Ok(format!("hello, {name}")));
    /// let worker = Builder::connect(&format!("{url}/0"), &format!("{url}/1"))?.registry(tasks).mingle(false);
    ///
    /// let work = async {
    ///     // A Celery client would send tasks now.
    ///     stop.warm.cancel();
    ///     worker.run(stop.clone()).await;
    ///     stop.cold.cancel();
    /// };
    /// let (served, ()) = tokio::join!(redis, work);
    /// served?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The servers may be down at start and at any later time: the worker waits for them. In a child process this runs tasks until the
    /// parent worker ends it.
    pub async fn run(self, stop: Stop) {
        if is_child() {
            return Box::pin(serve(self.registry)).await;
        }
        let service = Service::new(self.transport, self.records, self.registry, self.settings);
        // Boxed, so that the compiler of a program that embeds a worker need not compute the layout of this future.
        let running: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(service.run(stop));
        running.await;
    }

    /// Runs the worker until SIGTERM or SIGINT (warm stop), or a second one or SIGQUIT (cold stop).
    pub async fn run_until_signalled(self) {
        if is_child() {
            // A signal ends a child as it ends any process.
            return self.run(Stop::default()).await;
        }
        let stop = Stop::default();
        let signals = super::signals::listen(stop.clone());
        tokio::select! {
            () = self.run(stop) => {}
            never = signals => match never {},
        }
    }
}
