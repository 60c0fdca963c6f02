//! Large arguments go into a store, and a reference goes into the message: only for entries that say so, and only while no worker but
//! taskgate's own reads the queue. What cannot be kept goes the usual way.
//!
//! The arguments of a canvas's later steps travel in the message of the first one and stay there.

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
use ledger::{NewTask, Task};
use runtime::clock;

/// Files of one submission that belong to no task before its commit.
type Kept = Vec<StoredFile>;

impl Gateway {
    /// Keep what is returned until the submission is committed: no sweep removes it meanwhile.
    pub(super) async fn offload(&self, tasks: &mut [NewTask]) -> Kept {
        let mut kept = Kept::new();
        for task in tasks {
            let limit = self.catalog.offload(task.name.as_str()).filter(|limit| task.body.len() as u64 > *limit);
            let (Some(limit), Some(store)) = (limit, self.stores.get(DEFAULT_STORE)) else { continue };
            if !self.is_ours_alone(task.queue.as_str()).await {
                continue;
            }
            match lightened(store, task, limit).await {
                Ok(files) => kept.extend(files),
                Err(error) => {
                    warn!(task.id = %task.id, error = %error, "large arguments of {} stay in its message: {error}", task.id);
                }
            }
        }
        kept
    }

    /// Whether workers that know references read the queue, and no others.
    async fn is_ours_alone(&self, queue: &str) -> bool {
        let Ok(workers) = self.ledger.workers().await else { return false };
        let now = clock::now();
        let mut readers = workers
            .iter()
            .filter(|worker| is_online(worker, now) && worker.facts.queues.iter().any(|name| name == queue))
            .peekable();
        readers.peek().is_some() && readers.all(is_ours)
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

/// Writes references instead of large arguments.
async fn lightened(store: &Store, task: &mut NewTask, limit: u64) -> Result<Kept, StoreError> {
    let Ok((args, kwargs, embed)) = serde_json::from_str::<(Vec<&RawValue>, &RawValue, &RawValue)>(&task.body) else {
        return Ok(Kept::new());
    };
    let Ok(named) = Fields::parse(kwargs.get()) else { return Ok(Kept::new()) };
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
        return Ok(kept);
    }
    task.body = format!("[[{}], {{{}}}, {}]", positional.join(", "), members.join(", "), embed.get());
    if label.is_none() {
        task.labels.push((LABEL.to_owned(), id));
    }
    Ok(kept)
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
