//! The `taskgate` binary as a process: what a user runs is what is tested.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use toml::{Table, Value};

use super::process::{Process, folder};
use super::{Http, celery, ports, unix, wait};

/// Cargo names it to tests; an example lies one folder below it.
pub fn binary() -> PathBuf {
    option_env!("CARGO_BIN_EXE_taskgate").map_or_else(
        || {
            let example = std::env::current_exe().expect("the program has a path");
            example.parent().and_then(std::path::Path::parent).expect("target/debug").join("taskgate")
        },
        PathBuf::from,
    )
}

/// How long a role may take until it is ready.
const START: Duration = wait::DEADLINE;

/// How long a subcommand may take: on a crowded machine a second becomes a minute.
const LONGEST_RUN: Duration = Duration::from_secs(300);

/// A running `taskgate` with its configuration file, its address and its log.
pub struct Gateway {
    process: Process,
    directory: PathBuf,
    role: Vec<String>,
    environment: Vec<(String, String)>,
    pub port: u16,
}

impl Gateway {
    /// `taskgate serve` with the sample catalog, `demo.*` allowed, and `extra` (TOML) merged over it; waits for `/readyz`.
    pub fn serve(database: &str, broker: &str, backend: &str, extra: &str) -> Self {
        Self::serve_with(&[], database, broker, backend, extra)
    }

    /// As [`Gateway::serve`], with this environment.
    pub fn serve_with(environment: &[(&str, &str)], database: &str, broker: &str, backend: &str, extra: &str) -> Self {
        let port = ports::free();
        let config = config(port, database, broker, backend, extra);
        let mut this = Self::start(&["serve"], port, Some(&config), environment);
        this.wait_until_ready();
        this
    }

    /// As [`Gateway::serve`], but returns at once: for starts without a Redis or a database.
    pub fn launch(database: &str, broker: &str, backend: &str, extra: &str) -> Self {
        let port = ports::free();
        let config = config(port, database, broker, backend, extra);
        Self::start(&["serve"], port, Some(&config), &[])
    }

    /// Any role, with an optional configuration file and environment, in a folder of its own.
    pub fn start(role: &[&str], port: u16, config: Option<&Table>, environment: &[(&str, &str)]) -> Self {
        let directory = folder("taskgate");
        if let Some(config) = config {
            std::fs::write(directory.join("taskgate.toml"), config.to_string()).expect("the folder is ours");
        }
        let mut role: Vec<String> = role.iter().map(|word| (*word).to_owned()).collect();
        if config.is_some() {
            role.extend(["--config".to_owned(), "taskgate.toml".to_owned()]);
        }
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let process = Process::start("taskgate", command(&role, &directory, &environment));
        Self { process, directory, role, environment, port }
    }

    /// A client of its own: connections belong to the runtime of the test that made them.
    pub fn http(&self) -> Http {
        Http::new(format!("http://127.0.0.1:{}", self.port))
    }

    /// Waits for 200 from `/readyz`.
    ///
    /// # Panics
    /// With the log, when it does not come or the process ends.
    pub fn wait_until_ready(&mut self) {
        self.wait_for("/readyz", 200);
    }

