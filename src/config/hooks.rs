//! The `[[hooks]]` entries: signed webhooks of other systems that become tasks. The catalog compiles them.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::value::{Bytes, Secret, Span, Text};

/// One entry as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawHook {
    /// Path that events are posted to, such as `/hooks/github`.
    pub path: Text,
    /// How they are signed: `standard` (Standard Webhooks), `github`, `stripe` or `slack`.
    pub verify: Text,
    /// The secret that signs them, or a list of secrets during a rotation: a signature by any of them is accepted.
    pub secret: Secrets,
    /// The name of the task that an event becomes.
    pub task: Text,
    /// Positional arguments, as templates. Default the whole body, unless `kwargs` is given.
    #[serde(default)]
    pub args: Option<Vec<Value>>,
    /// Keyword arguments, as templates.
    #[serde(default)]
    pub kwargs: Option<serde_json::Map<String, Value>>,
    /// The queue of the task. Default as for a submission by name.
    #[serde(default)]
    pub queue: Option<Text>,
    /// How far the signed timestamp may be in the past or in the future. Default 5 m.
    #[serde(default)]
    pub tolerance: Option<Span>,
    /// The largest body. Default 1 MiB.
    #[serde(default)]
    pub max_body: Option<Bytes>,
}

pub const TOLERANCE: Duration = Duration::from_mins(5);
pub const MAX_BODY: usize = 1 << 20;

/// One secret or several. `Debug` does not print them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Secrets {
    One(Hidden),
    Several(Vec<Hidden>),
}

/// A secret that is never printed.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "String")]
pub struct Hidden(pub Secret);

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(Secret::new(text))
    }
}

impl Secrets {
    pub fn all(&self) -> Vec<Secret> {
        match self {
            Self::One(secret) => vec![secret.0.clone()],
            Self::Several(several) => several.iter().map(|secret| secret.0.clone()).collect(),
        }
    }
}
