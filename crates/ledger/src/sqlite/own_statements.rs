//! Constant statements of modules that only SQLite has.

use super::{insert_rows, prune};

pub(super) const PING: &str = "select count(*) from queue_pause";

pub(super) const LISTS: &[&[&str]] = &[&[PING], &prune::ROWS, insert_rows::STATEMENTS];
