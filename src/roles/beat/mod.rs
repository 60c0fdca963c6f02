//! Beat: schedules that any number of replicas fire exactly once. What a schedule says is read by the crate `schedule`.

pub mod firing;
pub mod seed;
pub mod service;
