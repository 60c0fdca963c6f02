//! A cached picture of the online workers: which queues they consume and which tasks they register. Warnings about submissions come
//! from this cache, without asking workers.
//!
//! The picture is at most two periods old, and makes no claim without evidence: while a worker has not reported its queues yet, no
//! queue counts as unserved, and while a consumer has not reported its tasks, no task counts as unregistered there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::workers::is_online;
use celery::task::json;
use ledger::{Error, SharedLedger, Worker};
use runtime::clock::{self, Time};

const PERIOD: Duration = Duration::from_secs(2);
/// Maximum number of task names kept for a worker; for a worker with more, its tasks count as unknown.
const TASKS: usize = 5_000;

/// Why a task will probably not run. A new kind of doubt is one more variant here and one more line in [`Picture::doubt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// No online worker consumes the queue.
    Unserved,
    /// Workers consume the queue, but none of them registers the task.
    Unregistered,
}

impl Doubt {
    /// The `code` of a warning.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unserved => "unserved",
            Self::Unregistered => "unregistered",
        }
    }

    pub fn detail(self, task: &str, queue: &str) -> String {
        match self {
            Self::Unserved => format!("no worker reads the queue {queue}: {task} waits until one does"),
            Self::Unregistered => {
                format!("no worker that reads the queue {queue} registers {task}: the one that gets it will drop it")
            }
        }
    }
}

/// The fleet at one time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Whether all online workers have reported their queues.
    is_complete: bool,
    /// By queue: the tasks that its consumers register; `None` while one of them has not reported its tasks.
    queues: HashMap<String, Option<HashSet<String>>>,
}

impl Picture {
    /// `asked`: all workers were asked, so the ledger knows all of them.
    pub fn of(workers: &[Worker], asked: bool, now: Time) -> Self {
        let mut picture = Self { is_complete: asked || !workers.is_empty(), queues: HashMap::new() };
        for worker in workers.iter().filter(|worker| is_online(worker, now)) {
            picture.is_complete &= worker.facts.tasks.is_some();
            for queue in &worker.facts.queues {
                let known = picture.queues.entry(queue.clone()).or_insert_with(|| Some(HashSet::new()));
                match (known.as_mut(), &worker.facts.tasks) {
                    (Some(known), Some(tasks)) => known.extend(tasks.iter().cloned()),
                    (_, _) => *known = None,
                }
            }
        }
        picture
    }

    /// The reason why this task may not run, if any.
    pub fn doubt(&self, task: &str, queue: &str) -> Option<Doubt> {
        match self.queues.get(queue) {
            None => self.is_complete.then_some(Doubt::Unserved),
            Some(Some(tasks)) if !tasks.contains(task) => Some(Doubt::Unregistered),
            Some(_) => None,
        }
    }
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Fleet(Arc<Shared>);

#[derive(Default)]
struct Shared {
    picture: RwLock<Arc<Picture>>,
    asked: AtomicBool,
    /// Whether a new worker was seen that has not reported its queues and tasks yet.
    newcomer: AtomicBool,
}

impl Fleet {
    pub fn current(&self) -> Arc<Picture> {
        Arc::clone(&self.0.picture.read().expect("nothing panics under this lock"))
    }

    /// Records that all workers were asked and had time to answer.
    pub fn note_asked(&self) {
        self.0.asked.store(true, Ordering::Relaxed);
    }

    /// Records that a worker came online: until the ledger has its answers, no claims are made.
    pub fn note_newcomer(&self) {
        self.0.newcomer.store(true, Ordering::Relaxed);
        *self.0.picture.write().expect("nothing panics under this lock") = Arc::default();
    }

    /// Records that the answers of all workers are in the ledger.
    pub fn note_settled(&self) {
        self.0.newcomer.store(false, Ordering::Relaxed);
    }

    /// Reads the ledger now.
    pub async fn refresh(&self, ledger: &SharedLedger) -> Result<(), Error> {
        if self.0.newcomer.load(Ordering::Relaxed) {
            return Ok(());
        }
        let asked = self.0.asked.load(Ordering::Relaxed);
        let picture = Picture::of(&ledger.workers().await?, asked, clock::now());
        let mut current = self.0.picture.write().expect("nothing panics under this lock");
        if **current != picture {
            *current = Arc::new(picture);
        }
        Ok(())
    }

    /// Runs until `stop`. While the ledger is down, the last picture stays.
    pub async fn run(self, ledger: SharedLedger, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let _ = self.refresh(&ledger).await;
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PERIOD) => {} }
        }
    }
}

/// Parses the reply to `registered`: names, some followed by options, such as `tasks.add [rate_limit=2/s]`.
pub fn task_names(reply: &RawValue) -> Option<Vec<String>> {
    let names = json::elements(reply)?;
    if names.len() > TASKS {
        return None;
    }
    let name = |text: String| text.split_once(" [").map_or(text.clone(), |(name, _)| name.to_owned());
    names.into_iter().map(|text| serde_json::from_str(text.get()).ok().map(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::WorkerFacts;

    fn worker(queues: &[&str], tasks: Option<&[&str]>) -> Worker {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let facts = WorkerFacts { queues: words(queues), tasks: tasks.map(words), ..WorkerFacts::default() };
        Worker { hostname: format!("{queues:?}"), seen_at: Time(0), offline_at: None, facts }
    }

    #[test]
    fn a_queue_without_a_reader_and_a_task_that_no_reader_knows_are_told() {
        let fleet = [worker(&["celery"], Some(&["a"])), worker(&["mail"], Some(&["b"]))];
        let picture = Picture::of(&fleet, false, Time(0));
        assert_eq!(picture.doubt("a", "celery"), None);
        assert_eq!(
            picture.doubt("b", "celery"),
            Some(Doubt::Unregistered),
            "only the reader of another queue knows it"
        );
        assert_eq!(picture.doubt("a", "gpu"), Some(Doubt::Unserved));
    }

    #[test]
    fn nothing_is_claimed_that_no_worker_has_said() {
        let picture = Picture::of(&[], false, Time(0));
        assert_eq!(picture.doubt("a", "celery"), None, "no worker was ever heard of");
        assert_eq!(Picture::of(&[], true, Time(0)).doubt("a", "celery"), Some(Doubt::Unserved), "and nobody answered");
        let picture = Picture::of(&[worker(&["celery"], Some(&["a"])), worker(&["celery"], None)], false, Time(0));
        assert_eq!(picture.doubt("b", "celery"), None, "the second one may know it");
        assert_eq!(picture.doubt("b", "mail"), None, "the second one may read it");
    }

    #[test]
    fn a_worker_that_went_away_reads_nothing() {
        let mut gone = worker(&["celery"], Some(&["a"]));
        gone.offline_at = Some(Time(0));
        assert_eq!(Picture::of(&[gone], false, Time(0)).doubt("a", "celery"), Some(Doubt::Unserved));
    }

    #[test]
    fn registered_tasks_are_read_without_their_options() {
        let registered = json::written(r#"["tasks.add", "tasks.mail [rate_limit=2/s]"]"#.to_owned());
        assert_eq!(task_names(&registered).unwrap(), ["tasks.add", "tasks.mail"]);
    }
}
