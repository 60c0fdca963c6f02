//! Values that are too large for a message: written whole, read whole.

use std::time::Duration;

use object_store::ObjectStoreExt;
use tokio_util::bytes::Bytes;

use super::sweep::room;
use super::{Incoming, Kind, Reference, Store, StoreError, StoredFile};

/// How long a write waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

impl Store {
    /// Keeps a value; `id` is that of its upload or its task.
    ///
    /// # Errors
    /// When the store is down.
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

    /// The value that a reference names, limited to the size in the reference.
    ///
    /// # Errors
    /// When the store is down, or has no such value.
    pub async fn read(&self, reference: &Reference) -> Result<Bytes, StoreError> {
        let path = self.path(&reference.key);
        self.in_time(self.objects().get_range(&path, 0..reference.bytes)).await
    }
}
