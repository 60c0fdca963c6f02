//! Observability besides the dashboard: metrics, traces, logs (issue rows O2, T9).

mod exposition;
mod logs;
mod metrics;
mod traces;
