//! Beat: schedules that any number of replicas fire exactly once.
//!
//! [`field`], [`cron`], [`timetable`], [`decide`] and [`definition`] are pure: they read what was written, say when the next tick is,
//! and what becomes of ticks that are past.

pub mod cron;
pub mod decide;
pub mod definition;
pub mod field;
pub mod timetable;

#[cfg(test)]
mod cron_tests;
#[cfg(test)]
mod definition_tests;
