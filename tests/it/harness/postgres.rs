//! One PostgreSQL cluster per run, and a database per gateway, copied from a template that has been migrated once.
//!
//! `fsync` is off: tests kill taskgate, Redis and workers, not the machine. Autovacuum is off, too, because it would visit each of the
//! hundreds of databases every minute. PostgreSQL refuses to run as root, so then its processes run as the user that owns the packages
//! (`postgres`), or `nobody`.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::{Process, folder};
use super::{gateway, ports, unix, wait};

const TEMPLATE: &str = "migrated";

pub struct Cluster {
    process: Process,
    directory: PathBuf,
    port: u16,
    settings: &'static [&'static str],
    /// The folder of the server's programs, where it is not the newest of the machine.
    programs: Option<PathBuf>,
}

/// The cluster of this run, started by the first caller.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

impl Cluster {
    /// A cluster of its own, for tests that stop it.
    pub fn start() -> Self {
        Self::start_with(&["fsync=off", "full_page_writes=off", "autovacuum=off"])
    }

    /// A cluster that flushes asynchronous commits much later, so that [`Cluster::stop`] undoes them.
    pub fn start_forgetful() -> Self {
        Self::start_with(&["fsync=off", "full_page_writes=off", "wal_writer_delay=10s"])
    }

    /// A cluster that loses nothing, for measurements. Like one that has run for a while it has the files of its WAL already: a new
    /// cluster fills each with zeros when it needs it, and every commit waits twenty milliseconds for that.
    pub fn start_durable() -> Self {
        let this = Self::start_with(&["min_wal_size=2GB", "max_wal_size=4GB"]);
        this.execute(
            "do $$ begin for segment in 1..100 loop perform pg_logical_emit_message(false, 'fill', ''); \
             perform pg_switch_wal(); end loop; end $$",
        );
        this.execute("checkpoint");
        this
    }

    /// Of another version: the server's programs are in `programs`.
    pub fn start_from(programs: PathBuf) -> Self {
        Self::launch(&["fsync=off", "full_page_writes=off"], Some(programs))
    }

    /// A streaming replica of this one, with all that it has so far.
    pub fn follow(&self) -> Self {
        let directory = folder("replica");
        if let Some((uid, gid)) = unprivileged() {
            chown(&directory, Some(uid), Some(gid)).expect("root may give its folder away");
        }
        let mut command = Command::new(server("pg_basebackup", self.programs.as_deref()));
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            "postgres",
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
        ]);
        command.arg("--no-sync").arg("-D").arg(directory.join("data"));
        let done = demoted(command).output().expect("pg_basebackup starts");
        assert!(done.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&done.stderr));
        let (port, settings) = (ports::free(), self.settings);
        let process = launch(&directory, port, settings, self.programs.as_deref());
        let this = Self { process, directory, port, settings, programs: self.programs.clone() };
        this.wait_until_ready();
        this
    }

    fn start_with(settings: &'static [&'static str]) -> Self {
        Self::launch(settings, None)
    }

    fn launch(settings: &'static [&'static str], programs: Option<PathBuf>) -> Self {
        let directory = folder("postgres");
        if let Some((uid, gid)) = unprivileged() {
            chown(&directory, Some(uid), Some(gid)).expect("root may give its folder away");
        }
        initdb(&directory.join("data"), programs.as_deref());
        let port = ports::free();
        let process = launch(&directory, port, settings, programs.as_deref());
        let this = Self { process, directory, port, settings, programs };
        this.wait_until_ready();
        this
    }

    /// An immediate shutdown: every connection breaks, committed data stays.
    pub fn stop(&mut self) {
        self.process.signal(libc::SIGQUIT);
        self.process.wait(wait::DEADLINE);
    }

    /// Starts again after [`Cluster::stop`], on the same port with the same data.
    pub fn restart(&mut self) {
        self.process = launch(&self.directory, self.port, self.settings, self.programs.as_deref());
        self.wait_until_ready();
    }

    pub fn id(&self) -> i32 {
        self.process.id()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of a new database that has all migrations.
    pub fn migrated_database(&self) -> String {
        static MIGRATED: OnceLock<()> = OnceLock::new();
        MIGRATED.get_or_init(|| {
            self.execute(&format!("create database {TEMPLATE}"));
            gateway::migrate(&self.url(TEMPLATE));
        });
        self.create(&format!("template {TEMPLATE}"))
    }

    /// The URL of a new database without any table.
    pub fn empty_database(&self) -> String {
        self.create("template template0")
    }

    fn create(&self, origin: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("create database {name} {origin}"));
        self.url(&name)
    }

    fn execute(&self, sql: &str) {
        let done = self.psql(sql).output().expect("psql starts");
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn psql(&self, sql: &str) -> Command {
        let mut command = Command::new(program("psql"));
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]).arg(self.url("postgres"));
        command
    }

    fn wait_until_ready(&self) {
        wait::blocking(wait::DEADLINE, "PostgreSQL answers", || {
            let done = self.psql("select 1").stdout(Stdio::null()).stderr(Stdio::null()).status();
            done.expect("psql starts").success().then_some(())
        });
    }
}

/// The result of `sql` in the database at `url`: a line for each row, columns separated by `|`.
pub fn query(url: &str, sql: &str) -> String {
    let mut command = Command::new(program("psql"));
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]).arg(url);
    let done = command.output().expect("psql starts");
    assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

fn initdb(data: &Path, programs: Option<&Path>) {
    let mut command = Command::new(server("initdb", programs));
    command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync", "-D"]).arg(data);
    let done = demoted(command).output().expect("initdb starts");
    assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
}

fn launch(directory: &Path, port: u16, settings: &[&str], programs: Option<&Path>) -> Process {
    let mut command = Command::new(server("postgres", programs));
    command.arg("-D").arg(directory.join("data")).arg("-k").arg(directory);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    for setting in settings.iter().chain(&["max_connections=600", "shared_buffers=64MB"]) {
        command.args(["-c", setting]);
    }
    Process::start("postgres", demoted(command))
}

pub(super) fn demoted(mut command: Command) -> Command {
    command.current_dir("/");
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid).gid(gid);
    }
    command
}

/// User and group for PostgreSQL when the tests run as root.
fn unprivileged() -> Option<(u32, u32)> {
    if !unix::is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("there are users");
    ["postgres", "nobody"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// A program of the server.
fn server(name: &str, programs: Option<&Path>) -> PathBuf {
    programs.map_or_else(|| program(name), |folder| folder.join(name))
}

/// Debian keeps the server's programs out of PATH, one folder per version.
pub fn program(name: &str) -> PathBuf {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    versions.sort();
    versions.pop().unwrap_or_else(|| PathBuf::from(name))
}
