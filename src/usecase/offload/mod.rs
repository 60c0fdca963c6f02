//! Large arguments go into a store, and a reference goes into the message: only for entries that say so, and only while no worker but
//! taskgate's own reads the queue. What cannot be kept goes the usual way.
//!
//! Later steps of a canvas travel in the messages of the first ones ([`messages`]): their rows and these messages change together. What the
//! gateway itself sends later, a part of a DAG that waits for others, keeps its arguments.

mod messages;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::value::RawValue;
use tracing::warn;

use super::Gateway;
use super::retry_policy::is_ours;
use crate::config::DEFAULT_STORE;
use crate::reconcile::uploads::LABEL;
use crate::reconcile::workers::is_online;
use crate::stores::{Kind, Reference, Store, StoreError, StoredFile};
use celery::json::Fields;
use celery::task::{TaskId, json};
use ledger::{NewTask, Task, Worker};
use messages::{Arguments, followers, with_arguments};
use runtime::{clock, heavy};

/// Files of one submission that belong to no task before its commit.
pub(crate) type Kept = Vec<StoredFile>;

impl Gateway {
    /// Moves the large arguments of a submission's tasks into the store. Keep what is returned until the submission is committed: no sweep
    /// removes it meanwhile.
    pub(crate) async fn offload(&self, tasks: &mut Vec<NewTask>) -> Kept {
        let is_large = |task: &NewTask| self.large(task).is_some();
        let Some(store) = self.stores.get(DEFAULT_STORE).filter(|_| tasks.iter().any(is_large)) else {
            return Kept::new();
        };
        let Ok(workers) = self.ledger.workers().await else { return Kept::new() };
        let carried = carried(tasks).await;
        let mut kept = Kept::new();
        let mut moved: HashMap<TaskId, Arguments> = HashMap::new();
        for task in tasks.iter_mut() {
            let Some(limit) = self.large(task).filter(|_| is_ours_alone(&workers, task.queue.as_str())) else {
                continue;
            };
            let is_later = task.headers.is_none();
            if is_later && !carried.contains(&task.id) {
                continue;
            }
            match lightened(store, task, limit).await {
                Ok(None) => {}
                Ok(Some((arguments, files))) => {
                    kept.extend(files);
                    if is_later {
                        moved.insert(task.id.clone(), arguments);
                    }
                }
                Err(error) => {
                    warn!(task.id = %task.id, error = %error, "large arguments of {} stay in its message: {error}", task.id);
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

    /// A task with its result, when that lies in a store as its own and is no larger than a request may be; else with the reference. A task
    /// may return any text, also the key of somebody else's file.
    pub(super) async fn restored(&self, task: Arc<Task>) -> Arc<Task> {
        let reference = task.result.as_ref().and_then(|result| Reference::read(result.get()));
        let is_its_own =
            |reference: &Reference| reference.is_of_task(&task.id) && reference.bytes <= self.limits.body as u64;
        let Some(reference) = reference.filter(is_its_own) else { return task };
        let Some(store) = self.stores.get(&reference.store) else { return task };
        let result = store.read(&reference).await.ok().and_then(|bytes| String::from_utf8(bytes.into()).ok());
        match result.and_then(|text| RawValue::from_string(text).ok()) {
            Some(result) => Arc::new(Task { result: Some(result), ..Arc::unwrap_or_clone(task) }),
            None => task,
        }
    }
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
    if tasks.iter().all(|task| task.headers.is_some()) {
        return HashSet::new();
    }
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
