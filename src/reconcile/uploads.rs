//! Removes files that no task needs: those of tasks whose payload is pruned, and those of uploads that became no task.
//!
//! A file is needed while a task with its label is unfinished or its payload is kept. The ledger decides; what it cannot say now is
//! left alone, and so is every file of a store that belongs to another ledger. Files younger than `orphan_after` are left alone too:
//! their task may be on its way. Any replica may do this, because removing twice is the same as removing once.

use std::collections::HashMap;
use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::stores::{Kind, Store, StoreError, Stored, Stores};
use celery::task::{Phase, TaskId};
use ledger::{Filter, Page, SharedLedger};
use runtime::clock;

/// The label of tasks that were given a file: the id of its upload.
pub const LABEL: &str = "taskgate.upload";
/// Files of one store to check in one pass; the next pass continues after them.
const PAGE: usize = 1_000;
/// When there is no store.
const IDLE: Duration = Duration::from_hours(1);
/// The ledger's name for the mark that its stores carry.
const MARK: &str = "stores";

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the ledger could not be asked")]
    Ledger(#[from] ledger::Error),
    #[error(
        "the store belongs to another ledger: its files stay. Give each ledger a folder or a prefix of its own, or remove the file \
         taskgate-ledger from the store if it was this ledger's before"
    )]
    Foreign,
}

pub struct Uploads {
    ledger: SharedLedger,
    stores: Stores,
    /// Where the next pass of each store continues.
    after: HashMap<(String, &'static str), String>,
}

impl Uploads {
    pub fn new(ledger: SharedLedger, stores: Stores) -> Self {
        Self { ledger, stores, after: HashMap::new() }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let stores: Vec<Store> = self.stores.all().cloned().collect();
        let period = stores.iter().map(Store::sweep).min().unwrap_or(IDLE);
        while !stop.is_cancelled() {
            for store in &stores {
                tokio::select! {
                    () = stop.cancelled() => return,
                    outcome = self.pass(store) => tell(store, outcome),
                }
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(period) => {} }
        }
    }

    /// # Cancel safety
    /// A dropped call may have removed some files; the next pass finds the rest.
    async fn pass(&mut self, store: &Store) -> Result<usize, Trouble> {
        let fresh = clock::random_id().into_bytes();
        let mark = self.ledger.shared_secret(MARK, &fresh).await?;
        let mark: String = mark.iter().map(|byte| format!("{byte:02x}")).collect();
        if !store.belongs_to(&mark).await? {
            return Err(Trouble::Foreign);
        }
        let before = clock::now().minus(store.orphan_after());
        let mut removed = store.clear_unfinished(before).await?;
        for (kind, word) in [(Kind::Upload, "uploads"), (Kind::Result, "results")] {
            let place = (store.name().to_owned(), word);
            let files = store.list(kind, self.after.get(&place).map(String::as_str), PAGE).await?;
            match files.last().filter(|_| files.len() == PAGE) {
                Some(last) => drop(self.after.insert(place, last.key.clone())),
                None => drop(self.after.remove(&place)),
            }
            for file in files.iter().filter(|file| file.at < before && !store.has_in_hand(&file.id)) {
                if !self.is_needed(file).await? {
                    debug!(store = store.name(), key = file.key, "no task needs {}", file.key);
                    store.delete(&file.key).await?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// A task that others sent, whose message was never here: its result is kept as long as the task.
    async fn is_of_others(&self, id: &TaskId) -> Result<bool, ledger::Error> {
        let is_kept = |task: ledger::Task| task.adopted && (!task.phase.is_final() || task.result.is_some());
        Ok(self.ledger.task(id).await?.is_some_and(is_kept))
    }

    async fn is_needed(&self, file: &Stored) -> Result<bool, ledger::Error> {
        match file.kind {
            Kind::Upload => self.is_upload_needed(&file.id).await,
            Kind::Result => match TaskId::parse(&file.id) {
                Ok(id) => Ok(self.ledger.message(&id).await?.is_some() || self.is_of_others(&id).await?),
                Err(_) => Ok(false),
            },
        }
    }

    /// Steps of a canvas and retries have the label too. The payload of the task that ended last is pruned last.
    async fn is_upload_needed(&self, id: &str) -> Result<bool, ledger::Error> {
        let labels = vec![(LABEL.to_owned(), id.to_owned())];
        let page = Page { limit: 1, after: None };
        let phase = Phase::ALL.iter().copied().filter(|phase| !phase.is_final()).collect();
        let open = Filter { labels: labels.clone(), phase, ..Filter::default() };
        if !self.ledger.tasks(&open, &page).await?.0.is_empty() {
            return Ok(true);
        }
        let (tasks, _) = self.ledger.tasks(&Filter { labels, ..Filter::default() }, &page).await?;
        match tasks.first() {
            Some(task) => Ok(self.ledger.message(&task.id).await?.is_some()),
            None => Ok(false),
        }
    }
}

fn tell(store: &Store, outcome: Result<usize, Trouble>) {
    let name = store.name();
    match outcome {
        Ok(0) => {}
        Ok(removed) => {
            counter!("taskgate_files_removed_total").increment(removed as u64);
            info!(store = name, "removed {removed} unused files from the store {name}");
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            warn!(store = name, error = %error, "the store {name} was not swept, trying again later: {error}{source}");
        }
    }
}
