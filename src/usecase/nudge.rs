//! Wakes a service of this process: beat after a change of a schedule; the expander after a large call was accepted. A lost
//! nudge costs one period of that service.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    pub fn nudge(&self) {
        self.0.notify_one();
    }

    /// Waits for a nudge; an earlier nudge counts too.
    pub fn nudged(&self) -> Notified<'_> {
        self.0.notified()
    }
}

/// Wakes the service for steps that wait.
#[derive(Clone, Default)]
pub struct Wake {
    /// A wait began, which may be the next to time out.
    pub begun: Nudge,
    /// A wait ended.
    pub ended: Nudge,
}
