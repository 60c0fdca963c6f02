//! The vocabulary: what a task is, what states it has, how calls compose. Pure: no clock, no randomness, no I/O.

pub mod canvas;
pub mod id;
pub mod invalid;
pub mod json;
pub mod limit;
pub mod mask;
pub mod pause;
pub mod progress;
pub mod reader;
pub mod reserved;
pub mod retry;
pub mod signature;
pub mod spread;
pub mod state;
pub mod submission;
pub mod webhook;

pub use id::{GroupId, InvalidId, Priority, QueueName, TaskId, TaskName};
pub use invalid::Invalid;
pub use retry::RetryPolicy;
pub use signature::{Expires, Signature, TaskSignature};
pub use spread::Spread;
pub use state::{Phase, Position};
pub use submission::Submission;

/// JSON text that passes through untouched: Python's big integers and the order of keys survive digit for digit.
pub type Json = Box<serde_json::value::RawValue>;
