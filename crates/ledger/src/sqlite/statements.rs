//! Every constant statement, so that a test can prepare each against a migrated database.

use super::{
    audit, bulk, control, dags, events, fan_out, findings, groups, incidents, insert, learn, lease, limits, lines,
    logs, migrate, outbox, prune, rate_gates, save, schedules, stats, steps, tasks, tokens, traces, waits, webhooks,
    workers,
};

pub(super) const PING: &str = "select count(*) from queue_pause";

/// The statements of each module.
const LISTS: &[&[&str]] = &[
    &[PING],
    audit::STATEMENTS,
    bulk::STATEMENTS,
    control::STATEMENTS,
    dags::STATEMENTS,
    events::STATEMENTS,
    fan_out::STATEMENTS,
    findings::STATEMENTS,
    rate_gates::STATEMENTS,
    groups::STATEMENTS,
    incidents::STATEMENTS,
    insert::STATEMENTS,
    learn::STATEMENTS,
    lease::STATEMENTS,
    limits::STATEMENTS,
    lines::STATEMENTS,
    logs::STATEMENTS,
    migrate::STATEMENTS,
    outbox::STATEMENTS,
    prune::STATEMENTS,
    &prune::ROWS,
    save::STATEMENTS,
    schedules::STATEMENTS,
    stats::STATEMENTS,
    steps::STATEMENTS,
    tasks::STATEMENTS,
    tokens::STATEMENTS,
    traces::STATEMENTS,
    waits::STATEMENTS,
    webhooks::STATEMENTS,
    workers::STATEMENTS,
];

/// All statements.
pub fn statements() -> impl Iterator<Item = &'static str> {
    LISTS.iter().copied().flatten().copied()
}
