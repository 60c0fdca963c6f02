//! Large arguments go into a store, and a reference goes into the message: only for entries that say so, and only while no worker but
//! taskgate's own reads the queue. What cannot be kept goes the usual way.
//!
//! Later steps of a canvas travel in the messages of the first ones ([`messages`]): their rows and these messages change together. What the
//! gateway itself sends later, a part of a DAG that waits for others, keeps its arguments.

mod messages;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::Gateway;
use super::retry_policy::is_ours;
use crate::config::DEFAULT_STORE;
use crate::reconcile::uploads::LABEL;
use crate::reconcile::workers::is_online;
use crate::stores::{Kind, Reference, Store, StoreError, StoredFile};
use celery::json::Fields;
use celery::task::{Json, TaskId, json};
use ledger::{Error, NewTask, SharedLedger, Task, Worker};
use messages::{Arguments, followers, with_arguments};
use runtime::{clock, heavy};

/// How long a submission waits for the store. What it has not taken by then stays in the messages.
const PATIENCE: Duration = Duration::from_secs(10);

/// Files of one submission that belong to no task before its commit.
pub(crate) type Kept = Vec<StoredFile>;

/// The workers at the time of a submission, or of many that come together: read once, when the first large argument is found.
#[derive(Debug, Clone, Default)]
pub struct Roster(Arc<OnceCell<Vec<Worker>>>);

impl Roster {
    async fn read(&self, ledger: &SharedLedger) -> Result<&[Worker], Error> {
        self.0.get_or_try_init(|| ledger.workers()).await.map(Vec::as_slice)
    }
}

impl Gateway {
    /// Moves the large arguments of a submission's tasks into the store. Keep what is returned until the submission is committed: no sweep
    /// removes it meanwhile. After the first failure of the store the other arguments stay where they are.
    pub(crate) async fn offload(&self, tasks: &mut Vec<NewTask>, roster: &Roster) -> Kept {
        let is_large = |task: &NewTask| self.large(task).is_some();
        match self.stores.get(DEFAULT_STORE).filter(|_| tasks.iter().any(is_large)) {
            // Boxed, because few submissions have large arguments.
            Some(store) => Box::pin(self.moved_into(store, tasks, roster)).await,
            None => Kept::new(),
        }
    }

    async fn moved_into(&self, store: &Store, tasks: &mut Vec<NewTask>, roster: &Roster) -> Kept {
        let Ok(workers) = roster.read(&self.ledger).await else { return Kept::new() };
        let limit_of = |task: &NewTask| self.large(task).filter(|_| is_ours_alone(workers, task.queue.as_str()));
        let is_later = |task: &NewTask| task.headers.is_none();
        let some_are_later = tasks.iter().any(|task| is_later(task) && limit_of(task).is_some());
        let carried = if some_are_later { carried(tasks).await } else { HashSet::new() };
        let until = Instant::now() + PATIENCE;
        let mut kept = Kept::new();
        let mut moved: HashMap<TaskId, Arguments> = HashMap::new();
        for task in tasks.iter_mut() {
            let Some(limit) = limit_of(task).filter(|_| !is_later(task) || carried.contains(&task.id)) else {
                continue;
            };
            match timeout_at(until, lightened(store, task, limit)).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some((arguments, files)))) => {
                    kept.extend(files);
                    if is_later(task) {
                        moved.insert(task.id.clone(), arguments);
                    }
                }
                Ok(Err(error)) => {
                    warn!(task.id = %task.id, %error, "large arguments stay in their messages, from task {} on: {error}", task.id);
                    break;
                }
                Err(_) => {
                    warn!(task.id = %task.id, "large arguments stay in their messages, from task {} on: the store is too slow", task.id);
                    break;
                }
            }
        }
        if !moved.is_empty() {
            rewrite(tasks, moved).await;
        }
        kept
    }

    /// The entry's limit, where the task may have an argument above it.
    fn large(&self, task: &NewTask) -> Option<u64> {
        self.catalog.offload(task.name.as_str()).filter(|limit| task.body.len() as u64 > *limit)
    }

    /// A task with its result, where that lies in a store; with the reference when it cannot be read.
    pub(super) async fn restored(&self, task: Arc<Task>) -> Arc<Task> {
        let Some((store, reference)) = self.kept_result(&task) else { return task };
        match read_result(store, &reference).await {
            Ok(Some(result)) => Arc::new(Task { result: Some(result), ..Arc::unwrap_or_clone(task) }),
            Ok(None) | Err(_) => task,
        }
    }

    /// Where a task's result lies, when that is a store, as its own, and no larger than a request may be. A task may return any text, also
    /// the key of somebody else's file.
    pub(super) fn kept_result(&self, task: &Task) -> Option<(&Store, Reference)> {
        let reference = Reference::read(task.result.as_ref()?.get())?;
        let is_its_own = reference.is_of_task(&task.id) && reference.bytes <= self.limits.body as u64;
        let store = self.stores.get(&reference.store).filter(|_| is_its_own)?;
        Some((store, reference))
    }
}

