//! A statement for the most frequent steps: a task that this process has cached is received, starts or succeeds, and its history can be
//! derived from its columns. It costs a fourth less than the general one: half of the columns, no read of the row before its change, no join.
//!
//! A row takes its values from arrays, by the index of its number among the numbers. A row that differs from the assumed state is not
//! changed, and not counted.
//!
//! A batch that has only such steps is one statement and one round trip ([`ALONE`]), which fails as a whole if a row is not as assumed: in
//! small batches, the round trips of a transaction cost the server as much as the rows.

use celery::task::Phase;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};

use crate::applied::Entry;
use crate::statements::statements;
use crate::{Error, Fence, Task};

use super::pool::Tx;
use super::save::seq;

/// The index of a row's number among the statement's numbers, which ascend.
macro_rules! place {
    ($numbers:literal) => {
        concat!("width_bucket(f.task_no, ", $numbers, ")")
    };
}

/// The value of a parameter for a row of `flight`.
macro_rules! at_place {
    ($list:literal, $numbers:literal) => {
        concat!("(", $list, ")[", place!($numbers), "]")
    };
}

/// What both statements write.
macro_rules! written {
    () => {
        concat!(
            "moved as (update taskgate.flight f set seq = ", at_place!("$3::int[]", "$1"), ", phase = ", at_place!("$4::text[]", "$1"),
            ", worker = ", at_place!("$5::text[]", "$1"), ", queued_at = coalesce(", at_place!("$6::bigint[]", "$1"), ", f.queued_at)",
            ", received_at = ", at_place!("$7::bigint[]", "$1"), ", started_at = ", at_place!("$8::bigint[]", "$1"),
            ", at_worker = true, waits = false, status = null, reason = null \
             where f.task_no = any($1::bigint[]) and f.seq = ", at_place!("$2::int[]", "$1"),
            " and f.revoke_requested_at is null and f.history is null returning 1), \
             gone as (delete from taskgate.flight f where f.task_no = any($9::bigint[]) and f.seq = ", at_place!("$10::int[]", "$9"),
            " and f.revoke_requested_at is null and f.retried_as is null and f.history is null \
             returning f.task_no, f.queued_at, f.delivery, f.retries, f.progress, f.children, ", place!("$9"), " as place), \
             over as (insert into taskgate.ended (task_no, queued_at, received_at, started_at, finished_at, runtime, seq, delivery, retries, \
             corrected, dead, phase, worker, progress, children, result) \
             select g.task_no, coalesce(($13::bigint[])[g.place], g.queued_at), ($14::bigint[])[g.place], ($15::bigint[])[g.place], \
             ($16::bigint[])[g.place], ($17::float8[])[g.place], ($11::int[])[g.place], g.delivery, g.retries, false, false, 'succeeded', \
             ($12::text[])[g.place], g.progress, g.children, ($24::text[])[g.place] from gone g), \
             let_go as (delete from taskgate.gate_hold where task_no = any($9::bigint[])), \
             taken as (delete from taskgate.window_slot where task_no = any($1::bigint[] || $9::bigint[])), \
             freed as (delete from taskgate.unique_key where task_id = any($18::text[]) and expires_at = 9223372036854775807), \
             told as (insert into taskgate.feed (pos, at, events) \
             select (pg_current_xact_id()::text::bigint << 20) + l.feed_offset + $19::bigint + p.place, p.at, p.events \
             from unnest($20::bigint[], $21::bigint[], $22::bytea[]) as p(place, at, events), taskgate.ledger l)"
        )
    };
}

