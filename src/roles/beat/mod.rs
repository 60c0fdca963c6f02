//! Beat, the scheduler: any number of replicas fire each tick exactly once. The crate `schedule` parses schedules.

pub mod firing;
pub mod seed;
pub mod service;
