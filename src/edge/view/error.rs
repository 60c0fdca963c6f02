//! Why a task failed.

use serde::Serialize;
use utoipa::ToSchema;

use ledger::Failure;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskError)]
pub struct ErrorView<'a> {
    /// Python's class name; `TaskLost` when taskgate gave the task up.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "ValueError")]
    pub kind: &'a str,
    #[schema(value_type = String, example = "no such page")]
    pub message: &'a str,
}

impl<'a> ErrorView<'a> {
    pub fn of(failure: &'a Failure) -> Self {
        Self { kind: &failure.kind, message: &failure.message }
    }
}