statements! {
    /// Tasks that stay in flight: `$1` numbers, `$2` the `seq` that each must still have, `$3` to `$8` columns. Tasks that succeeded: `$9` and
    /// `$10` the same, `$11` to `$17` columns, `$18` their ids. `$19` how many events this transaction wrote before; `$20` indexes, `$21` times
    /// and `$22` bytes of rows of the feed; `$23` the notification.
    ORDINARY = concat!(
        "with ",
        written!(),
        " select (select count(*) from moved) + (select count(*) from gone) as done, \
         case when $23::text is not null then cast(pg_notify('taskgate', $23) as text) end as told"
    );
    /// The same as a transaction by itself, which is undone by an error unless all `$29` rows are as assumed, and unless the fence holds: `$25`
    /// the lease or null, `$26` its term, `$27` until when it is renewed, which is done first. `$28` whether the commit need not wait for the
    /// disk.
    ALONE = concat!(
        "with fence as (update taskgate.lease set expires_at = greatest(expires_at, $27::bigint) \
         where name = $25::text and term = $26::bigint returning 1), ",
        written!(),
        " select case when $25 is not null and not exists (select 1 from fence) then taskgate.undo('fence') \
         when (select count(*) from moved) + (select count(*) from gone) <> $29::bigint then taskgate.undo('task') end as undone, \
         case when $28 then set_config('synchronous_commit', 'off', true) end as mode, \
         case when $23::text is not null then cast(pg_notify('taskgate', $23) as text) end as told"
    );
}

/// The last parameters: the number of events written before; indexes, times and bytes of feed rows; the notification.
pub(super) type Told = (i64, (Vec<i64>, Vec<i64>, Vec<Vec<u8>>), Option<String>);

/// Whether [`ORDINARY`] can write all changes of a task. `is_plain`: its history can be derived from its columns.
pub(super) fn is_ordinary(entry: &Entry, is_plain: bool) -> bool {
    let (task, was) = (&entry.task, &entry.was);
    let says_nothing = |task: &Task| {
        task.reason.is_none()
            && task.status == task.phase.status()
            && task.failure.is_none()
            && task.traceback.is_none()
            && task.retried_as.is_none()
    };
    let has_no_more = task.progress.is_none() && task.children.is_none();
    let is_step = match task.phase {
        Phase::Received | Phase::Running => !entry.outcome && task.runtime == was.runtime,
        Phase::Succeeded => !was.phase.is_final(),
        Phase::Accepted
        | Phase::Held
        | Phase::Waiting
        | Phase::Queued
        | Phase::Retrying
        | Phase::Failed
        | Phase::Revoked
        | Phase::Expired
        | Phase::Skipped
        | Phase::Lost
        | Phase::Ignored => false,
    };
    is_plain && is_step && entry.assumed.is_some() && says_nothing(task) && says_nothing(was) && has_no_more
}

/// How many rows were as assumed.
pub(super) async fn write(tx: &mut Tx, entries: &[&Entry], told: Told) -> Result<i64, Error> {
    let (steps, ends) = sorted(entries);
    let row = bound(sqlx::query(ORDINARY), &steps, &ends, told).fetch_one(&mut **tx).await?;
    Ok(row.try_get(0)?)
}

/// Writes and commits at once, with one round trip.
///
/// # Errors
/// [`is_fenced`] and [`is_changed`] tell why everything was undone.
pub(super) async fn write_alone(
    connection: &mut PgConnection,
    entries: &[&Entry],
    told: Told,
    durable: bool,
    fence: Option<&Fence>,
) -> Result<(), sqlx::Error> {
    let (steps, ends) = sorted(entries);
    let query = bound(sqlx::query(ALONE), &steps, &ends, told)
        .bind(fence.map(|fence| fence.lease))
        .bind(fence.map(|fence| fence.term))
        .bind(fence.map(|fence| fence.until.0))
        .bind(!durable)
        .bind(i64::try_from(entries.len()).unwrap_or(i64::MAX));
    query.fetch_one(connection).await.map(|_| ())
}

/// Whether the statement was undone because the fence does not hold any more.
pub(super) fn is_fenced(error: &sqlx::Error) -> bool {
    is_undone(error, "TG001")
}

/// Whether the statement was undone because a row was not as assumed.
pub(super) fn is_changed(error: &sqlx::Error) -> bool {
    is_undone(error, "TG002")
}

/// By the SQLSTATE that `taskgate.undo` raises.
fn is_undone(error: &sqlx::Error, code: &str) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().is_some_and(|found| found == code))
}

