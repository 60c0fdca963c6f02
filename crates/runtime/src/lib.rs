//! What every part of a process shares: the current time and new ids, the tasks it has spawned, and the points at which a
//! test may kill it. Nothing else in the project reads the clock or makes an id.

pub mod clock;
pub mod crash_points;
pub mod heavy;
pub mod lifecycle;
pub mod private;
