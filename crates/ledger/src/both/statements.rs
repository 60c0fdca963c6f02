//! Every constant statement, so that a test can prepare each against a migrated database and check its plan.
//!
//! A module that has statements and is missing here does not compile: its list is not used then.

use super::{
    audit, bulk, canvas_rows, control, control_writes, dags, events, fan_out, findings, firing, gate_writes, groups,
    incidents, insert, learn, lease, limits, line_writes, lines, logs, migrate, outbox, outbox_rows, own_statements,
    prune, rate_gates, save, schedules, stats, steps, tasks, tokens, traces, waits, webhooks, worker_writes, workers,
};

/// The statements of each module that both adapters have.
const LISTS: &[&[&str]] = &[
    audit::STATEMENTS,
    bulk::STATEMENTS,
    canvas_rows::STATEMENTS,
    control::STATEMENTS,
    control_writes::STATEMENTS,
    dags::STATEMENTS,
    events::STATEMENTS,
    fan_out::STATEMENTS,
    findings::STATEMENTS,
    firing::STATEMENTS,
    gate_writes::STATEMENTS,
    groups::STATEMENTS,
    incidents::STATEMENTS,
    insert::STATEMENTS,
    learn::STATEMENTS,
    lease::STATEMENTS,
    limits::STATEMENTS,
    line_writes::STATEMENTS,
    lines::STATEMENTS,
    logs::STATEMENTS,
    migrate::STATEMENTS,
    outbox::STATEMENTS,
    outbox_rows::STATEMENTS,
    prune::STATEMENTS,
    rate_gates::STATEMENTS,
    save::STATEMENTS,
    schedules::STATEMENTS,
    stats::STATEMENTS,
    steps::STATEMENTS,
    tasks::STATEMENTS,
    tokens::STATEMENTS,
    traces::STATEMENTS,
    waits::STATEMENTS,
    webhooks::STATEMENTS,
    worker_writes::STATEMENTS,
    workers::STATEMENTS,
];

/// All statements.
pub fn statements() -> impl Iterator<Item = &'static str> {
    LISTS.iter().chain(own_statements::LISTS).copied().flatten().copied()
}
