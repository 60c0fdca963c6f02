//! Where the files of requests are kept: a folder, or a bucket of a service that speaks S3.
//!
//! A file is `uploads/<id>/<name>` below the URL of its store, and a large result is `results/<task>/result.json`. A file is visible
//! only when it is complete. Incomplete files of a crash can be found: a folder has files with a `#` in their names, a bucket has
//! a note `pending/<id>` for every upload that was begun. A store has no data about tasks; `reconcile/uploads.rs` asks the ledger who
//! still needs a file. Every call has a deadline, and a bounded number of files is written at a time.

mod incoming;
mod kept;
mod place;
mod reference;
mod sweep;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;

use crate::config;
use place::Place;

pub use incoming::{Incoming, StoredFile};
pub use reference::Reference;
pub use sweep::{Kind, Stored};

/// The longest call to a store.
const DEADLINE: Duration = Duration::from_secs(60);
const FILES: &str = "uploads";
const RESULTS: &str = "results";
const PENDING: &str = "pending";
/// Longest name of a file in a key.
const MAX_NAME: usize = 100;
/// The most files that a process writes into one store at a time: each has up to one part of a bucket (5 MiB) in memory.
const AT_ONCE: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store {store} failed")]
    Failed {
        store: String,
        #[source]
        source: object_store::Error,
    },
    #[error("the store {store} did not answer in time")]
    TimedOut { store: String },
    #[error("the folder of the store {store} cannot be read")]
    Folder {
        store: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{AT_ONCE} files are written to the store {store} already")]
    Busy { store: String },
}

impl StoreError {
    /// Whether the store has no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Failed { source: object_store::Error::NotFound { .. }, .. })
    }

    /// With its source, for a person.
    pub fn told(&self) -> String {
        let source = std::error::Error::source(self).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{self}{source}")
    }
}

/// All stores of the configuration, by name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stores(Arc<BTreeMap<String, Store>>);

/// One of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    place: Place,
    prefix: Path,
    presign: Duration,
    orphan_after: Duration,
    sweep: Duration,
    turns: Arc<Semaphore>,
    /// Ids of uploads in progress: begun, or complete and not yet the file of a task.
    live: Mutex<HashSet<String>>,
}

impl Stores {
    /// Creates missing folders; connects to nothing.
    ///
    /// # Errors
    /// When a URL is invalid, or a folder cannot be created.
    pub fn open(configured: &[config::Store]) -> anyhow::Result<Self> {
        let stores = configured.iter().map(|store| Ok((store.name.clone(), Store::open(store)?)));
        Ok(Self(Arc::new(stores.collect::<anyhow::Result<_>>()?)))
    }

    pub fn get(&self, name: &str) -> Option<&Store> {
        self.0.get(name)
    }

    pub fn all(&self) -> impl Iterator<Item = &Store> {
        self.0.values()
    }
}

impl Store {
    /// # Errors
    /// As [`Stores::open`].
    pub fn open(configured: &config::Store) -> anyhow::Result<Self> {
        let (place, prefix) = place::open(configured)?;
        Ok(Self(Arc::new(Inner {
            name: configured.name.clone(),
            place,
            prefix,
            presign: configured.presign,
            orphan_after: configured.orphan_after,
            sweep: configured.sweep,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            live: Mutex::default(),
        })))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How long a file that no task uses is kept.
    pub fn orphan_after(&self) -> Duration {
        self.0.orphan_after
    }

    /// Pause between two sweeps.
    pub fn sweep(&self) -> Duration {
        self.0.sweep
    }

    /// Begins a file. `id` is new; `name` is the client's, of which only harmless characters are kept.
    ///
    /// # Errors
    /// When the store is down, or too many files are written for longer than `patience`.
    ///
    /// # Cancel safety
    /// A dropped call may leave a file half written; a sweep removes it.
    pub async fn begin(&self, id: &str, name: &str, patience: Duration) -> Result<Incoming, StoreError> {
        Incoming::begin(self.clone(), FILES, id, &harmless(name), patience).await
    }

    /// The address at which a worker reads the file: a path on this machine, or a URL that is valid for a while and needs no credentials.
    ///
    /// # Errors
    /// When the address cannot be signed.
    pub async fn address(&self, key: &str) -> Result<String, StoreError> {
        match &self.0.place {
            Place::Folder { root, .. } => Ok(format!("file://{}", root.join(key).display())),
            Place::Bucket(bucket) => {
                let path = self.path(key);
                let signed = bucket.signed_url(http::Method::GET, &path, self.0.presign);
                self.in_time(signed).await.map(|url| url.to_string())
            }
        }
    }

    /// Removes a file. A file that is not there counts as removed.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key);
        let removed = self.in_time(self.objects().delete(&path)).await;
        match removed {
            Err(error) if error.is_missing() => {}
            other => other?,
        }
        if let Place::Folder { root, .. } = &self.0.place
            && let Some(folder) = root.join(key).parent()
        {
            // It was made for this file alone; one that is not empty stays.
            let _ = tokio::fs::remove_dir(folder).await;
        }
        Ok(())
    }

    /// Whether the store can be listed: for `taskgate check`.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn reach(&self) -> Result<(), StoreError> {
        let Place::Bucket(bucket) = &self.0.place else { return Ok(()) };
        let prefix = self.path(FILES);
        self.in_time(bucket.list_with_delimiter(Some(&prefix))).await.map(drop)
    }

    fn bucket(&self) -> Option<&AmazonS3> {
        match &self.0.place {
            Place::Folder { .. } => None,
            Place::Bucket(bucket) => Some(bucket),
        }
    }

    fn objects(&self) -> &dyn ObjectStore {
        match &self.0.place {
            Place::Folder { files, .. } => files,
            Place::Bucket(bucket) => &**bucket,
        }
    }

    fn path(&self, key: &str) -> Path {
        let parts = self.0.prefix.parts().map(|part| part.as_ref().to_owned());
        Path::from_iter(parts.chain(key.split('/').map(str::to_owned)))
    }

    async fn in_time<T>(&self, call: impl Future<Output = object_store::Result<T>>) -> Result<T, StoreError> {
        let store = || self.0.name.clone();
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(done) => done.map_err(|source| StoreError::Failed { store: store(), source }),
            Err(_) => Err(StoreError::TimedOut { store: store() }),
        }
    }
}

/// A name without characters that are special to a file system.
fn harmless(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept = |char: char| if char.is_ascii_alphanumeric() || "-_.".contains(char) { char } else { '_' };
    let name: String = last.chars().map(kept).take(MAX_NAME).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "file".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere() {
        assert_eq!(harmless("../../etc/passwd"), "passwd");
        assert_eq!(harmless("C:\\x\\a b.png"), "a_b.png");
        assert_eq!(harmless("한글#1.pdf"), "___1.pdf");
        assert_eq!(harmless(".."), "file");
        assert_eq!(harmless(""), "file");
    }
}
