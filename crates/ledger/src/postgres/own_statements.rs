//! Constant statements of modules that only PostgreSQL has.

use super::{dialect, gather, kinds, list, ordinary, publication, replica, withdraw};

pub(super) const PING: &str = "select 1 from taskgate.ledger";

pub(super) const LISTS: &[&[&str]] = &[
    &[PING],
    dialect::STATEMENTS,
    gather::STATEMENTS,
    kinds::STATEMENTS,
    list::STATEMENTS,
    ordinary::STATEMENTS,
    publication::STATEMENTS,
    replica::STATEMENTS,
    withdraw::STATEMENTS,
];
