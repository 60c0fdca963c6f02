//! Reports to the outside: webhooks, traces, statistics, samples of queues and workers, exports, incidents, health.

#[cfg(feature = "export")]
pub mod export;
pub mod health;
pub mod incident_kind;
pub mod incidents;
pub mod notify;
pub mod queue_age;
pub mod samples;
pub mod sizes;
pub mod stats;
pub mod traces;
pub mod webhooks;
