//! The `[[hooks]]` entries: signed events of other systems that become tasks. They are compiled with the catalog.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::value::{Bytes, Secret, Span, Text};

/// One entry as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawHook {
    /// Where events are posted, as `/hooks/github`.
    pub path: Text,
    /// How they are signed: `standard` (Standard Webhooks), `github`, `stripe` or `slack`.
    pub verify: Text,
    /// What they are signed with. A list while a secret is changed: any of them is taken.
    pub secret: Secrets,
    /// The name of the task that an event becomes.
    pub task: Text,
    /// Positional arguments, as templates. Default the whole body, unless `kwargs` is said.
    #[serde(default)]
    pub args: Option<Vec<Value>>,
    /// Keyword arguments, as templates.
    #[serde(default)]
    pub kwargs: Option<serde_json::Map<String, Value>>,
    /// The queue of the task. Default as for a submission by name.
    #[serde(default)]
    pub queue: Option<Text>,
    /// How old or how far ahead a signed time may be. Default 5 m.
    #[serde(default)]
    pub tolerance: Option<Span>,
    /// The largest body. Default 1 MiB.
    #[serde(default)]
    pub max_body: Option<Bytes>,
}

pub const TOLERANCE: Duration = Duration::from_mins(5);
pub const MAX_BODY: usize = 1 << 20;

/// One secret or several; printed without them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Secrets {
    One(Hidden),
    Several(Vec<Hidden>),
}

/// A secret that no message shows.
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
            Self::One(one) => vec![one.0.clone()],
            Self::Several(several) => several.iter().map(|one| one.0.clone()).collect(),
        }
    }
}
