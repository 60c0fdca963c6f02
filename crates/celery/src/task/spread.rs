//! Where an exchange routes a message, if not just to one queue.

use serde::{Deserialize, Serialize};

use super::QueueName;

/// Destinations besides, or instead of, the task's own queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// The task is put into these queues too: it runs once from each, and the first end counts.
    Copies(Vec<QueueName>),
    /// Every worker that is subscribed to the exchange gets it; it is not stored for others.
    Fanout { exchange: String, routing_key: String },
}

impl Spread {
    /// The further queues that it is put into.
    pub fn copies(&self) -> &[QueueName] {
        match self {
            Self::Copies(queues) => queues,
            Self::Fanout { .. } => &[],
        }
    }
}
