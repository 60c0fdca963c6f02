//! SQL fragments that read a task from its three tables: what was submitted (`t`, with its names in `k`), and its present or final state
//! (`s`).
//!
//! The other tables are looked up for each task (`lateral … offset 0`), so that a plan made while a table was small does not scan all of
//! it later. Light columns leave out the large texts, for transitions that do not read them. Every statement that reads tasks bounds the
//! days of their numbers by two parameters, so that it opens only the partitions between them.

/// Columns of what was submitted, from `t` and `k`.
macro_rules! fact_columns {
    () => {
        "t.task_no, coalesce(t.given_id, cast(t.id as text)) as task_id, nullif(k.name, '') as name, \
         nullif(k.queue, '') as queue, cast(t.priority as integer) as priority, t.root_id, t.parent_id, t.group_id, \
         t.group_index, t.ignore_result, t.labels, t.options, t.submitted_at, t.due_at, t.expires_at, t.retry_of, t.schedule, \
         t.adopted, t.argsrepr, t.kwargsrepr"
    };
}
pub(super) use fact_columns;

/// Columns of the state, from `s`, which is [`standing`].
macro_rules! state_columns {
    () => {
        "s.phase, coalesce(s.status, taskgate.word(s.phase)) as status, cast(s.seq as bigint) as seq, s.delivery, s.retries, s.worker, \
         s.queued_at, s.received_at, s.started_at, s.finished_at, s.revoke_requested_at, s.runtime, s.failure_type, \
         s.failure_message, s.retried_as, s.reason, s.corrected, s.traceback, s.progress, s.children, s.result"
    };
}
pub(super) use state_columns;

/// The light [`state_columns`] of a row of `flight` named `s`.
macro_rules! open_columns {
    () => {
        "s.phase, coalesce(s.status, taskgate.word(s.phase)) as status, cast(s.seq as bigint) as seq, s.delivery, s.retries, s.worker, \
         s.queued_at, s.received_at, s.started_at, cast(null as bigint) as finished_at, s.revoke_requested_at, s.runtime, \
         s.failure_type, s.failure_message, s.retried_as, s.reason, s.corrected, cast(null as text) as traceback, \
         cast(null as text) as progress, cast(null as text) as children, cast(null as text) as result"
    };
}
pub(super) use open_columns;

/// The light [`state_columns`] of a row of `ended` named `s`.
macro_rules! closed_columns {
    () => {
        "s.phase, coalesce(s.status, taskgate.word(s.phase)) as status, cast(s.seq as bigint) as seq, s.delivery, s.retries, s.worker, \
         s.queued_at, s.received_at, s.started_at, s.finished_at, s.revoke_requested_at, s.runtime, \
         s.failure_type, s.failure_message, s.retried_as, s.reason, s.corrected, cast(null as text) as traceback, \
         cast(null as text) as progress, cast(null as text) as children, cast(null as text) as result"
    };
}
pub(super) use closed_columns;

/// A `from` clause that reads tasks, names and states as `t`, `k` and `s`. Arguments: `full` or `light`, and the parameters that bound
/// the numbers.
#[rustfmt::skip]
macro_rules! standing {
    (full, $low:literal, $high:literal) => {
        standing!(@ $low, $high, "f.traceback, f.progress, f.children, cast(null as text)", "e.traceback, e.progress, e.children, e.result")
    };
    (light, $low:literal, $high:literal) => {
        standing!(@ $low, $high, "cast(null as text), cast(null as text), cast(null as text), cast(null as text)",
            "cast(null as text), cast(null as text), cast(null as text), cast(null as text)")
    };
    (@ $low:literal, $high:literal, $open:literal, $closed:literal) => {
        concat!(
            "taskgate.task t cross join lateral (select k.name, k.queue from taskgate.kind k where k.kind_no = t.kind_no offset 0) k \
             cross join lateral (select f.phase, f.status, f.seq, f.delivery, f.retries, f.worker, f.queued_at, f.received_at, f.started_at, \
             cast(null as bigint) as finished_at, f.revoke_requested_at, f.runtime, f.failure_type, f.failure_message, \
             f.retried_as, f.reason, f.corrected, ", $open, ", false as dead from taskgate.flight f where f.task_no = t.task_no \
             union all select e.phase, e.status, e.seq, e.delivery, e.retries, e.worker, e.queued_at, e.received_at, e.started_at, \
             e.finished_at, e.revoke_requested_at, e.runtime, e.failure_type, e.failure_message, \
             e.retried_as, e.reason, e.corrected, ", $closed, ", e.dead from taskgate.ended e \
             where e.task_no = t.task_no and e.task_no >> 32 >= ", $low, " and e.task_no >> 32 < ", $high,
            " offset 0) as s(phase, status, seq, delivery, retries, worker, queued_at, received_at, started_at, finished_at, \
             revoke_requested_at, runtime, failure_type, failure_message, retried_as, reason, corrected, traceback, progress, \
             children, result, dead)"
        )
    };
}
pub(super) use standing;

/// A condition that bounds the numbers of `t`.
#[rustfmt::skip]
macro_rules! between {
    ($low:literal, $high:literal) => { concat!("t.task_no >> 32 >= ", $low, " and t.task_no >> 32 < ", $high) };
}
pub(super) use between;

/// A join that reads the name and queue of `t` as `k`.
macro_rules! named {
    () => {
        " cross join lateral (select k.name, k.queue from taskgate.kind k where k.kind_no = t.kind_no offset 0) k "
    };
}
pub(super) use named;
