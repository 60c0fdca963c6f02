//! The data commands, one file for each kind of value. A handler checks its arguments before it changes anything.

pub mod bits;
pub mod hashes;
pub mod keyless;
pub mod keys;
pub mod lists;
pub mod scan;
pub mod sets;
pub mod strings;
pub mod zranges;
pub mod zsets;
