//! What all parts of a process share: the current time, new ids, the spawned tasks, encoding for addresses, and the points at which a
//! test may kill the process. No other code in the project reads the clock or creates an id.

pub mod clock;
pub mod crash_points;
pub mod heavy;
pub mod lifecycle;
pub mod private;
pub mod uri;
