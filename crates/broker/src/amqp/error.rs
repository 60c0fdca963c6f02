//! What went wrong between us and RabbitMQ, in this crate's words.
//!
//! A refusal (the broker understood and said no) keeps its number and its sentence: both go into problems and incidents, because
//! the broker names what is wrong better than anybody else could.

use lapin::ErrorKind;
use lapin::types::ShortString;

use crate::Error;

/// The exchange or queue does not exist.
pub const NOT_FOUND: u16 = 404;
/// It exists, and is another one than was declared.
pub const PRECONDITION_FAILED: u16 = 406;

/// A name as AMQP takes it: at most 255 bytes, where we and Celery count characters.
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

/// Whether it is this refusal.
pub fn is(error: &Error, wanted: u16) -> bool {
    matches!(error, Error::Refused { code, .. } if *code == wanted)
}
