//! Reconcilers: each repairs one difference between what was decided, what is in flight and what happened.

pub mod adopter;
pub mod canvas;
pub mod deliveries;
pub mod departed;
pub mod details;
pub mod exchanges;
pub mod expiry;
pub mod findings;
pub mod fleet;
pub mod fleet_options;
pub mod learner;
pub mod process;
pub mod recorder;
pub mod relay;
pub mod removal;
pub mod retention;
pub mod silence;
pub mod sweeper;
pub mod task_logs;
pub mod uploads;
pub mod workers;
