//! The parts of a sweep of a store: its owner, its files, and uploads that were begun and never finished.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutPayload};

use super::place::Place;
use super::{FILES, PENDING, RESULTS, Store, StoreError};
use runtime::clock::Time;

/// Says which ledger's files these are.
const OWNER: &str = "taskgate-ledger";

/// The task that needs a file, according to its place in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Tasks that carry the label of its upload.
    Upload,
    /// The task whose result it is.
    Result,
}

/// An existing file.
#[derive(Debug, Clone)]
pub struct Stored {
    pub key: String,
    pub kind: Kind,
    /// The id of its upload, or of its task.
    pub id: String,
    pub at: Time,
}

impl Store {
    /// Whether the store belongs to the ledger of this mark; a store without an owner is assigned to the first caller.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn belongs_to(&self, mark: &str) -> Result<bool, StoreError> {
        let path = self.path(OWNER);
        let owner = async || self.in_time(async { self.objects().get(&path).await?.bytes().await }).await;
        match owner().await {
            Ok(owner) => return Ok(owner == mark.as_bytes()),
            Err(StoreError::Failed { source: object_store::Error::NotFound { .. }, .. }) => {}
            Err(error) => return Err(error),
        }
        self.in_time(self.objects().put(&path, PutPayload::from(mark.as_bytes().to_vec()))).await?;
        Ok(owner().await? == mark.as_bytes())
    }

    /// Whether the upload is in progress in this process.
    pub fn has_in_hand(&self, id: &str) -> bool {
        self.0.live.lock().expect("nothing panics under this lock").contains(id)
    }

    /// At most `most` files of a kind in the order of their keys, after this one.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn list(&self, kind: Kind, after: Option<&str>, most: usize) -> Result<Vec<Stored>, StoreError> {
        let all = self.path(room(kind));
        let offset = after.map(|key| self.path(key));
        let found = match &offset {
            Some(offset) => self.objects().list_with_offset(Some(&all), offset),
            None => self.objects().list(Some(&all)),
        };
        // A folder is walked in no order: the first keys are known when all were seen. A bucket is listed in order.
        let found = if self.bucket().is_some() { found.take(most).boxed() } else { found };
        let first = async |mut first: BTreeMap<Path, ObjectMeta>, meta: ObjectMeta| {
            first.insert(meta.location.clone(), meta);
            if first.len() > most {
                first.pop_last();
            }
            Ok(first)
        };
        let first = self.in_time(found.try_fold(BTreeMap::new(), first)).await?;
        Ok(first.values().filter_map(|meta| self.stored(kind, meta)).collect())
    }

    fn stored(&self, kind: Kind, meta: &ObjectMeta) -> Option<Stored> {
        let parts: Vec<_> = meta.location.prefix_match(&self.0.prefix)?.collect();
        let [_, id, name] = parts.as_slice() else { return None };
        let key = format!("{}/{}/{}", room(kind), id.as_ref(), name.as_ref());
        Some(Stored { key, kind, id: id.as_ref().to_owned(), at: Time(meta.last_modified.timestamp_micros()) })
    }

    /// Removes uploads that were begun before this time and never finished. Returns how many.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn clear_unfinished(&self, before: Time) -> Result<usize, StoreError> {
        match &self.0.place {
            Place::Folder { root, .. } => {
                let (store, root) = (self.clone(), root.clone());
                let clear = move || {
                    let cleared = [FILES, RESULTS].map(|room| clear_staged(&store, &root.join(room), before));
                    cleared.into_iter().sum::<std::io::Result<usize>>()
                };
                let cleared = tokio::task::spawn_blocking(clear).await;
                let cleared = cleared.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                cleared.map_err(|source| StoreError::Folder { store: self.0.name.clone(), source })
            }
            Place::Bucket(bucket) => self.clear_pending(bucket, before).await,
        }
    }

    async fn clear_pending(&self, bucket: &AmazonS3, before: Time) -> Result<usize, StoreError> {
        let notes = self.path(PENDING);
        let notes: Vec<_> = self.in_time(object_store::ObjectStore::list(bucket, Some(&notes)).try_collect()).await?;
        let is_left = |note: &ObjectMeta| {
            let id = note.location.filename().unwrap_or_default();
            note.last_modified.timestamp_micros() < before.0 && !self.has_in_hand(id)
        };
        let mut cleared = 0;
        for note in notes.into_iter().filter(is_left) {
            let text = match self.in_time(async { bucket.get(&note.location).await?.bytes().await }).await {
                // The sweep of another replica has removed it.
                Err(StoreError::Failed { source: object_store::Error::NotFound { .. }, .. }) => continue,
                text => text?,
            };
            let text = String::from_utf8_lossy(&text);
            if let Some((upload, key)) = text.split_once(' ') {
                // It may be finished, or given up already.
                let _ = self.in_time(bucket.abort_multipart(&self.path(key), &upload.to_owned())).await;
            }
            self.in_time(bucket.delete(&note.location)).await?;
            cleared += 1;
        }
        Ok(cleared)
    }
}

pub(super) fn room(kind: Kind) -> &'static str {
    match kind {
        Kind::Upload => FILES,
        Kind::Result => RESULTS,
    }
}

/// Incomplete files, and the folders that were created for them.
fn clear_staged(store: &Store, room: &FilePath, before: Time) -> std::io::Result<usize> {
    let mut cleared = 0;
    let Ok(folders) = std::fs::read_dir(room) else { return Ok(0) };
    for folder in folders {
        let folder = folder?;
        if store.has_in_hand(&folder.file_name().to_string_lossy()) {
            continue;
        }
        let Ok(files) = std::fs::read_dir(folder.path()) else { continue };
        for file in files {
            let file = file?;
            let is_staged = file.file_name().to_string_lossy().contains('#');
            // A file that another replica has removed in between is removed.
            let Some(at) = file.metadata().and_then(|meta| meta.modified()).ok().filter(|_| is_staged) else {
                continue;
            };
            let age = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            if i64::try_from(age.as_micros()).is_ok_and(|at| at < before.0) && std::fs::remove_file(file.path()).is_ok()
            {
                cleared += 1;
            }
        }
        // Removes the folder only if it is empty.
        let _ = std::fs::remove_dir(folder.path());
    }
    Ok(cleared)
}
