//! A private redis-server.

use std::process::Command;

use super::process::{Process, folder};
use super::{ports, wait};

/// How the server is started; the default forgets everything at its end, like a cache.
#[derive(Clone, Default)]
pub struct RedisOptions {
    /// Keeps data across a restart (`appendonly yes`, `appendfsync always`).
    pub appendonly: bool,
    pub password: Option<String>,
    /// Further command line.
    pub arguments: Vec<String>,
    /// Another server of the protocol than the `redis-server` in the PATH.
    pub program: Option<std::path::PathBuf>,
}

pub struct Redis {
    process: Process,
    options: RedisOptions,
    directory: std::path::PathBuf,
    pub port: u16,
}

impl Redis {
    pub fn id(&self) -> i32 {
        self.process.id()
    }

    pub fn start(options: RedisOptions) -> Self {
        let directory = folder("redis-data");
        let port = ports::free();
        let process = launch(&options, &directory, port);
        let this = Self { process, options, directory, port };
        this.wait_until_ready();
        this
    }

    /// `redis://127.0.0.1:PORT/database`, with the password if there is one.
    pub fn url(&self, database: u8) -> String {
        let password = self.options.password.as_ref().map(|word| format!(":{word}@")).unwrap_or_default();
        format!("redis://{password}127.0.0.1:{}/{database}", self.port)
    }

    /// SIGKILL: without appendonly everything is lost.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts again on the same port, with what appendonly kept.
    pub fn restart(&mut self) {
        self.process.kill();
        let _ = std::fs::remove_file(self.directory.join("dump.rdb"));
        self.process = launch(&self.options, &self.directory, self.port);
        self.wait_until_ready();
    }

    /// The data as they are now, to come back to with [`Redis::restore`].
    pub fn snapshot(&self) -> std::path::PathBuf {
        self.command::<String>(0, &["SAVE"]);
        let copy = folder("redis-snapshot").join("dump.rdb");
        std::fs::rename(self.directory.join("dump.rdb"), &copy).expect("SAVE wrote it");
        copy
    }

    /// Kills the server, and starts it with older data.
    pub fn restore(&mut self, snapshot: &std::path::Path) {
        self.restore_slowly(snapshot, &[]);
        self.wait_until_ready();
    }

    /// As [`Redis::restore`], with a command line of its own, and without waiting.
    pub fn restore_slowly(&mut self, snapshot: &std::path::Path, arguments: &[&str]) {
        assert!(!self.options.appendonly, "an append-only file is read instead of a snapshot");
        self.process.kill();
        std::fs::copy(snapshot, self.directory.join("dump.rdb")).expect("the folder is ours");
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        let options = RedisOptions { arguments, ..self.options.clone() };
        self.process = launch(&options, &self.directory, self.port);
    }

    /// Stops answering without closing a connection, until [`Redis::resume`].
    pub fn pause(&self) {
        self.process.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.process.signal(libc::SIGCONT);
    }

    /// One command on its own connection.
    ///
    /// # Panics
    /// When the server refuses it or is away.
    pub fn command<T: redis::FromRedisValue>(&self, database: u8, words: &[&str]) -> T {
        let client = redis::Client::open(self.url(database)).expect("the address is ours");
        let mut connection = client.get_connection().expect("redis-server answers");
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub fn wait_until_ready(&self) {
        let client = redis::Client::open(self.url(0)).expect("the address is ours");
        wait::blocking(wait::DEADLINE, "redis-server answers", || {
            let mut connection = client.get_connection().ok()?;
            redis::cmd("PING").query::<String>(&mut connection).ok()
        });
    }
}

fn launch(options: &RedisOptions, directory: &std::path::Path, port: u16) -> Process {
    let mut command = Command::new(options.program.as_deref().unwrap_or_else(|| std::path::Path::new("redis-server")));
    command.args(["--bind", "127.0.0.1", "--save", "", "--port"]).arg(port.to_string()).arg("--dir").arg(directory);
    if options.appendonly {
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
    }
    if let Some(password) = &options.password {
        command.args(["--requirepass", password]);
    }
    command.args(&options.arguments);
    Process::start("redis-server", command)
}
