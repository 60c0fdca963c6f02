//! Time limits on the wire: seconds, whole or fractional.

/// A task's limits in seconds; with `None` the worker decides.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// After it the worker kills the process.
    pub hard: Option<f64>,
    /// After it the worker raises `SoftTimeLimitExceeded` inside the task.
    pub soft: Option<f64>,
}
