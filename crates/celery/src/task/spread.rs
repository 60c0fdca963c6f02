//! Where an exchange takes a message, when that is not one queue's list.

use serde::{Deserialize, Serialize};

use super::QueueName;

/// Beside, or instead of, the list of a task's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// The same task stands in these queues too: each runs it, and the first end is the task's.
    Copies(Vec<QueueName>),
    /// Every worker that listens to the exchange gets it, and nobody keeps it for the others.
    Fanout { exchange: String, routing_key: String },
}

impl Spread {
    /// The further queues that it stands in.
    pub fn copies(&self) -> &[QueueName] {
        match self {
            Self::Copies(queues) => queues,
            Self::Fanout { .. } => &[],
        }
    }
}
