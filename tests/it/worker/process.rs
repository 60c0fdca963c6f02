//! A private Rust worker that runs `tests/worker_app`.

use std::process::Command;

use serde_json::Value;

use crate::harness::celery::client_with;
use crate::harness::process::Process;
use crate::harness::wait::DEADLINE;
use crate::harness::{Redis, RedisOptions, Version};

/// A worker with its Redis.
pub struct Rust {
    pub process: Process,
    pub redis: Redis,
    environment: Vec<(String, String)>,
}

impl Rust {
    pub fn start() -> Self {
        Self::with(RedisOptions::default(), &[])
    }

    /// With settings in its environment, see `tests/worker_app`.
    pub fn with(redis: RedisOptions, environment: &[(&str, &str)]) -> Self {
        let redis = Redis::start(redis);
        let environment: Vec<_> = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let process = launch(&redis.url(0), &redis.url(1), &environment);
        Self { process, redis, environment }
    }

    /// The worker was killed or has stopped: starts it again.
    pub fn restart(&mut self) {
        self.process = launch(&self.redis.url(0), &self.redis.url(1), &self.environment);
    }

    /// What a Celery client prints that runs `program`, the last line as JSON.
    pub fn ask(&self, program: &str) -> Value {
        self.ask_with(Version::Latest, program)
    }

    pub fn ask_with(&self, version: Version, program: &str) -> Value {
        ask(version, &self.redis.url(0), &self.redis.url(1), &Value::Null, program)
    }

    /// The number of reserved messages.
    pub fn unacked(&self) -> usize {
        self.redis.command(0, &["HLEN", "unacked"])
    }

    pub fn waiting(&self) -> usize {
        self.redis.command(0, &["LLEN", "rust"])
    }
}

/// Starts a worker, and waits until it is ready.
pub fn launch(broker: &str, backend: &str, environment: &[(String, String)]) -> Process {
    let mut command = Command::new(binary());
    command.env("BROKER", broker).env("BACKEND", backend).env("RUST_LOG", "info");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let mut process = Process::start("rust-worker", command);
    process.wait_for_log("is ready", DEADLINE);
    process
}

/// What a Celery client with these settings prints that runs `program`, the last line as JSON.
pub fn ask(version: Version, broker: &str, backend: &str, settings: &Value, program: &str) -> Value {
    let printed = client_with(version, broker, backend, settings, &format!("{PRELUDE}\n{program}"));
    let last = printed.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

/// Cargo builds examples beside the tests.
fn binary() -> std::path::PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    test.parent().and_then(|deps| deps.parent()).expect("target/debug").join("examples/demo-worker")
}

/// Short names for frequent steps of the programs.
const PRELUDE: &str = r#"
import json, time
from celery import chain, chord, group, signature
from celery.exceptions import TimeoutError

def rs(name, *args, **options):
    return signature("rs." + name, args=args, queue="rust", **options)

def py(name, *args, **options):
    return signature("demo." + name, args=args, queue="celery", **options)

def send(name, *args, **options):
    kwargs = options.pop("kwargs", None)
    return app.send_task("rs." + name, args, kwargs, queue="rust", **options)

def watched(name, *args, **options):
    """Later, so that the client listens before anything happens."""
    return send(name, *args, countdown=2, **options)

def failure(result, timeout=90):
    try:
        return result.get(timeout=timeout)
    except Exception as error:
        return [type(error).__name__, type(error).__module__, str(error)]

def eventually(fact, timeout=90):
    deadline = time.time() + timeout
    while time.time() < deadline:
        value = fact()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen")

def nodes(method):
    """What the Rust worker answers to an inspect command; nothing counts as an empty list."""
    return (getattr(app.control.inspect(destination=["rust@test"], timeout=20), method)() or {}).get("rust@test", [])

def tell(value):
    print(json.dumps(value))
"#;
