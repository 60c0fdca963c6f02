//! The worker that the integration tests run: the tasks of `tests/celery_app`, in Rust and named `rs.*`.
//!
//! `BROKER` (Redis or RabbitMQ), `BACKEND` (Redis or `rpc://`) and `HOSTNAME` say where and who; `QUEUES`, `QUEUE_ORDER`, `PREFETCH`, `KEY_PREFIX`,
//! `RESULT_PREFIX`, `CONCURRENCY`, `VISIBILITY_TIMEOUT`, `AUTOSCALE`, `POOL`, `UNKNOWN_TASK`,
//! `MAX_TASKS_PER_CHILD`, `MAX_MEMORY_PER_CHILD` and `MAX_DELIVERIES` how; `DEMO_JOURNAL` is a file that
//! `rs.work` writes its executions to.

use std::time::Duration;

use broker::backend::{Backend, BackendConfig};
use broker::{BrokerConfig, LinkConfig, Lists};
use celery::Transport;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use taskgate_worker::{
    Builder, Command, Context, Failure, PROGRESS, Pool, QueueOrder, Registry, RetryPolicy, TaskError, UnknownTask,
    queue_names,
};

#[derive(Deserialize)]
struct Two {
    x: i64,
    y: i64,
}

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<i64>,
}

#[derive(Deserialize)]
struct Sleep {
    seconds: f64,
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
struct Times {
    times: u32,
    #[serde(default)]
    delay: f64,
}

#[derive(Deserialize)]
struct Requeue {
    #[serde(default)]
    requeue: bool,
}

async fn sleep(_: Context, sleep: Sleep) -> Result<Value, TaskError> {
    tokio::time::sleep(Duration::from_secs_f64(sleep.seconds)).await;
    Ok(sleep.value)
}

/// Runs until the file is there: its end is the test's to say.
async fn until(_: Context, (path,): (String,)) -> Result<(), TaskError> {
    while !std::path::Path::new(&path).exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Work {
    #[serde(default)]
    seconds: f64,
}

/// Its execution is written down by somebody who is not the gateway.
async fn work(context: Context, work: Work) -> Result<(), TaskError> {
    journal("start", context.id().as_str());
    tokio::time::sleep(Duration::from_secs_f64(work.seconds)).await;
    journal("end", context.id().as_str());
    Ok(())
}

/// One line, in one write: what happens to which task, and who says so when.
fn journal(word: &str, id: &str) {
    use std::io::Write;
    let Ok(path) = std::env::var("DEMO_JOURNAL") else { return };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    let at = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
    let line = format!("{word} {id} rust/{} {at:.3}\n", std::process::id());
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the journal is writable");
}

async fn fail(_: Context, (kind, message): (String, String)) -> Result<(), TaskError> {
    Err(TaskError::fail(&kind, message))
}

async fn retry(context: Context, times: Times) -> Result<u32, TaskError> {
    if context.retries() < times.times {
        let cause = Failure::new("builtins", "ValueError", &format!("attempt {}", context.retries()));
        return Err(TaskError::retry_in(Duration::from_secs_f64(times.delay), cause));
    }
    Ok(context.retries())
}

async fn progress(context: Context, (steps,): (u32,)) -> Result<Value, TaskError> {
    for step in 1..=steps {
        context.update_state(PROGRESS, json!({"progress": step, "total": steps})).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(json!({"steps": steps}))
}

async fn polite(context: Context, (seconds,): (f64,)) -> Result<&'static str, TaskError> {
    tokio::select! {
        _ = context.cancellation().cancelled() => Ok("told to end"),
        () = tokio::time::sleep(Duration::from_secs_f64(seconds)) => Ok("ended by itself"),
    }
}

async fn reject(context: Context, reject: Requeue) -> Result<&'static str, TaskError> {
    if reject.requeue && context.delivery_info().redelivered {
        return Ok("second delivery");
    }
    Err(TaskError::Reject { reason: "no thanks".to_owned(), requeue: reject.requeue })
}

async fn spawn(context: Context, (count,): (i64,)) -> Result<i64, TaskError> {
    for number in 0..count {
        context.submit(context.signature("rs.add", (number, number), json!({}))?).await?;
    }
    Ok(count)
}

fn register(tasks: &mut Registry) {
    tasks.task("rs.add", async |_: Context, two: Two| Ok(two.x + two.y));
    tasks.task("rs.mul", async |_: Context, two: Two| Ok(two.x * two.y));
    tasks.task("rs.xsum", async |_: Context, list: Numbers| Ok(list.numbers.iter().sum::<i64>()));
    tasks.task("rs.identity", async |_: Context, (value,): (Box<RawValue>,)| Ok(value));
    tasks.task("rs.noop", async |_: Context, _: IgnoredAny| Ok(()));
    tasks.task("rs.sleep", sleep);
    tasks.task("rs.late", sleep).acks_late(true);
    tasks.task("rs.until", until);
    tasks.task("rs.until_late", until).acks_late(true);
    tasks.task("rs.work", work);
    tasks.task("rs.work_late", work).acks_late(true);
    tasks.task("rs.fail", fail);
    tasks.task("rs.panic", async |_: Context, (): ()| -> Result<(), TaskError> { panic!("on purpose") });
    tasks.task("rs.retry", retry).retry(RetryPolicy { max: 10, ..RetryPolicy::default() });
    tasks.task("rs.retry_exhausted", retry).retry(RetryPolicy { max: 1, ..RetryPolicy::default() });
    tasks.task("rs.progress", progress);
    tasks.task("rs.soft_limit", sleep).soft_time_limit(Duration::from_millis(300));
    tasks.task("rs.hard_limit", sleep).time_limit(Duration::from_millis(300));
    tasks.task("rs.polite", polite).soft_time_limit(Duration::from_millis(300));
    tasks.task("rs.reject", reject).acks_late(true);
    tasks.task("rs.spawn", spawn);
    tasks.task("rs.limited", async |_: Context, (number,): (i64,)| Ok(number)).rate_limit("4/s");
    tasks.blocking("rs.blocking", |context: Context, two: Two| {
        context.update_state_blocking(PROGRESS, json!({"progress": 1}))?;
        Ok(two.x - two.y)
    });
    tasks.command("rs.shell", Command::new("sh").argument("-c").argument(SHELL).argument("sh"));
    tasks.command("rs.shell_sleep", Command::new("sh").argument("-c").argument("sleep 30; echo 1"));
}

/// The same kinds of work in child processes.
fn register_children(tasks: &mut Registry) {
    tasks.child("rs.child_add", async |_: Context, two: Two| Ok(two.x + two.y));
    tasks.child("rs.child_sleep", sleep);
    tasks.child("rs.child_info", async |context: Context, _: IgnoredAny| {
        let (pid, parent) = (std::process::id(), std::os::unix::process::parent_id());
        Ok(json!({"pid": pid, "parent": parent, "id": context.id().as_str(), "hostname": context.hostname()}))
    });
    tasks.child("rs.child_progress", progress);
    tasks.child("rs.child_spawn", spawn);
    tasks.child("rs.child_retry", retry).retry(RetryPolicy { max: 10, ..RetryPolicy::default() });
    tasks.child("rs.child_fail", fail);
    tasks.child("rs.child_panic", async |_: Context, (): ()| -> Result<(), TaskError> { panic!("on purpose") });
    tasks.child("rs.child_polite", polite).soft_time_limit(Duration::from_millis(300));
    tasks.child("rs.child_soft", sleep).soft_time_limit(Duration::from_millis(300));
    tasks.child("rs.child_busy", busy).soft_time_limit(Duration::from_millis(300));
    tasks.child("rs.child_hard", busy).time_limit(Duration::from_millis(300));
    tasks.child("rs.child_abort", async |_: Context, _: IgnoredAny| -> Result<(), TaskError> { std::process::abort() });
    tasks.child("rs.child_exit", async |_: Context, (code,): (i32,)| -> Result<(), TaskError> {
        std::process::exit(code)
    });
    tasks.child("rs.child_kill", kill_self);
    tasks.child("rs.child_late", sleep).acks_late(true);
    tasks.child("rs.child_late_kill", kill_self).acks_late(true);
    tasks.child("rs.child_late_reject", kill_once).acks_late(true).reject_on_worker_lost(true);
    tasks.child("rs.child_eat", async |_: Context, (mib,): (usize,)| {
        Ok(vec![1_u8; mib << 20].iter().map(|one| u64::from(*one)).sum::<u64>())
    });
}

/// Never gives its thread back.
async fn busy(_: Context, (seconds,): (f64,)) -> Result<(), TaskError> {
    let until = std::time::Instant::now() + Duration::from_secs_f64(seconds);
    while std::time::Instant::now() < until {
        std::hint::spin_loop();
    }
    Ok(())
}

async fn kill_self(_: Context, _: IgnoredAny) -> Result<(), TaskError> {
    let id = std::process::id().to_string();
    let _ = std::process::Command::new("kill").args(["-9", &id]).status();
    std::future::pending().await
}

async fn kill_once(context: Context, _: IgnoredAny) -> Result<Value, TaskError> {
    if !context.delivery_info().redelivered {
        kill_self(context, IgnoredAny).await?;
    }
    Ok(json!({"redelivered": true}))
}

/// `$1` says what to do.
const SHELL: &str = r#"
case "$1" in
    fail) echo "it went wrong" >&2; exit 3 ;;
    die) kill -9 $$ ;;
    echo) cat ;;
    *) sleep 0.5; echo '{"progress": 1, "total": 2}'; echo 'not JSON'; echo "{\"hello\": \"$1\"}" ;;
