//! Wakes a service of this process that submits by itself: beat, when the timetable changed; the expander, when a large call
//! was accepted. A lost nudge costs one period of that service.

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

    /// Waits for a nudge; one that came while nobody waited counts.
    pub fn nudged(&self) -> Notified<'_> {
        self.0.notified()
    }
}

/// Wakes the service of steps that wait.
#[derive(Clone, Default)]
pub struct Wake {
    /// A wait ended.
    pub ended: Nudge,
}
