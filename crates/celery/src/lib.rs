//! Celery's wire formats and vocabulary. Pure: no clock, no ids, no I/O; the same input gives the same bytes.
//!
//! Writers follow kombu and Celery in every detail (order of members, separators, ASCII), so a reader cannot tell us from a Python
//! client. Readers never panic and never recurse deeper than [`bounds::MAX_NESTING`]; input that would crash a Python worker is a
//! [`DecodeError`] here. Values that are only passed on (`args`, results, `meta`) stay text, see [`json`].

pub mod binding;
pub mod bounds;
pub mod chord;
pub mod commands;
pub mod conf;
pub mod continuation;
pub mod control;
pub mod envelope;
pub mod event;
pub mod exception;
pub mod extended;
pub mod json;
pub mod limits;
pub mod message;
pub mod options;
pub mod plan;
pub mod pyrepr;
pub mod redelivered;
pub mod result;
pub mod serial;
mod shape;
pub mod signature;
pub mod spelling;
pub mod stored;
pub mod task;
pub mod task_log;
pub mod template;
pub mod time;
pub mod transport;
#[cfg(test)]
pub(crate) mod vectors;

pub use envelope::{Envelope, Properties, envelope};
pub use message::{Decoded, Embed, Message};
pub use signature::Signature;
pub use transport::{FanoutPrefix, Transport};

/// Why bytes cannot be decoded. No variant is transient: the same bytes fail again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("has {actual} bytes, the limit is {limit}")]
    TooLarge { actual: usize, limit: usize },
    #[error("is nested deeper than {} levels", bounds::MAX_NESTING)]
    TooDeep,
    #[error("is not JSON in UTF-8")]
    NotJson,
    #[error("is not a JSON object")]
    NotAnObject,
    #[error("is not {0}")]
    Serialized(&'static str),
    #[error("the body has content type {0}, which is not read")]
    ContentType(String),
    #[error("the body is compressed with {0}, which is not supported")]
    Compression(String),
    #[error("the body cannot be decompressed")]
    Decompress,
    #[error("the body is not base64 although it says so")]
    Base64,
    #[error("the body is not JSON in UTF-8")]
    BodyNotJson,
    #[error("the body {0}")]
    Body(&'static str),
    #[error("the header {0} is missing")]
    MissingHeader(&'static str),
    #[error("the header {name} {problem}")]
    Header { name: &'static str, problem: &'static str },
    #[error("a signature {0}")]
    Signature(&'static str),
    #[error("the record is not Celery's: {0}")]
    NotCelery(&'static str),
}
