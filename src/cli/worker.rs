//! `taskgate worker`: the Rust worker, with flags like those of `celery worker`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Common;
use super::given::configure;
use crate::app;
use crate::config::{self, Role};
use crate::samples::{DATA, Samples};
use taskgate_worker::{Builder, Pool, QueueOrder, Registry, UnknownTask};

#[derive(Debug, Args)]
pub struct Options {
    /// Queues to consume, separated by commas
    #[arg(short = 'Q', long, value_name = "NAMES", value_delimiter = ',')]
    queues: Vec<String>,
    /// How many tasks run at once; default: the number of processors
    #[arg(short, long, value_name = "NUMBER")]
    concurrency: Option<usize>,
    /// Where tasks run: in this process, or in child processes, one for each task that runs at once
    #[arg(short = 'P', long, value_enum)]
    pool: Option<Where>,
    /// Node name; %h host, %n its first part, %d its domain
    #[arg(short = 'n', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Send task events from the start
    #[arg(short = 'E', long)]
    task_events: bool,
    /// Scale the concurrency with the load, between these bounds
    #[arg(long, value_name = "MAX,MIN", value_delimiter = ',', num_args = 1..=2)]
    autoscale: Vec<usize>,
    /// Messages reserved for each slot; 0: no limit
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    prefetch_multiplier: usize,
    /// Order in which queues are served [default: broker.queue_order_strategy]
    #[arg(long, value_enum)]
    queue_order: Option<Order>,
    /// Seconds after which a task is asked to end
    #[arg(long, value_name = "SECONDS")]
    soft_time_limit: Option<f64>,
    /// Seconds after which a task is stopped and fails
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<f64>,
    /// Tasks after which a child process is replaced
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    max_tasks_per_child: Option<u32>,
    /// KiB of memory after which a child process is replaced
    #[arg(long, value_name = "KIB", value_parser = clap::value_parser!(u64).range(1..))]
    max_memory_per_child: Option<u64>,
    /// Acknowledge after the task, not before it
    #[arg(long)]
    acks_late: bool,
    /// Write a STARTED record for each task
    #[arg(long)]
    track_started: bool,
    /// What to do with messages of unknown tasks
    #[arg(long, value_enum, default_value_t = Unknown::Fail)]
    unknown_task: Unknown,
    /// Seconds between heartbeats
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    heartbeat_interval: f64,
    /// Send no heartbeats: others cannot see whether the worker is alive
    #[arg(long)]
    without_heartbeat: bool,
    /// Do not ask other workers at the start which tasks are revoked
    #[arg(long)]
    without_mingle: bool,
    /// Has no effect; accepted for compatibility with Celery
    #[arg(long)]
    without_gossip: bool,
    /// Seconds that a stop waits for running tasks; then tasks that acknowledge late go back to their queue. 0: no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 6.0)]
    shutdown_timeout: f64,
    /// Directory in which the sample tasks keep their files
    #[arg(long, value_name = "DIRECTORY", default_value = DATA)]
    data: PathBuf,
    /// Address of the sample notice boards
    #[arg(long, value_name = "URL", env = "SAMPLE_SITE_URL", default_value = "http://127.0.0.1:8000/sample-site")]
    sample_site: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    RoundRobin,
    Priority,
    Sorted,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Where {
    Async,
    Prefork,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Unknown {
    Fail,
    Requeue,
}

/// # Errors
/// When the configuration or a flag is invalid.
pub fn run(common: &Common, options: &Options) -> anyhow::Result<ExitCode> {
    let config = configure(Role::Worker, common, &[])?;
    let mut registry = Registry::new();
    Samples::new(&options.sample_site, &options.data).register(&mut registry);
    let worker = options.apply(app::worker(&config, registry)?, &config.worker)?;
    super::runtime()?.block_on(worker.run_until_signalled());
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn apply(&self, mut worker: Builder, config: &config::Worker) -> anyhow::Result<Builder> {
        if !self.queues.is_empty() {
            worker = worker.queues(taskgate_worker::queue_names(&self.queues)?);
        }
        if let Some(slots) = self.concurrency {
            worker = worker.concurrency(slots);
        }
        if let Some(name) = &self.hostname {
            worker = worker.hostname(name);
        }
        if let Some(max) = self.autoscale.first() {
            worker = worker.autoscale(*max, self.autoscale.get(1).copied().unwrap_or(1));
        }
        let heartbeat = seconds(self.heartbeat_interval)?;
        if let Some(order) = self.queue_order {
            worker = worker.queue_order(order.into());
        }
        Ok(worker
            .task_events(self.task_events)
            .prefetch_multiplier(self.prefetch_multiplier)
            .time_limits(optional(self.soft_time_limit)?, optional(self.time_limit)?)
            .pool(self.pool.map_or_else(|| app::pool(config.pool), Pool::from))
            .child_limits(
                self.max_tasks_per_child.or(config.max_tasks_per_child),
                self.max_memory_per_child.or(config.max_memory_per_child),
            )
            .acks_late(self.acks_late)
            .track_started(self.track_started)
            .unknown_task(self.unknown_task.into())
            .heartbeat((!self.without_heartbeat).then_some(heartbeat))
            .mingle(!self.without_mingle)
            .warm_timeout(optional((self.shutdown_timeout > 0.0).then_some(self.shutdown_timeout))?))
    }
}

impl From<Order> for QueueOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::RoundRobin => Self::RoundRobin,
            Order::Priority => Self::Priority,
            Order::Sorted => Self::Sorted,
        }
    }
}

impl From<Where> for Pool {
    fn from(pool: Where) -> Self {
        match pool {
            Where::Async => Self::Async,
            Where::Prefork => Self::Prefork,
        }
    }
}

impl From<Unknown> for UnknownTask {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Fail => Self::Fail,
            Unknown::Requeue => Self::Requeue,
        }
    }
}

fn seconds(value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| anyhow::anyhow!("{value} is not a number of seconds"))
}

fn optional(value: Option<f64>) -> anyhow::Result<Option<Duration>> {
    value.map(seconds).transpose()
}
