//! Compares the Rust worker with Celery's prefork worker: no-op tasks per second, results stored, events on, two slots each, in one run.
//!
//! Both empty a queue that was filled before. The rate is measured from the first tenth of the results to the last, so that the start of the
//! workers does not count. Then measures a thousand sleeping tasks and an idle worker. Needs `redis-server`, `.venv/celery-latest` and the
//! release build of the `demo-worker` example.

#![expect(clippy::disallowed_methods, reason = "a measuring program without a runtime")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CELERY_TASKS: u64 = 5_000;
const RUST_TASKS: u64 = 100_000;
/// Message bodies: no arguments, and a sleep of three seconds.
const NOTHING: &str =
    "W1tdLCB7fSwgeyJjYWxsYmFja3MiOiBudWxsLCAiZXJyYmFja3MiOiBudWxsLCAiY2hhaW4iOiBudWxsLCAiY2hvcmQiOiBudWxsfV0=";
const SLEEP: &str = "W1szXSwge30sIHt9XQ==";
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = port.expect("a free port").port();
    let mut redis = Command::new("redis-server");
    let _redis = start(redis.args(["--save", "", "--port", &port.to_string()]));
    let url = format!("redis://127.0.0.1:{port}");
    let mut connection = eventually(|| redis::Client::open(url.as_str()).ok()?.get_connection().ok());

    let mut celery = Command::new(root.join(".venv/celery-latest/bin/celery"));
    celery.args(["-A", "app", "worker", "-P", "prefork", "-c", "2", "-E", "-Q", "bench", "-l", "ERROR"]);
    celery.env("CELERY_BROKER_URL", format!("{url}/0")).env("CELERY_RESULT_BACKEND", format!("{url}/1"));
    celery.current_dir(root.join("tests/celery_app"));
    let python = rate(&mut connection, "demo.null", CELERY_TASKS, &mut celery);
    println!("celery prefork, 2 processes: {python:.0} tasks/s");

    let mut rust = Command::new(example());
    rust.env("BROKER", format!("{url}/0")).env("BACKEND", format!("{url}/1"));
    rust.env("QUEUES", "bench").env("CONCURRENCY", "2").env("RUST_LOG", "error");
    redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut connection).expect("redis answers");
    let ours = rate(&mut connection, "rs.noop", RUST_TASKS, &mut rust);
    println!("taskgate, 2 slots:           {ours:.0} tasks/s");
    println!("ratio:                       {:.1}", ours / python);
    commands(&mut connection);
    sleeping(&mut connection, &mut rust);
}

/// Prints Redis's own statistics of commands for each task.
fn commands(connection: &mut redis::Connection) {
    let stats: String = redis::cmd("INFO").arg("commandstats").query(connection).expect("redis answers");
    for line in stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
        let Some((name, rest)) = line.split_once(":calls=") else { continue };
        let Some((calls, rest)) = rest.split_once(",usec=") else { continue };
        let micros = rest.split(',').next().unwrap_or("0");
        let each = |text: &str| text.parse::<f64>().unwrap_or(0.0) / RUST_TASKS as f64;
        if each(calls) > 0.01 {
            println!("  {name:<12} {:>6.2} calls, {:>6.2} µs for each task", each(calls), each(micros));
        }
    }
}

/// Measures the memory of a thousand tasks that sleep at once, and the processor time of an idle worker.
fn sleeping(connection: &mut redis::Connection, worker: &mut Command) {
    redis::cmd("FLUSHALL").exec(connection).expect("redis answers");
    fill_with(connection, "rs.sleep", 1_000, SLEEP);
    let worker = start(worker.env("CONCURRENCY", "1000"));
    eventually(|| done(connection).filter(|done| *done >= 1_000));
    let (pid, patience) = (worker.0.id(), Duration::from_secs(5));
    println!("1,000 sleeping tasks:        {:.0} MB at most", peak_kib(pid) / 1024.0);
    let before = ticks(pid);
    std::thread::sleep(patience);
    println!("idle:                        {:.1} % of a processor", (ticks(pid) - before) / patience.as_secs_f64());
}

fn peak_kib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0)
}

/// Hundredths of a second of processor time.
fn ticks(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0)
}

/// The number of stored results.
fn done(connection: &mut redis::Connection) -> Option<u64> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("SELECT").arg(1).ignore().cmd("DBSIZE").cmd("SELECT").arg(0).ignore();
    pipeline.query::<(u64,)>(connection).ok().map(|(done,)| done)
}

/// Fills the queue, starts the worker, watches the results arrive.
fn rate(connection: &mut redis::Connection, task: &str, count: u64, worker: &mut Command) -> f64 {
    redis::cmd("FLUSHALL").exec(connection).expect("redis answers");
    fill(connection, task, count);
    let _worker = start(worker);
    let first = eventually(|| done(connection).filter(|done| *done >= count / 10));
    let started = Instant::now();
    let last = eventually(|| done(connection).filter(|done| *done >= count));
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    let tasks = (last - first) as f64;
    tasks / started.elapsed().as_secs_f64()
}

fn fill(connection: &mut redis::Connection, task: &str, count: u64) {
    fill_with(connection, task, count, NOTHING);
}

fn fill_with(connection: &mut redis::Connection, task: &str, count: u64, body: &str) {
    for chunk in (0..count).collect::<Vec<_>>().chunks(1_000) {
        let mut pipeline = redis::pipe();
        for number in chunk {
            let id = format!("00000000-0000-4000-8000-{number:012}");
            let message = format!(
                r#"{{"body": "{body}", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"lang": "py", "task": "{task}", "id": "{id}", "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [null, null], "root_id": "{id}", "parent_id": null, "argsrepr": "()", "kwargsrepr": "{{}}", "origin": "gen1@bench", "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {{}}}}, "properties": {{"correlation_id": "{id}", "reply_to": "{id}", "delivery_mode": 2, "delivery_info": {{"exchange": "", "routing_key": "bench"}}, "priority": 0, "body_encoding": "base64", "delivery_tag": "{id}"}}}}"#
            );
            pipeline.cmd("LPUSH").arg("bench").arg(message).ignore();
        }
        pipeline.exec(connection).expect("redis answers");
    }
}

fn start(command: &mut Command) -> Running {
    let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Running(started.unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// Cargo builds examples beside the benches.
fn example() -> PathBuf {
    let bench = std::env::current_exe().expect("the bench has a path");
    bench.parent().and_then(|deps| deps.parent()).expect("target/release").join("examples/demo-worker")
}

fn eventually<T>(mut fact: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not happen in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
