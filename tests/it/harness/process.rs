//! Child processes that cannot outlive the tests, each in its own process group and with its own log file.
//!
//! The kernel sends the parent-death signal when the *thread* that forked ends, and a test's thread ends with the test. So one
//! thread that never ends starts all children.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex, Once};
use std::time::Duration;

use super::{Stopwatch, nursery, unix, wait};

/// The longest wait for the end of a process, however slow the machine is.
const LONGEST: Duration = Duration::from_secs(300);

/// How many lines of a log are shown when a test fails.
const SHOWN_LINES: usize = 120;

type Start = Box<dyn FnOnce() + Send>;

static STARTER: LazyLock<Sender<Start>> = LazyLock::new(|| {
    let (sender, receiver) = channel::<Start>();
    std::thread::Builder::new()
        .name("starter".into())
        .spawn(move || receiver.iter().for_each(|start| start()))
        .expect("a thread can be started");
    sender
});

/// The groups that are alive, for the end of the process.
static GROUPS: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// A running child; dropping it kills its whole group.
pub struct Process {
    name: String,
    handle: Handle,
    log: PathBuf,
}

enum Handle {
    Child(Child),
    /// A child of a nursery, which writes its status into this file when it has ended.
    Forked {
        id: i32,
        status: PathBuf,
    },
}

impl Handle {
    fn id(&self) -> i32 {
        match self {
            Self::Child(child) => child.id() as i32,
            Self::Forked { id, .. } => *id,
        }
    }

    /// The status, if it has ended.
    fn ended(&mut self) -> Option<ExitStatus> {
        match self {
            Self::Child(child) => child.try_wait().expect("the child is ours"),
            Self::Forked { status, .. } => {
                let status = fs::read_to_string(status).ok()?;
                Some(ExitStatus::from_raw(status.parse().expect("a number")))
            }
        }
    }

    /// Waits for the end after SIGKILL.
    fn reap(&mut self) {
        match self {
            Self::Child(child) => drop(child.wait()),
            Self::Forked { id, .. } => {
                let folder = PathBuf::from(format!("/proc/{id}"));
                while self.ended().is_none() && folder.exists() {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }
}

impl Process {
    /// Starts `command` with its output going to a log file in the run's folder.
    ///
    /// # Panics
    /// When the program is missing; `make test` installs what is needed.
    pub fn start(name: &str, mut command: Command) -> Self {
        let log = folder(name).join("log");
        let out = File::create(&log).expect("the run's folder is writable");
        command
            .stdin(Stdio::null())
            .stderr(out.try_clone().expect("a file can be shared"))
            .stdout(out)
            .process_group(0);
        unix::die_with_parent(&mut command);
        let child = spawn(command).unwrap_or_else(|error| panic!("{name} does not start: {error}; run tests/setup.sh"));
        GROUPS.lock().expect("nothing panics here").push(child.id() as i32);
        Self { name: name.to_owned(), handle: Handle::Child(child), log }
    }

    /// As [`Process::start`], but a nursery forks it.
    pub fn fork(name: &str, command: &Command) -> Self {
        let directory = folder(name);
        let (log, status) = (directory.join("log"), directory.join("status"));
        File::create(&log).expect("the run's folder is writable");
        let id = nursery::fork(command, &log, &status);
        GROUPS.lock().expect("nothing panics here").push(id);
        Self { name: name.to_owned(), handle: Handle::Forked { id, status }, log }
    }

    pub fn id(&self) -> i32 {
        self.handle.id()
    }

    /// Sends `signal` to the process alone.
    pub fn signal(&self, signal: i32) {
        unix::kill(self.id(), signal);
    }

    /// Sends `signal` to the process and all its children.
    pub fn signal_group(&self, signal: i32) {
        unix::kill(-self.id(), signal);
    }

    /// The status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.handle.ended()
    }

    /// Waits for the end, at most `deadline` of an idle machine's time.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let (watch, what) = (Stopwatch::start(), format!("{} ends", self.name));
        wait::blocking(LONGEST, &what, || {
            let ended = self.ended();
            assert!(ended.is_some() || watch.elapsed() < deadline, "not within {deadline:?}: {what}");
            ended
        })
    }

    /// Kills the whole group by SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.signal_group(libc::SIGKILL);
        self.handle.reap();
        let id = self.id();
        GROUPS.lock().expect("nothing panics here").retain(|group| *group != id);
    }

    /// All output so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the log contains `text`.
    ///
    /// # Panics
    /// With the log, when the process ends before or the time is over.
    pub fn wait_for_log(&mut self, text: &str, deadline: Duration) {
        let name = self.name.clone();
        wait::blocking(deadline, &format!("{name} logs {text:?}"), || {
            let log = self.log();
            if log.contains(text) {
                return Some(());
            }
            if let Some(status) = self.ended() {
                panic!("{name} ended with {status} before {text:?}:\n{log}");
            }
            None
        });
    }

    /// The end of the log, to be printed with a failed test.
    pub fn show_log(&self) {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let from = lines.len().saturating_sub(SHOWN_LINES);
        eprintln!("---- log of {} ----\n{}", self.name, lines[from..].join("\n"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_log();
        }
        self.kill();
    }
}

/// A child in a group of its own that lives until the tests end.
pub(super) fn spawn_in_group(mut command: Command) -> std::io::Result<Child> {
    command.process_group(0);
    unix::die_with_parent(&mut command);
    let child = spawn(command)?;
    GROUPS.lock().expect("nothing panics here").push(child.id() as i32);
    Ok(child)
}

fn spawn(mut command: Command) -> std::io::Result<Child> {
    let (sender, receiver) = channel();
    let start: Start = Box::new(move || drop(sender.send(command.spawn())));
    STARTER.send(start).expect("the starter never ends");
    receiver.recv().expect("the starter answers")
}

/// A new folder for one peer, inside the folder of this run, which is removed at the end of the process.
pub fn folder(name: &str) -> PathBuf {
    static NEXT: Mutex<u32> = Mutex::new(0);
    let number = {
        let mut next = NEXT.lock().expect("nothing panics here");
        *next += 1;
        *next
    };
    let path = run_folder().join(format!("{number}-{name}"));
    fs::create_dir_all(&path).expect("the run's folder is writable");
    path
}

/// `<temp>/taskgate-it-<pid>`: not under target/, which PostgreSQL's user may not be allowed to reach.
pub fn run_folder() -> PathBuf {
    static ONCE: Once = Once::new();
    let path = std::env::temp_dir().join(format!("taskgate-it-{}", std::process::id()));
    ONCE.call_once(|| {
        remove_leftovers();
        fs::create_dir_all(&path).expect("the temporary folder is writable");
        unix::at_exit(end);
    });
    path
}

/// Folders of runs that were killed.
fn remove_leftovers() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("taskgate-it-") else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

extern "C" fn end() {
    let groups = std::mem::take(&mut *GROUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    for group in groups {
        unix::kill(-group, libc::SIGKILL);
    }
    let _ = fs::remove_dir_all(run_folder());
}
