//! The pure part of beat (the scheduler): parses schedules, computes the next tick, and decides what happens to ticks that
//! have passed. No clock and no I/O: the gateway's beat does the firing.

pub mod cron;
pub mod decide;
pub mod definition;
pub mod document;
pub mod field;
pub mod import;
pub mod tick;
pub mod timetable;

#[cfg(test)]
mod cron_tests;
#[cfg(test)]
mod definition_tests;
