//! Beat: schedules that any number of replicas fire exactly once.
//!
//! [`field`], [`cron`], [`timetable`] and [`definition`] are pure: they read what was written and say when the next tick is.

pub mod cron;
pub mod field;

#[cfg(test)]
mod cron_tests;
