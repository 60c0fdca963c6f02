//! What tells others: webhooks, traces, statistics, incidents, health.

pub mod health;
pub mod incidents;
pub mod stats;
pub mod traces;
pub mod webhooks;
