//! Arguments and results that are too large for a message: whoever builds a worker may give a task a storage for them.

use std::fmt::Debug;

use async_trait::async_trait;
use serde_json::value::RawValue;

use celery::task::{Json, TaskId};

/// Keeps what is too large for a message, and puts it back. Its calls have deadlines of their own.
#[async_trait]
pub trait Storage: Debug + Send + Sync {
    /// Positional and keyword arguments with what lies elsewhere put back; `None` when nothing does.
    ///
    /// # Errors
    /// Why they cannot be had: the task fails with it, as `StorageError`.
    async fn arguments(&self, args: &RawValue, kwargs: &RawValue) -> Result<Option<(Json, Json)>, String>;

    /// What is written down instead of a result that is too large; `None` when it is not.
    ///
    /// # Errors
    /// Why it could not be kept: it is written down as it is.
    async fn result(&self, id: &TaskId, result: &RawValue) -> Result<Option<Json>, String>;
}
