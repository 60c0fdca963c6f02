//! Why a command is refused: Redis's own error texts, because clients match on them.

use std::borrow::Cow;

use super::reply::Reply;

/// An error reply, code included (`ERR …`, `WRONGTYPE …`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub Cow<'static, [u8]>);

pub type Answer = Result<Reply, Failure>;

pub const WRONG_TYPE: Failure = text("WRONGTYPE Operation against a key holding the wrong kind of value");
pub const SYNTAX: Failure = text("ERR syntax error");
pub const NOT_AN_INTEGER: Failure = text("ERR value is not an integer or out of range");
pub const NOT_A_FLOAT: Failure = text("ERR value is not a valid float");
pub const NO_SUCH_KEY: Failure = text("ERR no such key");
pub const OUT_OF_RANGE: Failure = text("ERR index out of range");
pub const NOT_POSITIVE: Failure = text("ERR value is out of range, must be positive");
pub const OVERFLOW: Failure = text("ERR increment or decrement would overflow");

/// A fixed text.
pub const fn text(text: &'static str) -> Failure {
    Failure(Cow::Borrowed(text.as_bytes()))
}

/// A text that quotes the client's input.
pub fn message(text: impl Into<Vec<u8>>) -> Failure {
    Failure(Cow::Owned(text.into()))
}

pub fn wrong_arity(command: &str) -> Failure {
    message(format!("ERR wrong number of arguments for '{command}' command"))
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Reply::Error(failure.0)
    }
}
