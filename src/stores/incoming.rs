//! A file that is being written into a store. It exists once `finish` has returned, and not before; if it is dropped before, the store
//! keeps an incomplete file that a later sweep removes.
//!
//! At most one part is held in memory.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::bytes::{Bytes, BytesMut};

use super::place::Place;
use super::{PENDING, Store, StoreError};

/// How many bytes are written to a folder at once.
const FOLDER_PART: usize = 1 << 20;
/// The smallest part that S3 accepts, except for the last.
const BUCKET_PART: usize = 5 << 20;

pub struct Incoming {
    live: Live,
    key: String,
    writing: Writing,
    buffer: BytesMut,
    part: usize,
    size: u64,
    _turn: OwnedSemaphorePermit,
}

/// A complete file. As long as this lives, no sweep of this process removes it.
pub struct StoredFile {
    live: Live,
    pub key: String,
}

/// Keeps an upload's id among the uploads in progress of this process.
struct Live {
    store: Store,
    id: String,
}

enum Writing {
    Folder(Box<dyn MultipartUpload>),
    Bucket { upload: Arc<str>, note: String, parts: Vec<PartId> },
}

impl Live {
    fn new(store: Store, id: &str) -> Self {
        store.0.live.lock().expect("nothing panics under this lock").insert(id.to_owned());
        Self { store, id: id.to_owned() }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.store.0.live.lock().expect("nothing panics under this lock").remove(&self.id);
    }
}

impl StoredFile {
    /// The id of its upload.
    pub fn id(&self) -> &str {
        &self.live.id
    }

    /// The address at which a worker reads it.
    ///
    /// # Errors
    /// As [`Store::address`].
    pub async fn address(&self) -> Result<String, StoreError> {
        self.live.store.address(&self.key).await
    }

    /// Removes it. If that fails, a sweep removes it.
    pub async fn discard(self) {
        let _ = self.live.store.delete(&self.key).await;
    }
}

impl Incoming {
    pub(super) async fn begin(
        store: Store,
        room: &str,
        id: &str,
        name: &str,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        let turns = Arc::clone(&store.0.turns);
        let busy = || StoreError::Busy { store: store.name().to_owned() };
        let turn = tokio::time::timeout(patience, turns.acquire_owned()).await.map_err(|_| busy())?;
        let turn = turn.map_err(|_| busy())?;
        let live = Live::new(store.clone(), id);
        let key = format!("{room}/{id}/{name}");
        let path = store.path(&key);
        let (writing, part) = match &store.0.place {
            Place::Folder { files, .. } => {
                (Writing::Folder(store.in_time(files.put_multipart(&path)).await?), FOLDER_PART)
            }
            Place::Bucket(bucket) => {
                let upload = store.in_time(bucket.create_multipart(&path)).await?;
                let note = format!("{PENDING}/{id}");
                let text = PutPayload::from(format!("{upload} {key}").into_bytes());
                store.in_time(bucket.put(&store.path(&note), text)).await?;
                (Writing::Bucket { upload: upload.into(), note, parts: Vec::new() }, BUCKET_PART)
            }
        };
        Ok(Self { live, key, writing, buffer: BytesMut::new(), part, size: 0, _turn: turn })
    }

    /// How many bytes were written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// # Errors
    /// When the store is away.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.part - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == self.part {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        let part: Bytes = self.buffer.split().freeze();
        let store = &self.live.store;
        match &mut self.writing {
            Writing::Folder(file) => store.in_time(file.put_part(part.into())).await,
            Writing::Bucket { upload, parts, .. } => {
                let (path, upload) = (store.path(&self.key), upload.to_string());
                let done = in_bucket(store).put_part(&path, &upload, parts.len(), part.into());
                parts.push(store.in_time(done).await?);
                Ok(())
            }
        }
    }

    /// Makes the file visible.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn finish(mut self) -> Result<StoredFile, StoreError> {
        let is_without_parts = matches!(&self.writing, Writing::Bucket { parts, .. } if parts.is_empty());
        if !self.buffer.is_empty() || is_without_parts {
            self.flush().await?;
        }
        let store = &self.live.store;
        match &mut self.writing {
            Writing::Folder(file) => {
                store.in_time(file.complete()).await?;
            }
            Writing::Bucket { upload, note, parts } => {
                let (bucket, path, upload) = (in_bucket(store), store.path(&self.key), upload.to_string());
                let done = bucket.complete_multipart(&path, &upload, std::mem::take(parts));
                store.in_time(done).await?;
                store.in_time(bucket.delete(&store.path(note))).await?;
            }
        }
        Ok(StoredFile { live: self.live, key: self.key })
    }

    /// Removes what was written. If that fails, a sweep removes it.
    pub async fn abort(mut self) {
        let store = &self.live.store;
        match &mut self.writing {
            Writing::Folder(file) => {
                let _ = store.in_time(file.abort()).await;
                if let Place::Folder { root, .. } = &store.0.place
                    && let Some(folder) = root.join(&self.key).parent()
                {
                    let _ = tokio::fs::remove_dir(folder).await;
                }
            }
            Writing::Bucket { upload, note, .. } => {
                let (bucket, path) = (in_bucket(store), store.path(&self.key));
                if store.in_time(bucket.abort_multipart(&path, &upload.to_string())).await.is_ok() {
                    let _ = store.in_time(bucket.delete(&store.path(note))).await;
                }
            }
        }
    }
}

fn in_bucket(store: &Store) -> &AmazonS3 {
    store.bucket().expect("an upload in parts was begun in a bucket")
}
