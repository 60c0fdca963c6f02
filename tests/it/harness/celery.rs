//! Unmodified Celery workers, of the newest version and of 5.4, running `tests/celery_app`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Redis;
use super::process::Process;
use super::wait::DEADLINE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// What `examples/celery-python/requirements.txt` pins.
    Latest,
    /// Celery 5.4.0 with kombu 5.4.2.
    Older,
    /// The latest Celery, on the newest Python that the machine has.
    NewestPython,
}

impl Version {
    pub fn python(self) -> PathBuf {
        let name = match self {
            Self::Latest => "celery-latest",
            Self::Older => "celery-older",
            Self::NewestPython => "celery-newest-python",
        };
        root().join(".venv").join(name).join("bin/python")
    }
}

/// A worker's command line and settings; the default is Celery's own, with two processes.
#[derive(Clone)]
pub struct CeleryOptions {
    pub version: Version,
    pub hostname: String,
    /// Comma-separated, as `-Q` takes them.
    pub queues: String,
    pub concurrency: u32,
    pub pool: &'static str,
    /// `-E`: off by default, as in Celery; the gateway switches events on itself.
    pub events: bool,
    /// Whether it will report that events were switched on; workers without heartbeat and gossip never do.
    pub awaits_events: bool,
    /// Any Celery settings, applied last.
    pub settings: Value,
    pub environment: Vec<(String, String)>,
    pub arguments: Vec<String>,
}

impl Default for CeleryOptions {
    fn default() -> Self {
        Self {
            version: Version::Latest,
            hostname: "w1@test".into(),
            queues: "celery,crawl,document_processing,image_analysis".into(),
            concurrency: 2,
            pool: "prefork",
            events: false,
            awaits_events: true,
            settings: Value::Object(serde_json::Map::new()),
            environment: Vec::new(),
            arguments: Vec::new(),
        }
    }
}

impl CeleryOptions {
    /// Python finds what is installed beside Celery: pools and serializers that some fleets use.
    pub fn with_packages(mut self) -> Self {
        self.environment.push(("PYTHONPATH".to_owned(), packages("fleets")));
        self
    }
}

/// Where the packages of an environment of `tests/setup.sh` lie, as `PYTHONPATH` takes it.
pub fn packages(environment: &str) -> String {
    let lib = std::fs::read_dir(root().join(".venv").join(environment).join("lib")).expect("run tests/setup.sh first");
    let paths = lib.flatten().map(|version| version.path().join("site-packages").display().to_string());
    paths.collect::<Vec<_>>().join(":")
}

pub struct Celery {
    process: Process,
    pub options: CeleryOptions,
    broker: String,
    backend: String,
}

impl Celery {
    /// Starts a worker on `redis` (broker /0, backend /1) and waits until it consumes.
    pub fn start(redis: &Redis, options: CeleryOptions) -> Self {
        Self::start_at(&redis.url(0), &redis.url(1), options)
    }

    /// As [`Celery::start`], for any Redis, also the one built into `taskgate dev`.
    pub fn start_at(broker: &str, backend: &str, options: CeleryOptions) -> Self {
        let mut this = Self::launch(broker, backend, options);
        this.wait_until_ready();
        this
    }

    /// Does not wait; several workers boot faster side by side.
    pub fn launch(broker: &str, backend: &str, options: CeleryOptions) -> Self {
        let process = start(broker, backend, &options);
        Self { process, options, broker: broker.to_owned(), backend: backend.to_owned() }
    }

    /// Whether it has ended by itself, or was killed.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Waits until the worker logs that it is ready.
    pub fn wait_until_ready(&mut self) {
        self.process.wait_for_log(" ready.", DEADLINE);
    }

    /// Waits until its main process knows that a child has begun a task, which it logs only with `DEMO_LOG_LEVEL=DEBUG`.
    pub fn wait_for_a_start(&mut self) {
        self.process.wait_for_log("Task accepted: ", DEADLINE);
    }

    /// Waits until it sends task events, which the gateway has to ask for when `-E` is off.
    pub fn wait_for_events(&mut self) {
        if !self.options.events && self.options.awaits_events {
            self.process.wait_for_log("enabled by remote", DEADLINE);
        }
    }

    pub fn id(&self) -> i32 {
        self.process.id()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn show_log(&self) {
        self.process.show_log();
    }

    /// Kills the worker with its pool processes by SIGKILL, and waits for their end.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM: a warm shutdown, waited for.
    pub fn stop(&mut self) {
        self.process.signal(libc::SIGTERM);
        self.process.wait(DEADLINE);
    }

    /// Stops the worker by SIGSTOP until [`Celery::resume`].
    pub fn pause(&self) {
        self.process.signal_group(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.process.signal_group(libc::SIGCONT);
    }

    /// Kills it if it runs, and starts it again with the same options.
    pub fn restart(&mut self) {
        self.relaunch();
        self.wait_until_ready();
    }

    /// As [`Celery::restart`], without waiting.
    pub fn relaunch(&mut self) {
        self.process.kill();
        self.process = start(&self.broker, &self.backend, &self.options);
    }
}

/// The output of a Python program that uses the tests' Celery application as a client: `app` is imported.
///
/// # Panics
/// When the program fails.
pub fn client(version: Version, broker: &str, backend: &str, program: &str) -> String {
    client_with(version, broker, backend, &Value::Null, program)
}

/// As [`client`], with the settings of the fleet.
///
/// # Panics
/// When the program fails.
pub fn client_with(version: Version, broker: &str, backend: &str, settings: &Value, program: &str) -> String {
    let mut command = Command::new(version.python());
    command.args(["-c", &format!("from app import *\n{program}")]).current_dir(root().join("tests/celery_app"));
    if !settings.is_null() {
        command.env("DEMO_CONF", settings.to_string());
    }
    environment(&mut command, broker, backend);
    let done = command.output().expect("run tests/setup.sh first");
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// gevent and eventlet must patch the standard library before Celery is imported, and some variables belong to the interpreter: these
/// workers get an interpreter of their own.
fn start(broker: &str, backend: &str, options: &CeleryOptions) -> Process {
    let command = command(broker, backend, options);
    let is_patched = ["gevent", "eventlet"].contains(&options.pool);
    if is_patched || options.environment.iter().any(|(name, _)| name.starts_with("PYTHON")) {
        return Process::start("celery", command);
    }
    Process::fork("celery", &command)
}

fn command(broker: &str, backend: &str, options: &CeleryOptions) -> Command {
    let mut command = Command::new(options.version.python());
    command
        .args(["-m", "celery", "-A", "app", "worker", "-l", "INFO", "-n", &options.hostname, "-Q", &options.queues])
        .args(["-P", options.pool, "-c", &options.concurrency.to_string()])
        .args(options.events.then_some("-E"))
        .args(&options.arguments)
        .current_dir(root().join("tests/celery_app"))
        .env("DEMO_CONF", options.settings.to_string());
    environment(&mut command, broker, backend);
    command.envs(options.environment.iter().cloned());
    command
}

fn environment(command: &mut Command, broker: &str, backend: &str) {
    command
        .env("CELERY_BROKER_URL", broker)
        .env("CELERY_RESULT_BACKEND", backend)
        .env("SAMPLE_STATE", super::process::run_folder().join("sample-state.db"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1")
        // Celery warns a superuser on every start; the tests may well run as one.
        .env("C_FORCE_ROOT", "1");
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
