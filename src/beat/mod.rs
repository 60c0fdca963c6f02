//! Beat: schedules that any number of replicas fire exactly once.
//!
//! [`field`], [`cron`], [`timetable`], [`decide`], [`definition`], [`document`] and [`tick`] are pure: they read what was written, say
//! when the next tick is, and what becomes of ticks that are past. [`service`] fires.

pub mod cron;
pub mod decide;
pub mod definition;
pub mod document;
pub mod field;
pub mod firing;
pub mod import;
pub mod seed;
pub mod service;
pub mod tick;
pub mod timetable;

#[cfg(test)]
mod cron_tests;
#[cfg(test)]
mod definition_tests;
