//! Converts errors of the RabbitMQ client into this crate's.
//!
//! A refusal (the broker understood the request and refused it) keeps its code and text: both go into problems and incidents, because
//! the broker describes the cause best.

use lapin::ErrorKind;
use lapin::types::ShortString;

use crate::Error;

/// The exchange or queue does not exist.
pub const NOT_FOUND: u16 = 404;
/// It exists, but with other arguments than declared.
pub const PRECONDITION_FAILED: u16 = 406;

/// A name for AMQP, which allows at most 255 bytes; taskgate and Celery count characters.
pub fn short(name: &str) -> Result<ShortString, Error> {
    let refused = |_| Error::Refused {
        code: PRECONDITION_FAILED,
        text: format!("a name of {} bytes; RabbitMQ takes 255: {name}", name.len()),
    };
    ShortString::try_new(name).map_err(refused)
}

impl From<lapin::Error> for Error {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(said) => {
                Self::Refused { code: said.get_id(), text: said.get_message().to_string() }
            }
            _ => Self::Amqp(Box::new(error)),
        }
    }
}

/// Whether the error is a refusal with this code.
pub fn is(error: &Error, wanted: u16) -> bool {
    matches!(error, Error::Refused { code, .. } if *code == wanted)
}
