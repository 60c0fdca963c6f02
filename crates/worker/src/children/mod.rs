//! Runs tasks in child processes, because a handler may leak, crash, or block its thread for ever.
//!
//! A child is the same program, started again with the same arguments: its `main` calls [`Builder::run`] with the same tasks
//! and then takes its tasks from the worker instead of Redis. There is one child per slot, each runs one task at a time, and the
//! worker does everything else. The death of a child ends one run only.
//!
//! [`Builder::run`]: super::Builder::run

mod frames;
mod inside;
mod process;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

pub use inside::is_child;
pub(super) use inside::serve;
pub(super) use process::why;
use process::{Ended, Process};

use super::execute::Execution;
use super::registry::{Run, Task};
use super::request::Outcome;
use super::settings::{Pool, Settings};

/// The environment variable that tells a child its worker's node name.
const CHILD: &str = "TASKGATE_CHILD_OF";
/// The pause after a child could not be started, so that starting is not retried in a tight loop.
const PAUSE: Duration = Duration::from_secs(1);

/// The children of one worker.
pub(crate) struct Children {
    hostname: String,
    /// Whether every task runs in a child, not only those that ask for it.
    all: bool,
    max_tasks: Option<u64>,
    max_memory_kib: Option<u64>,
    /// How many children there should be.
    wanted: AtomicUsize,
    jobs: AtomicU64,
    closed: AtomicBool,
    state: Mutex<State>,
    /// Notified when one more child is idle, or one less is being started.
    changed: Notify,
    tracker: TaskTracker,
}

#[derive(Default)]
struct State {
    idle: Vec<Process>,
    /// The ids of all children that have not ended.
    pids: BTreeSet<u32>,
    starting: usize,
}

/// A child for one run, or the outcome of the run if no child could be started.
pub(crate) type Lease = Result<Leased, Outcome>;

pub(crate) struct Leased(Process);

impl Leased {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Children {
    pub fn new(settings: &Settings, slots: usize) -> Arc<Self> {
        Arc::new(Self {
            hostname: settings.hostname.clone(),
            all: settings.pool == Pool::Prefork,
            max_tasks: settings.max_tasks_per_child.map(u64::from),
            max_memory_kib: settings.max_memory_per_child,
            wanted: AtomicUsize::new(slots),
            jobs: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Notify::new(),
            tracker: TaskTracker::new(),
        })
    }

    /// Whether the task runs in a child. A command has a process of its own anyway.
    pub fn takes(&self, task: &Task) -> bool {
        !matches!(task.run, Run::Command(_)) && (self.all || task.options.child)
    }

    /// Process ids of all children.
    pub fn pids(&self) -> Vec<u32> {
        self.state().pids.iter().copied().collect()
    }

    /// Starts missing children in the background, so that tasks do not wait for them.
    pub fn fill(self: &Arc<Self>) {
        let missing = {
            let mut state = self.state();
            let missing = self.wanted.load(Ordering::Relaxed).saturating_sub(state.pids.len() + state.starting);
            state.starting += missing;
            missing
        };
        for _ in 0..missing {
            let this = Arc::clone(self);
            self.tracker.spawn(async move {
                match Process::start(&this.hostname).await {
                    Ok(process) => this.put(process),
                    Err(error) => warn!(error = %error, "a child process did not start: {error}"),
                }
                this.state().starting -= 1;
                this.changed.notify_waiters();
            });
        }
    }

    /// Adjusts the number of children to the number of slots.
    pub fn resize(self: &Arc<Self>, slots: usize) {
        let before = self.wanted.swap(slots, Ordering::Relaxed);
        if slots > before && !self.state().pids.is_empty() {
            self.fill();
        }
        while self.state().pids.len() > slots {
            let Some(spare) = self.state().idle.pop() else { return };
            self.retire(spare);
        }
    }

    /// A child for one run: an idle one, else a new one.
    pub async fn lease(&self) -> Lease {
        while let Some(mut process) = self.idle().await {
            if process.is_alive() {
                return Ok(Leased(process));
            }
            debug!(child.pid = process.id(), "child {} died while it was idle", process.id());
            self.state().pids.remove(&process.id());
        }
        match Process::start(&self.hostname).await {
            Ok(process) => {
                self.state().pids.insert(process.id());
                Ok(Leased(process))
            }
            Err(error) => {
                warn!(error = %error, "a child process cannot be started: {error}");
                tokio::time::sleep(PAUSE).await;
                Err(Outcome::WorkerLost(format!("the child process cannot be started: {error}")))
            }
        }
    }

    /// An idle child, or one that is being started; `None` when there is neither.
    async fn idle(&self) -> Option<Process> {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if let Some(process) = state.idle.pop() {
                    return Some(process);
                }
                if state.starting == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Runs a task in its child.
    ///
    /// # Cancel safety
    /// A dropped run kills its child.
    pub async fn carry_out(self: &Arc<Self>, leased: Leased, execution: &mut Execution) -> Outcome {
        let mut process = leased.0;
        let job = self.jobs.fetch_add(1, Ordering::Relaxed);
        let Ended { outcome, reusable } = process.run(execution, job).await;
        if !reusable {
            self.retire(process);
        } else if let Some(why) = self.has_served(&process) {
            info!(child.pid = process.id(), runs = process.runs, "child {} is replaced: {why}", process.id());
            self.retire(process);
        } else {
            self.put(process);
        }
        self.fill();
        outcome
    }

    /// The reason why a child gets no further task, if there is one.
    fn has_served(&self, process: &Process) -> Option<String> {
        if self.max_tasks.is_some_and(|max| process.runs >= max) {
            return Some(format!("it ran {} tasks", process.runs));
        }
        let (max, peak) = (self.max_memory_kib?, process.peak_kib());
        (peak > max).then(|| format!("it used {peak} KiB, more than {max} KiB"))
    }

    fn put(&self, process: Process) {
        let spare = {
            let mut state = self.state();
            state.pids.insert(process.id());
            let surplus = state.pids.len() > self.wanted.load(Ordering::Relaxed);
            if surplus || self.closed.load(Ordering::Relaxed) {
                Some(process)
            } else {
                state.idle.push(process);
                self.changed.notify_waiters();
                None
            }
        };
        if let Some(spare) = spare {
            self.retire(spare);
        }
    }

    fn retire(&self, process: Process) {
        self.state().pids.remove(&process.id());
        self.tracker.spawn(process.end());
    }

    /// Ends all idle children, and those that become idle from now on.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.wanted.store(0, Ordering::Relaxed);
        let idle = std::mem::take(&mut self.state().idle);
        idle.into_iter().for_each(|process| self.retire(process));
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }
}
