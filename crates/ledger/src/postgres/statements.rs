//! Every constant statement, so that a test can prepare each against a migrated database.

use super::{
    audit, bulk, control, dags, dialect, events, fan_out, findings, gather, groups, incidents, insert, kinds, learn,
    lease, limits, lines, list, logs, migrate, ordinary, outbox, prune, publication, rate_gates, replica, save,
    schedules, stats, steps, tasks, tokens, traces, waits, webhooks, withdraw, workers,
};

pub(super) const PING: &str = "select 1 from taskgate.ledger";

/// The statements of each module.
const LISTS: &[&[&str]] = &[
    &[PING],
    audit::STATEMENTS,
    bulk::STATEMENTS,
    control::STATEMENTS,
    dags::STATEMENTS,
    dialect::STATEMENTS,
    events::STATEMENTS,
    fan_out::STATEMENTS,
    findings::STATEMENTS,
    rate_gates::STATEMENTS,
    gather::STATEMENTS,
    groups::STATEMENTS,
    incidents::STATEMENTS,
    insert::STATEMENTS,
    kinds::STATEMENTS,
    learn::STATEMENTS,
    lease::STATEMENTS,
    limits::STATEMENTS,
    lines::STATEMENTS,
    list::STATEMENTS,
    logs::STATEMENTS,
    migrate::STATEMENTS,
    ordinary::STATEMENTS,
    outbox::STATEMENTS,
    prune::STATEMENTS,
    publication::STATEMENTS,
    replica::STATEMENTS,
    save::STATEMENTS,
    schedules::STATEMENTS,
    stats::STATEMENTS,
    steps::STATEMENTS,
    tasks::STATEMENTS,
    tokens::STATEMENTS,
    traces::STATEMENTS,
    waits::STATEMENTS,
    webhooks::STATEMENTS,
    withdraw::STATEMENTS,
    workers::STATEMENTS,
];

/// All statements.
pub fn statements() -> impl Iterator<Item = &'static str> {
    LISTS.iter().copied().flatten().copied()
}
