//! A finished span, with exactly the fields that OTLP requires. Pure.

use super::SpanContext;
use runtime::clock::Time;

/// The kind of a span, with OTLP's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal = 1,
    Server = 2,
    Producer = 4,
    Consumer = 5,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Integer(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub context: SpanContext,
    /// The parent span, in the same trace.
    pub parent: Option<u64>,
    /// The span that sent the message.
    pub link: Option<SpanContext>,
    pub name: String,
    pub kind: Kind,
    pub start: Time,
    /// The end, not before the start.
    pub end: Time,
    pub attributes: Vec<(&'static str, Value)>,
    pub failed: bool,
}
