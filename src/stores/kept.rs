//! Values that are too large for a message: written whole, read whole.

use std::time::Duration;

use object_store::ObjectStoreExt;
use tokio_util::bytes::Bytes;

use super::sweep::room;
use super::{Incoming, Kind, Reference, Store, StoreError, StoredFile};

/// How long a turn to write is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

impl Store {
    /// Keeps a value; `id` is that of its upload or its task.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn keep(
        &self,
        kind: Kind,
        id: &str,
        name: &str,
        value: &[u8],
    ) -> Result<(Reference, StoredFile), StoreError> {
        let mut incoming = Incoming::begin(self.clone(), room(kind), id, name, PATIENCE).await?;
        incoming.write(value).await?;
        let bytes = incoming.size();
        let file = incoming.finish().await?;
        Ok((Reference { store: self.name().to_owned(), key: file.key.clone(), bytes }, file))
    }

    /// What lies under a key.
    ///
    /// # Errors
    /// When the store is away, or nothing lies there.
    pub async fn read(&self, key: &str) -> Result<Bytes, StoreError> {
        let path = self.path(key);
        self.in_time(async { self.objects().get(&path).await?.bytes().await }).await
    }
}