/// The result in a store; `None` when it is no JSON.
pub(super) async fn read_result(store: &Store, reference: &Reference) -> Result<Option<Json>, StoreError> {
    let bytes = store.read(reference).await?;
    let text = String::from_utf8(bytes.into()).ok();
    Ok(text.and_then(|text| RawValue::from_string(text).ok()))
}

/// Whether workers that know references read the queue, and no others.
fn is_ours_alone(workers: &[Worker], queue: &str) -> bool {
    let now = clock::now();
    let mut readers = workers
        .iter()
        .filter(|worker| is_online(worker, now) && worker.facts.queues.iter().any(|name| name == queue))
        .peekable();
    readers.peek().is_some() && readers.all(is_ours)
}

/// The later tasks that the submission's messages carry. Reading large messages takes a while, so other requests go on meanwhile.
async fn carried(tasks: &mut Vec<NewTask>) -> HashSet<TaskId> {
    let (bytes, own) = (bytes(tasks), std::mem::take(tasks));
    let (own, found) = heavy::run(bytes, move || {
        let messages = own.iter().filter(|task| task.headers.is_some());
        let found = messages.flat_map(|task| followers(&task.body)).collect();
        (own, found)
    })
    .await;
    *tasks = own;
    found
}

/// Writes the references of later tasks into the messages that carry them.
async fn rewrite(tasks: &mut Vec<NewTask>, moved: HashMap<TaskId, Arguments>) {
    let (bytes, mut own) = (bytes(tasks), std::mem::take(tasks));
    *tasks = heavy::run(bytes, move || {
        for task in own.iter_mut().filter(|task| task.headers.is_some()) {
            if let Some(body) = with_arguments(&task.body, &moved) {
                task.body = body;
            }
        }
        own
    })
    .await;
}

fn bytes(tasks: &[NewTask]) -> usize {
    tasks.iter().map(|task| task.body.len()).sum()
}

/// Writes references instead of large arguments; `None` when none is large.
async fn lightened(store: &Store, task: &mut NewTask, limit: u64) -> Result<Option<(Arguments, Kept)>, StoreError> {
    let Ok((args, kwargs, embed)) = serde_json::from_str::<(Vec<&RawValue>, &RawValue, &RawValue)>(&task.body) else {
        return Ok(None);
    };
    let Ok(named) = Fields::parse(kwargs.get()) else { return Ok(None) };
    let label = task.labels.iter().find(|(name, _)| name == LABEL).map(|(_, id)| id.clone());
    let id = label.clone().unwrap_or_else(|| clock::random_id().to_string());
    let mut mover = Mover { store, id: &id, limit, kept: Kept::new() };
    let mut positional = Vec::with_capacity(args.len());
    for value in args {
        positional.push(mover.moved(value).await?);
    }
    let mut members = Vec::new();
    for (name, value) in named.iter() {
        let name = serde_json::Value::from(name);
        members.push(format!("{name}: {}", mover.moved(value).await?));
    }
    let kept = mover.kept;
    if kept.is_empty() {
        return Ok(None);
    }
    let arguments = Arguments {
        args: json::written(format!("[{}]", positional.join(", "))),
        kwargs: json::written(format!("{{{}}}", members.join(", "))),
    };
    task.body = format!("[{}, {}, {}]", arguments.args.get(), arguments.kwargs.get(), embed.get());
    if label.is_none() {
        task.labels.push((LABEL.to_owned(), id));
    }
    Ok(Some((arguments, kept)))
}

/// Moves the arguments of one task.
struct Mover<'a> {
    store: &'a Store,
    id: &'a str,
    limit: u64,
    kept: Kept,
}

impl Mover<'_> {
    /// The argument, or the reference that stands for it.
    async fn moved(&mut self, value: &RawValue) -> Result<String, StoreError> {
        let text = value.get();
        if text.len() as u64 <= self.limit {
            return Ok(text.to_owned());
        }
        // Tasks of one submission share the upload.
        let name = format!("argument-{}.json", clock::random_id());
        let (reference, file) = self.store.keep(Kind::Upload, self.id, &name, text.as_bytes()).await?;
        self.kept.push(file);
        Ok(reference.json().get().to_owned())
    }
}
