//! Use cases: what a client can ask for, one file each. Knows no HTTP and no SQL.

pub mod watch;