esac
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_ansi(false).init();
    let said = |name: &str| std::env::var(name).ok();
    let number = |name: &str| said(name).and_then(|text| text.parse::<f64>().ok());
    let mut tasks = Registry::new();
    register(&mut tasks);
    register_children(&mut tasks);
    let queues = said("QUEUES").unwrap_or_else(|| "rust".to_owned());
    let prefix = |name: &str| said(name).unwrap_or_default();
    let (broker, backend) = (said("BROKER").ok_or("BROKER")?, said("BACKEND").ok_or("BACKEND")?);
    let worker = if broker.starts_with("amqp") {
        Builder::connect(&broker, &backend)?
    } else {
        let transport = Transport { global_keyprefix: prefix("KEY_PREFIX"), ..Transport::default() };
        let broker = Lists::new(BrokerConfig { link: LinkConfig::new(broker), transport })?;
        let link = LinkConfig::new(backend);
        Builder::new(broker, Backend::new(BackendConfig { link, key_prefix: prefix("RESULT_PREFIX") })?)
    };
    let mut worker = worker
        .registry(tasks)
        .queues(queue_names(queues.split(','))?)
        .default_queue(queue_names([queues.split(',').next().unwrap_or("rust")])?.remove(0))
        .hostname(said("HOSTNAME").as_deref().unwrap_or("rust@test"))
        .task_events(true);
    if let Some(slots) = number("CONCURRENCY") {
        worker = worker.concurrency(slots as usize);
    }
    if let Some(seconds) = number("VISIBILITY_TIMEOUT") {
        worker = worker.visibility_timeout(Duration::from_secs_f64(seconds));
    }
    if let Some(messages) = number("PREFETCH") {
        worker = worker.prefetch_multiplier(messages as usize);
    }
    if said("QUEUE_ORDER").as_deref() == Some("priority") {
        worker = worker.queue_order(QueueOrder::Priority);
    }
    if let Some(max) = number("AUTOSCALE") {
        worker = worker.autoscale(max as usize, 1);
    }
    if said("UNKNOWN_TASK").as_deref() == Some("requeue") {
        worker = worker.unknown_task(UnknownTask::Requeue);
    }
    if said("POOL").as_deref() == Some("prefork") {
        worker = worker.pool(Pool::Prefork);
    }
    let (tasks, memory) = (number("MAX_TASKS_PER_CHILD"), number("MAX_MEMORY_PER_CHILD"));
    worker = worker.child_limits(tasks.map(|tasks| tasks as u32), memory.map(|kib| kib as u64));
    worker = worker.max_deliveries(number("MAX_DELIVERIES").map(|most| most as u32));
    worker.run_until_signalled().await;
    Ok(())
}