    /// Waits until `path` answers with `status`.
    pub fn wait_for(&mut self, path: &str, status: u16) {
        let port = self.port;
        wait::blocking(START, &format!("taskgate answers {path} with {status}"), || {
            if let Some(ended) = self.process.ended() {
                panic!("taskgate ended with {ended}:\n{}", self.process.log());
            }
            (probe(port, path) == Some(status)).then_some(())
        });
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn show_log(&self) {
        self.process.show_log();
    }

    pub fn id(&self) -> i32 {
        self.process.id()
    }

    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// Waits for the log to contain `text`.
    pub fn wait_for_log(&mut self, text: &str) {
        self.process.wait_for_log(text, START);
    }

    /// Kills the process by SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; the exit code of an end within `deadline`.
    pub fn stop(&mut self, deadline: Duration) -> Option<i32> {
        self.process.signal(libc::SIGTERM);
        self.process.wait(deadline).code()
    }

    /// The exit code of an end that comes by itself.
    pub fn wait(&mut self, deadline: Duration) -> Option<i32> {
        self.process.wait(deadline).code()
    }

    /// Whether the process is gone.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Kills it if it runs, and starts it again: same port, configuration and folder.
    pub fn restart(&mut self) {
        self.relaunch();
        self.wait_until_ready();
    }

    /// The next start is without the variables of this one.
    pub fn forget_environment(&mut self) {
        self.environment.clear();
    }

    /// As [`Gateway::restart`], without waiting.
    pub fn relaunch(&mut self) {
        self.process.kill();
        self.process = Process::start("taskgate", command(&self.role, &self.directory, &self.environment));
    }
}

/// The configuration that tests start from, with `extra` merged over it.
pub fn config(port: u16, database: &str, broker: &str, backend: &str, extra: &str) -> Table {
    let sample = std::fs::read_to_string(celery::root().join("examples/compose/taskgate.toml"))
        .expect("the sample configuration is part of the repository");
    let mut config: Table = sample.parse().expect("the sample configuration is TOML");
    // A crawl that is due by the clock would find what a test is about to look for.
    for schedule in config["schedules"].as_array_mut().expect("the sample has schedules") {
        schedule.as_table_mut().expect("a table").insert("paused".into(), true.into());
    }
    let ours = format!(
        "auth = 'none'\n\
         http.listen = '127.0.0.1:{port}'\n\
         database.url = '{database}'\n\
         broker.url = '{broker}'\n\
         backend.url = '{backend}'\n\
         stores.default.url = 'file:files'\n\
         submit.allow = ['demo.*', 'tasks.*']\n"
    );
    merge(&mut config, ours.parse().expect("written above"));
    if database.starts_with("postgres") {
        // A gateway opens all it may have when it starts, and each costs the server as much as a hundred statements.
        merge(&mut config, "database.max_connections = 6".parse().expect("written here"));
    }
    merge(&mut config, extra.parse().unwrap_or_else(|error| panic!("{error} in {extra}")));
    config
}

/// Tables are merged, lists of tables are joined, anything else is replaced.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (Some(Value::Array(into)), Value::Array(from)) if from.iter().all(Value::is_table) => into.extend(from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// `taskgate migrate` on one database.
///
/// # Panics
/// With its output, when it fails.
pub fn migrate(database: &str) {
    let done = run(&["migrate"], &[("DATABASE_URL", database)]);
    assert!(done.status.success(), "taskgate migrate: {}", String::from_utf8_lossy(&done.stderr));
}

/// A subcommand run to its end.
///
/// # Panics
/// When it does not end.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = subcommand(arguments, environment);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the binary was built");
    let deadline = Deadline::of(child.id());
    let done = child.wait_with_output().expect("the child is ours");
    deadline.was_kept(arguments);
    done
}

/// Kills a subcommand that does not end by itself: the reader of its output would wait for ever.
struct Deadline {
    _alive: Sender<()>,
    has_passed: Arc<AtomicBool>,
}

impl Deadline {
    fn of(child: u32) -> Self {
        let (alive, ended) = channel::<()>();
        let has_passed = Arc::new(AtomicBool::new(false));
        let passed = Arc::clone(&has_passed);
        std::thread::spawn(move || {
            if ended.recv_timeout(LONGEST_RUN) == Err(RecvTimeoutError::Timeout) {
                passed.store(true, Ordering::SeqCst);
                unix::kill(child as i32, libc::SIGKILL);
            }
        });
        Self { _alive: alive, has_passed }
    }

    fn was_kept(self, arguments: &[&str]) {
        let has_passed = self.has_passed.load(Ordering::SeqCst);
        assert!(!has_passed, "taskgate {arguments:?} did not end within {LONGEST_RUN:?}");
    }
}

/// As [`run`], on a terminal of so many columns: the exit code, and all that was written to the terminal.
pub fn run_on_terminal(arguments: &[&str], environment: &[(&str, &str)], columns: u16) -> (Option<i32>, String) {
    let (mut near, far) = unix::terminal(24, columns);
    let mut command = subcommand(arguments, &[&[("TERM", "xterm-256color")], environment].concat());
    command.stdin(Stdio::null()).stderr(far.try_clone().expect("it is open")).stdout(far);
    let mut child = command.spawn().expect("the binary was built");
    let deadline = Deadline::of(child.id());
    // It has the program's side of the terminal too.
    drop(command);
    let mut written = Vec::new();
    // The end of a terminal is an error.
    let _ = near.read_to_end(&mut written);
    let status = child.wait().expect("the child is ours");
    deadline.was_kept(arguments);
    (status.code(), String::from_utf8(written).expect("the client writes UTF-8"))
}

fn subcommand(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    command(&arguments, &folder("run"), &environment)
}

fn command(arguments: &[String], directory: &std::path::Path, environment: &[(String, String)]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(directory);
    for (name, _) in std::env::vars() {
        if name.starts_with("TASKGATE_") || name.starts_with("CELERY_") || name == "DATABASE_URL" {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").envs(environment.iter().cloned());
    command
}

/// The status of one plain GET, outside of any runtime; `None` while nobody answers.
pub fn probe(port: u16, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}
