//! The pure part of beat: reads what a schedule says, knows when its next tick is, and decides what becomes of ticks that
//! have passed. No clock and no I/O: the firing is in the gateway's beat.

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