/// The steps and the ends, each by ascending number.
fn sorted<'q>(entries: &[&'q Entry]) -> (Vec<&'q Entry>, Vec<&'q Entry>) {
    let mut entries = entries.to_vec();
    entries.sort_unstable_by_key(|entry| entry.task.no);
    entries.into_iter().partition(|entry| !entry.task.phase.is_final())
}

/// Binds what both statements write.
fn bound<'q>(query: Statement<'q>, steps: &[&'q Entry], ends: &[&'q Entry], told: Told) -> Statement<'q> {
    let (before, (places, times, texts), word) = told;
    let query = assumed(query, steps)
        .bind(column(steps, |task| seq(task.seq)))
        .bind(column(steps, |task| task.phase.as_str()))
        .bind(column(steps, |task| task.worker.as_deref()))
        .bind(column(steps, |task| task.queued_at.map(|at| at.0)))
        .bind(column(steps, |task| task.received_at.map(|at| at.0)))
        .bind(column(steps, |task| task.started_at.map(|at| at.0)));
    assumed(query, ends)
        .bind(column(ends, |task| seq(task.seq)))
        .bind(column(ends, |task| task.worker.as_deref()))
        .bind(column(ends, |task| task.queued_at.map(|at| at.0)))
        .bind(column(ends, |task| task.received_at.map(|at| at.0)))
        .bind(column(ends, |task| task.started_at.map(|at| at.0)))
        .bind(column(ends, |task| task.finished_at.map(|at| at.0)))
        .bind(column(ends, |task| task.runtime))
        .bind(column(ends, |task| task.id.as_str()))
        .bind(before)
        .bind(places)
        .bind(times)
        .bind(texts)
        .bind(word)
        .bind(column(ends, |task| task.result.as_ref().map(|json| json.get())))
}

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Binds the numbers and the `seq` that each row must still have.
fn assumed<'q>(query: Statement<'q>, entries: &[&'q Entry]) -> Statement<'q> {
    let numbers: Vec<i64> = column(entries, |task| task.no);
    query.bind(numbers).bind(entries.iter().map(|entry| entry.assumed.map(seq)).collect::<Vec<_>>())
}

fn column<'q, T>(entries: &[&'q Entry], of: impl Fn(&'q Task) -> T) -> Vec<T> {
    entries.iter().map(|entry| of(&entry.task)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::applied::Applied;
    use crate::types::sample_task;
    use crate::{News, Source};
    use celery::task::TaskId;
    use runtime::clock::Time;

    /// A cached task in `phase` for which this report arrived.
    fn entry(phase: Phase, news: News) -> Entry {
        let mut applied = Applied::default();
        applied.assume(vec![sample_task("t", phase, Time(0))]);
        applied.learn(&news);
        applied.entries.pop().unwrap()
    }

    fn heard(phase: Phase) -> News {
        News::new(TaskId::parse("t").unwrap(), Source::Event, phase, Time(9))
    }

    #[test]
    fn a_step_and_a_success_are_ordinary() {
        for (before, after) in [(Phase::Queued, Phase::Received), (Phase::Received, Phase::Running)] {
            assert!(is_ordinary(&entry(before, heard(after)), true), "{after:?}");
        }
        assert!(is_ordinary(&entry(Phase::Running, heard(Phase::Succeeded)), true));
    }

    #[test]
    fn what_says_more_or_was_not_assumed_is_not() {
        assert!(!is_ordinary(&entry(Phase::Queued, heard(Phase::Received)), false), "its history is stored");
        assert!(!is_ordinary(&entry(Phase::Running, heard(Phase::Failed)), true));
        assert!(!is_ordinary(&entry(Phase::Running, heard(Phase::Retrying)), true));
        let reason = Some("why".to_owned());
        assert!(!is_ordinary(&entry(Phase::Queued, News { reason, ..heard(Phase::Received) }), true));
        let children = Some(serde_json::value::RawValue::from_string("[]".to_owned()).unwrap());
        assert!(!is_ordinary(&entry(Phase::Running, News { children, ..heard(Phase::Succeeded) }), true));
        let locked = Entry { assumed: None, ..entry(Phase::Queued, heard(Phase::Received)) };
        assert!(!is_ordinary(&locked, true));
    }
}
