//! The vocabulary: what a task is, what states it has, how calls compose. Pure: no clock, no randomness, no I/O.

pub mod id;
pub mod state;

pub use id::{GroupId, InvalidId, Priority, QueueName, TaskId, TaskName};
pub use state::{Phase, Position};

/// JSON text that passes through untouched: Python's big integers and the order of keys survive digit for digit.
pub type Json = Box<serde_json::value::RawValue>;
