//! The settings of one worker. Defaults are Celery's.

use std::time::Duration;

use broker::QueueOrder;
use celery::task::QueueName;

/// How a message whose task is not registered here is handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownTask {
    /// It fails with `NotRegistered`, as in Celery.
    #[default]
    Fail,
    /// It goes back to its queue once, for a worker that knows it; when redelivered here, it fails.
    Requeue,
}

/// Where handlers run that do not choose themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pool {
    /// In the worker's process: async handlers on its runtime, blocking ones on threads.
    #[default]
    Async,
    /// In child processes, as in Celery's pool of that name.
    Prefork,
}

/// The bounds between which a worker scales its concurrency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autoscale {
    pub max: usize,
    pub min: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub hostname: String,
    pub queues: Vec<QueueName>,
    pub queue_order: QueueOrder,
    /// The queue for signatures that name none.
    pub default_queue: QueueName,
    pub concurrency: usize,
    pub pool: Pool,
    pub autoscale: Option<Autoscale>,
    /// Reserved messages per slot; 0: no limit.
    pub prefetch_multiplier: usize,
    pub task_events: bool,
    pub heartbeat: Option<Duration>,
    pub mingle: bool,
    pub visibility_timeout: Duration,
    pub result_expires: Duration,
    /// Deliveries after which a task fails unrun, where the queue counts them.
    pub max_deliveries: Option<u32>,
    pub acks_late: bool,
    pub track_started: bool,
    pub soft_time_limit: Option<Duration>,
    pub time_limit: Option<Duration>,
    pub max_tasks_per_child: Option<u32>,
    /// KiB of resident memory after which a child is replaced.
    pub max_memory_per_child: Option<u64>,
    pub unknown_task: UnknownTask,
    /// How many bytes of an attempt's log are sent.
    pub log_bytes: u64,
    /// How long a warm shutdown waits for running tasks; `None` for ever.
    pub warm_timeout: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        let celery = QueueName::parse("celery").expect("a name");
        Self {
            hostname: hostname("celery@%h"),
            queues: vec![celery.clone()],
            queue_order: QueueOrder::default(),
            default_queue: celery,
            concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            pool: Pool::default(),
            autoscale: None,
            prefetch_multiplier: 4,
            task_events: false,
            heartbeat: Some(Duration::from_secs(2)),
            mingle: true,
            visibility_timeout: Duration::from_secs(3600),
            result_expires: Duration::from_secs(86_400),
            max_deliveries: None,
            acks_late: false,
            track_started: false,
            soft_time_limit: None,
            time_limit: None,
            max_tasks_per_child: None,
            max_memory_per_child: None,
            unknown_task: UnknownTask::default(),
            log_bytes: 1 << 20,
            warm_timeout: None,
        }
    }
}

impl Settings {
    /// Most messages that may be reserved and not acknowledged with this many slots. `usize::MAX`: no limit.
    pub fn prefetch(&self, slots: usize) -> usize {
        if self.prefetch_multiplier == 0 { usize::MAX } else { slots.saturating_mul(self.prefetch_multiplier) }
    }
}

/// Celery's `--hostname`: `%h` is the host with its domain, `%n` the host, `%d` the domain, `%%` a percent sign.
pub(crate) fn hostname(template: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "localhost",
        host => host,
    };
    let (name, domain) = host.split_once('.').unwrap_or((host, ""));
    let template = if template.contains('@') { template.to_owned() } else { format!("{template}@%h") };
    let mut out = String::new();
    let mut chars = template.chars();
    while let Some(char) = chars.next() {
        match (char, if char == '%' { chars.next() } else { None }) {
            ('%', Some('h')) => out.push_str(host),
            ('%', Some('n')) => out.push_str(name),
            ('%', Some('d')) => out.push_str(domain),
            ('%', Some('%') | None) => out.push('%'),
            ('%', Some(other)) => out.extend(['%', other]),
            (char, _) => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_without_a_host_gets_one() {
        assert!(hostname("w1").starts_with("w1@"));
        assert_eq!(hostname("w1@there"), "w1@there");
        assert_eq!(hostname("a%%b@c"), "a%b@c");
        assert!(!hostname("w@%h").contains('%'));
    }
}
