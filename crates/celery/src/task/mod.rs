//! The vocabulary: tasks, their states, and how calls are composed. Pure: no clock, no randomness, no I/O.

pub mod canvas;
pub mod dag;
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

pub use dag::{Dag, DagNode};
pub use id::{GroupId, InvalidId, Priority, QueueName, TaskId, TaskName};
pub use invalid::Invalid;
pub use retry::RetryPolicy;
pub use signature::{Expires, Signature, TaskSignature};
pub use spread::Spread;
pub use state::{Phase, Position};
pub use submission::Submission;

/// JSON text that is passed on unchanged, so Python's big integers and the order of keys are preserved.
pub type Json = Box<serde_json::value::RawValue>;
