//! Time limits as the wire carries them: seconds, whole or not.

/// A task's limits in seconds; `None` leaves it to the worker.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// The process is killed.
    pub hard: Option<f64>,
    /// `SoftTimeLimitExceeded` is raised inside the task.
    pub soft: Option<f64>,
}
