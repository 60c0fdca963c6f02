//! Submissions: one statement for all tasks of all submissions, one commit for the whole batch.
//!
//! Conflicts are looked up when a batch has keys, or after a unique violation: then the transaction starts again without the
//! conflicting submissions. Every repetition refuses at least one more, so it terminates.

use std::collections::HashSet;

use sqlx::{PgExecutor, Row};

use crate::admission::{Taken, judge, refusing_keys};
use crate::rows::{label_rows, labels_text, options_text, short};
use crate::statements::statements;
use crate::{Conflict, Error, Inserted, NewTask, Submission, headers, history};
use celery::task::{GroupId, TaskId};

use super::lane::Lane;
use super::pool::{self, Tx, is_deadlock, is_unique_violation, is_without_partition};
use super::{Store, dags, fan_out, limits, migrate, numbers, tasks};

/// Maximum number of attempts. A batch that fails more often does not fail because of other submissions.
pub(super) const MAX_ATTEMPTS: usize = 1000;

statements! {
    /// Numbers are assigned in the order of the batch, so that `task_no` is the order of acceptance. `$21` is each first event's encoding
    /// in the feed; `$22` to `$25` are for tasks that wait in a line or at a gate from the beginning.
    INSERT = "with input as materialized (\
         select nextval('taskgate.task_no') as task_no, i.* from unnest($1::uuid[], $2::text[], $3::int[], $4::smallint[], \
         $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[], $13::text[], \
         $14::text[], $15::int[], $16::bool[], $17::text[], $18::text[], $19::text[], $20::text[], $21::bytea[], $22::text[], $23::smallint[], \
         $24::text[], $25::int[]) with ordinality \
         as i(id, given_id, kind_no, priority, phase, headers, body, submitted_at, due_at, expires_at, wake_at, root_id, \
         parent_id, group_id, group_index, ignore_result, retry_of, schedule, labels, options, told, line, rank, gate, gate_max, place)), \
         new_task as (insert into taskgate.task (task_no, submitted_at, due_at, expires_at, id, kind_no, group_index, priority, \
         ignore_result, adopted, first_phase, given_id, root_id, parent_id, group_id, retry_of, schedule, labels, options, headers, body) \
         select task_no, submitted_at, due_at, expires_at, id, kind_no, group_index, priority, ignore_result, false, \
         nullif(phase, 'accepted'), given_id, root_id, parent_id, group_id, retry_of, schedule, labels, options, headers, body from input), \
         new_flight as (insert into taskgate.flight (task_no, seq, delivery, retries, waits, phase) \
         select task_no, 1, 1, 0, phase = 'waiting', phase from input), \
         new_outbox as (insert into taskgate.outbox (task_no, wake_at, accepted_at, line, rank, share, gate, gate_max) \
         select task_no, wake_at, submitted_at, line, rank, case when line is not null then '' end, gate, gate_max \
         from input where phase <> 'waiting'), \
         new_feed as (insert into taskgate.feed (pos, at, events) \
         select (pg_current_xact_id()::text::bigint << 20) + l.feed_offset + p.place, p.at, p.events from \
         (select min(place) as place, max(submitted_at) as at, string_agg(int8send(task_no) || told, '' order by place) as events \
         from input group by (place - 1) / 1000) p, taskgate.ledger l) \
         select task_no from input order by place";
    /// The same for plain tasks, with half of the columns. They are published at once, so they get no row in the outbox; `gather` finds those
    /// that were not published.
    INSERT_PLAIN = "with input as materialized (\
         select nextval('taskgate.task_no') as task_no, i.* from unnest($1::uuid[], $2::int[], $3::smallint[], $4::bool[], \
         $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bytea[]) with ordinality \
         as i(id, kind_no, priority, ignore_result, options, headers, body, submitted_at, told, place)), \
         new_task as (insert into taskgate.task (task_no, submitted_at, id, kind_no, priority, ignore_result, adopted, options, \
         headers, body) select task_no, submitted_at, id, kind_no, priority, ignore_result, false, options, headers, body from input), \
         new_flight as (insert into taskgate.flight (task_no, seq, delivery, retries, phase) \
         select task_no, 1, 1, 0, 'accepted' from input), \
         new_feed as (insert into taskgate.feed (pos, at, events) \
         select (pg_current_xact_id()::text::bigint << 20) + l.feed_offset + p.place, p.at, p.events from \
         (select min(place) as place, max(submitted_at) as at, string_agg(int8send(task_no) || told, '' order by place) as events \
         from input group by (place - 1) / 1000) p, taskgate.ledger l) \
         select task_no from input order by place";
    LABELS = "insert into taskgate.label (key, value, task_no) \
         select * from unnest($1::text[], $2::text[], $3::bigint[])";
    EDGES = "insert into taskgate.edge (from_no, to_no, kind) \
         select * from unnest($1::bigint[], $2::bigint[], $3::text[]) on conflict do nothing";
    GROUPS = "insert into taskgate.task_group (group_id, root_id, total, chord_size, submitted_at, structure) \
         select * from unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::bigint[], $6::text[])";
    /// `$1` numbers, `$2` ids of the retries; `$3` and `$4` bound the numbers.
    RETRIED = "with n as materialized (select * from unnest($1::bigint[], $2::text[]) as n(task_no, id)), \
         open as (update taskgate.flight f set retried_as = n.id from n where f.task_no = n.task_no) \
         update taskgate.ended e set retried_as = n.id from n where e.task_no = n.task_no and e.task_no >> 32 >= $3 and e.task_no >> 32 < $4";
    /// An expired key is free. `$6` is now.
    IDEMPOTENCY = "insert into taskgate.idempotency as k (scope, key, fingerprint, answer, expires_at) \
         select * from unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bigint[]) as n(scope, key, fp, answer, until) \
         order by scope, key on conflict (scope, key) do update set fingerprint = excluded.fingerprint, answer = excluded.answer, \
         expires_at = excluded.expires_at where k.expires_at <= $6";
    UNIQUE = "insert into taskgate.unique_key as k (key, task_id, expires_at) \
         select * from unnest($1::text[], $2::text[], $3::bigint[]) as n(key, id, until) order by key \
         on conflict (key) do update set task_id = excluded.task_id, expires_at = excluded.expires_at \
         where k.expires_at <= $4 or k.task_id = any($5::text[])";
    TAKEN_TASKS =
        "select coalesce(t.given_id, cast(t.id as text)) from taskgate.task t where t.id = any($1)";
    TAKEN_GROUPS = "select group_id from taskgate.task_group where group_id = any($1)";
    TAKEN_IDEMPOTENCY = "select k.scope, k.key, k.fingerprint, k.answer \
         from unnest($1::text[], $2::text[]) as n(scope, key) \
         join taskgate.idempotency k on k.scope = n.scope and k.key = n.key where k.expires_at > $3";
    TAKEN_UNIQUE =
        "select key, task_id from taskgate.unique_key where key = any($1) and expires_at > $2";
}

pub(super) type Answers = Vec<Result<Inserted, Conflict>>;

/// The result of an attempt.
enum Tried {
    Done(Answers),
    /// Another transaction took an id or a key meanwhile.
    Clash,
}

pub(super) async fn insert(store: &Store, lane: &Lane, batch: &[Submission]) -> Result<Answers, Error> {
    let has_keys = batch.iter().any(|submission| submission.idempotency.is_some() || submission.unique.is_some())
        || !refusing_keys(batch).is_empty();
    let is_fresh = |task: &NewTask, at| numbers::is_fresh(&task.id, at);
    let is_given = batch.iter().any(|submission| !submission.tasks.iter().all(|task| is_fresh(task, submission.at)));
    for attempt in 0..MAX_ATTEMPTS {
        // A chosen id may be taken in any partition; the index of the newest partition only covers fresh ids.
        let look_up = has_keys || is_given || attempt > 0;
        match try_insert(store, lane, batch, look_up).await {
            Ok(Tried::Done(answers)) => return Ok(answers),
            Ok(Tried::Clash) => {}
            Err(error) if is_deadlock(&error) => {}
            Err(error) if is_without_partition(&error) => migrate::roll(&store.pool).await?,
            Err(error) => return Err(error),
        }
    }
    Err(Error::Refused("a batch of submissions met a unique violation that no look-up explains".into()))
}

async fn try_insert(store: &Store, lane: &Lane, batch: &[Submission], look_up: bool) -> Result<Tried, Error> {
    if !look_up && batch.iter().all(is_plain) {
        return insert_plain(store, lane, batch).await;
    }
    let mut tx = pool::begin(&store.pool).await?;
    let Some(answers) = within(&mut tx, store, batch, look_up).await? else {
        tx.rollback().await?;
        return Ok(Tried::Clash);
    };
    tx.commit().await?;
    note(store, batch, &answers);
    Ok(Tried::Done(answers))
}

/// Caches the tasks, because reports about them will arrive soon.
fn note(store: &Store, batch: &[Submission], answers: &Answers) {
    let both = batch.iter().zip(answers).filter_map(|(submission, answer)| Some((submission, answer.as_ref().ok()?)));
    let tasks = both.flat_map(|(submission, inserted)| {
        submission.tasks.iter().zip(&inserted.task_nos).map(|(task, no)| (task, *no, submission.at))
    });
    store.known.note_inserted(tasks.filter(|(task, ..)| is_short(task)));
}

/// Whether the submission has only plain tasks: its one statement is a transaction by itself, with a third of the round trips.
fn is_plain(submission: &Submission) -> bool {
    let Submission { at: _, tasks, edges, groups, fan_out, idempotency, unique, dag } = submission;
    edges.is_empty()
        && groups.is_empty()
        && fan_out.is_none()
        && matches!((idempotency, unique, dag), (None, None, None))
        && tasks.iter().all(|task| task.labels.is_empty() && task.retry_of.is_none())
}

async fn insert_plain(store: &Store, lane: &Lane, batch: &[Submission]) -> Result<Tried, Error> {
    let mut verdicts = judge(batch, Taken::default());
    let admitted = admitted(batch, &verdicts);
    let kinds = kinds(store, &admitted).await?;
    let written = match lane.take_free().await? {
        Some(mut connection) => {
            let written = lane.limited(tasks(&mut *connection, &admitted, &kinds)).await;
            connection.keep(&written);
            written
        }
        None => tasks(&store.pool, &admitted, &kinds).await,
    };
    match written {
        Ok(numbers) => {
            let answers = answers(&mut verdicts, inserted(&admitted, numbers));
            note(store, batch, &answers);
            Ok(Tried::Done(answers))
        }
        Err(error) if is_unique_violation(&error) => Ok(Tried::Clash),
        Err(error) => Err(error.into()),
    }
}

fn admitted<'a>(batch: &'a [Submission], verdicts: &[Option<Conflict>]) -> Vec<&'a Submission> {
    let both = batch.iter().zip(verdicts);
    both.filter(|(_, refused)| refused.is_none()).map(|(submission, _)| submission).collect()
}

fn answers(verdicts: &mut [Option<Conflict>], inserted: Vec<Inserted>) -> Answers {
    let mut inserted = inserted.into_iter();
    let answer = |refused: &mut Option<Conflict>| match refused.take() {
        Some(conflict) => Err(conflict),
        None => Ok(inserted.next().expect("one answer per admitted submission")),
    };
    verdicts.iter_mut().map(answer).collect()
}

fn inserted(batch: &[&Submission], numbers: Vec<i64>) -> Vec<Inserted> {
    let mut numbers = numbers.into_iter();
    batch
        .iter()
        .map(|submission| Inserted { task_nos: numbers.by_ref().take(submission.tasks.len()).collect() })
        .collect()
}

/// Inserts in the caller's transaction. `None` after a conflict with another transaction: then the caller's is aborted, and the next attempt
/// must `look_up` taken ids and keys.
pub(super) async fn within(
    tx: &mut Tx,
    store: &Store,
    batch: &[Submission],
    look_up: bool,
) -> Result<Option<Answers>, Error> {
    let taken = if look_up { taken(tx, batch).await? } else { Taken::default() };
    let mut verdicts = judge(batch, taken);
    let admitted = admitted(batch, &verdicts);
    let Some(inserted) = write(tx, store, &admitted).await? else { return Ok(None) };
    Ok(Some(answers(&mut verdicts, inserted)))
}

async fn taken(tx: &mut Tx, batch: &[Submission]) -> Result<Taken, Error> {
    let mut taken = Taken::default();
    let ids = numbers::keys(batch.iter().flat_map(|s| &s.tasks).map(|task| &task.id));
    for row in sqlx::query(TAKEN_TASKS).bind(ids).fetch_all(&mut **tx).await? {
        taken.tasks.insert(row.try_get(0)?);
    }
    let groups: Vec<&str> = batch.iter().flat_map(|s| &s.groups).map(|group| group.id.as_str()).collect();
    for row in sqlx::query(TAKEN_GROUPS).bind(groups).fetch_all(&mut **tx).await? {
        taken.groups.insert(row.try_get(0)?);
    }
    let now = now(batch);
    let keys = || batch.iter().filter_map(|submission| submission.idempotency.as_ref());
    let rows = sqlx::query(TAKEN_IDEMPOTENCY)
        .bind(keys().map(|key| key.scope.as_str()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.key.as_str()).collect::<Vec<_>>())
        .bind(now)
        .fetch_all(&mut **tx)
        .await?;
    for row in rows {
        taken.idempotency.insert((row.try_get(0)?, row.try_get(1)?), (row.try_get(2)?, row.try_get(3)?));
    }
    let unique: Vec<&str> = batch.iter().filter_map(|s| s.unique.as_ref()).map(|key| key.key.as_str()).collect();
    for row in sqlx::query(TAKEN_UNIQUE).bind(unique).bind(now).fetch_all(&mut **tx).await? {
        taken.unique.insert(row.try_get(0)?, row.try_get(1)?);
    }
    taken.keys = limits::decide(tx, &refusing_keys(batch)).await?;
    Ok(taken)
}

/// The latest time in the batch.
fn now(batch: &[Submission]) -> i64 {
    batch.iter().map(|submission| submission.at.0).max().unwrap_or_default()
}

/// Writes the batch. `None` after a conflict with another transaction.
async fn write(tx: &mut Tx, store: &Store, batch: &[&Submission]) -> Result<Option<Vec<Inserted>>, Error> {
    let kinds = kinds(store, batch).await?;
    let numbers = match tasks(&mut **tx, batch, &kinds).await {
        Ok(numbers) => numbers,
        Err(error) if is_unique_violation(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let inserted = inserted(batch, numbers);
    match extras(tx, batch, &inserted).await {
        Ok(true) => Ok(Some(inserted)),
        Ok(false) => Ok(None),
        Err(error) if is_unique_violation(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The kind numbers of all tasks of the batch, in order.
async fn kinds(store: &Store, batch: &[&Submission]) -> Result<Vec<i32>, Error> {
    let tasks = batch.iter().flat_map(|submission| &submission.tasks);
    let pairs: Vec<(&str, &str)> = tasks.map(|task| (task.name.as_str(), task.queue.as_str())).collect();
    store.kinds.numbers(&store.pool, &pairs).await
}

async fn tasks(executor: impl PgExecutor<'_>, batch: &[&Submission], kinds: &[i32]) -> Result<Vec<i64>, sqlx::Error> {
    let rows = || batch.iter().flat_map(|&submission| submission.tasks.iter().map(move |task| (submission, task)));
    if rows().next().is_none() {
        return Ok(Vec::new());
    }
    let tasks = || rows().map(|(_, task)| task);
    let ids = tasks().map(|task| numbers::key(task.id.as_str())).collect::<Vec<_>>();
    let priorities = tasks().map(|task| i16::from(task.priority.get())).collect::<Vec<_>>();
    let packed =
        |task: &NewTask| task.headers.as_deref().map(|text| headers::pack(text, task.id.as_str(), task.name.as_str()));
    let packed = tasks().map(packed).collect::<Vec<_>>();
    let bodies = tasks().map(|task| task.body.as_str()).collect::<Vec<_>>();
    let times = rows().map(|(submission, _)| submission.at.0).collect::<Vec<_>>();
    let ignored = tasks().map(|task| task.ignore_result).collect::<Vec<_>>();
    let options = tasks().map(|task| options_text(&task.options)).collect::<Vec<_>>();
    let told = rows().map(|(submission, task)| history::first(task.phase, submission.at)).collect::<Vec<_>>();
    let query = if tasks().all(is_short) {
        let query = sqlx::query(INSERT_PLAIN).bind(ids).bind(kinds).bind(priorities).bind(ignored).bind(options);
        query.bind(packed).bind(bodies).bind(times).bind(told)
    } else {
        sqlx::query(INSERT)
            .bind(ids)
            .bind(tasks().map(|task| numbers::given(&task.id)).collect::<Vec<_>>())
            .bind(kinds)
            .bind(priorities)
            .bind(tasks().map(|task| task.phase.as_str()).collect::<Vec<_>>())
            .bind(packed)
            .bind(bodies)
            .bind(times)
            .bind(tasks().map(|task| task.due_at.map(|at| at.0)).collect::<Vec<_>>())
            .bind(tasks().map(|task| task.expires_at.map(|at| at.0)).collect::<Vec<_>>())
            .bind(rows().map(|(submission, task)| task.wake_at(submission.at)).collect::<Vec<_>>())
            .bind(tasks().map(|task| (task.root_id != task.id).then_some(task.root_id.as_str())).collect::<Vec<_>>())
            .bind(tasks().map(|task| task.parent_id.as_ref().map(TaskId::as_str)).collect::<Vec<_>>())
            .bind(tasks().map(|task| task.group_id.as_ref().map(GroupId::as_str)).collect::<Vec<_>>())
            .bind(tasks().map(|task| task.group_index).collect::<Vec<_>>())
            .bind(ignored)
            .bind(tasks().map(|task| task.retry_of.as_ref().map(TaskId::as_str)).collect::<Vec<_>>())
            .bind(tasks().map(|task| task.schedule.as_deref().map(short)).collect::<Vec<_>>())
            .bind(tasks().map(|task| labels_text(&task.labels)).collect::<Vec<_>>())
            .bind(options)
            .bind(told)
            .bind(tasks().map(|task| task.rank().map(|_| task.queue.as_str())).collect::<Vec<_>>())
            .bind(tasks().map(NewTask::rank).collect::<Vec<_>>())
            .bind(tasks().map(|task| task.gate().map(|gate| gate.name().to_owned())).collect::<Vec<_>>())
            .bind(tasks().map(|task| task.gate().and_then(|gate| gate.max())).collect::<Vec<_>>())
    };
    query.fetch_all(executor).await?.iter().map(|row| row.try_get(0)).collect()
}

/// Whether the columns of [`INSERT_PLAIN`] are enough for the task.
fn is_short(task: &NewTask) -> bool {
    task.is_plain() && numbers::given(&task.id).is_none()
}

/// Writes the rows that only some submissions have (edges, groups, labels, keys and others). False when another transaction took a key first.
async fn extras(tx: &mut Tx, batch: &[&Submission], inserted: &[Inserted]) -> Result<bool, sqlx::Error> {
    labels(tx, batch, inserted).await?;
    edges(tx, batch, inserted).await?;
    groups(tx, batch).await?;
    retried(tx, batch).await?;
    for (submission, inserted) in batch.iter().zip(inserted) {
        fan_out::insert(tx, submission).await?;
        dags::insert(tx, submission, &inserted.task_nos).await?;
    }
    Ok(idempotency(tx, batch).await? && unique(tx, batch).await?)
}

async fn labels(tx: &mut Tx, batch: &[&Submission], inserted: &[Inserted]) -> Result<(), sqlx::Error> {
    let (mut keys, mut values, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for (submission, inserted) in batch.iter().zip(inserted) {
        for (task, &no) in submission.tasks.iter().zip(&inserted.task_nos) {
            for (key, value) in label_rows(&task.labels) {
                keys.push(key);
                values.push(value);
                numbers.push(no);
            }
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(LABELS).bind(keys).bind(values).bind(numbers).execute(&mut **tx).await?;
    Ok(())
}

async fn edges(tx: &mut Tx, batch: &[&Submission], inserted: &[Inserted]) -> Result<(), sqlx::Error> {
    let edges = || {
        batch.iter().zip(inserted).flat_map(|(submission, inserted)| {
            submission
                .edges
                .iter()
                .map(|edge| (inserted.task_nos[edge.from], inserted.task_nos[edge.to], edge.kind.as_str()))
        })
    };
    if edges().next().is_none() {
        return Ok(());
    }
    sqlx::query(EDGES)
        .bind(edges().map(|edge| edge.0).collect::<Vec<_>>())
        .bind(edges().map(|edge| edge.1).collect::<Vec<_>>())
        .bind(edges().map(|edge| edge.2).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn groups(tx: &mut Tx, batch: &[&Submission]) -> Result<(), sqlx::Error> {
    let groups = || batch.iter().flat_map(|submission| submission.groups.iter().map(|group| (submission.at.0, group)));
    if groups().next().is_none() {
        return Ok(());
    }
    sqlx::query(GROUPS)
        .bind(groups().map(|(_, group)| group.id.as_str()).collect::<Vec<_>>())
        .bind(groups().map(|(_, group)| group.root_id.as_str()).collect::<Vec<_>>())
        .bind(groups().map(|(_, group)| group.total).collect::<Vec<_>>())
        .bind(groups().map(|(_, group)| group.chord_size).collect::<Vec<_>>())
        .bind(groups().map(|(at, _)| at).collect::<Vec<_>>())
        .bind(groups().map(|(_, group)| group.structure.as_ref().map(|json| json.get())).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn retried(tx: &mut Tx, batch: &[&Submission]) -> Result<(), sqlx::Error> {
    let mut seen = HashSet::new();
    let pairs: Vec<(uuid::Uuid, &str)> = batch
        .iter()
        .flat_map(|submission| &submission.tasks)
        .filter_map(|task| task.retry_of.as_ref().map(|old| (numbers::key(old.as_str()), task.id.as_str())))
        .filter(|(old, _)| seen.insert(*old))
        .collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let found = tasks::numbers_of(tx, &pairs.iter().map(|(old, _)| *old).collect::<Vec<_>>()).await?;
    let mut known: Vec<(i64, &str)> =
        pairs.into_iter().filter_map(|(old, new)| Some((*found.get(&old)?, new))).collect();
    known.sort_unstable();
    let (old, new): (Vec<i64>, Vec<&str>) = known.into_iter().unzip();
    let (low, high) = numbers::span(&old);
    sqlx::query(RETRIED).bind(old).bind(new).bind(low).bind(high).execute(&mut **tx).await?;
    Ok(())
}

async fn idempotency(tx: &mut Tx, batch: &[&Submission]) -> Result<bool, sqlx::Error> {
    let keys = || batch.iter().filter_map(|submission| submission.idempotency.as_ref());
    let count = keys().count();
    if count == 0 {
        return Ok(true);
    }
    let done = sqlx::query(IDEMPOTENCY)
        .bind(keys().map(|key| key.scope.as_str()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.key.as_str()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.fingerprint.as_slice()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.answer.get()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.expires_at.0).collect::<Vec<_>>())
        .bind(batch.iter().map(|submission| submission.at.0).max().unwrap_or_default())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == count as u64)
}

async fn unique(tx: &mut Tx, batch: &[&Submission]) -> Result<bool, sqlx::Error> {
    let keys = || batch.iter().filter_map(|submission| submission.unique.as_ref());
    let count = keys().count();
    if count == 0 {
        return Ok(true);
    }
    let done = sqlx::query(UNIQUE)
        .bind(keys().map(|key| key.key.as_str()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.task_id.as_str()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.until.map_or(i64::MAX, |at| at.0)).collect::<Vec<_>>())
        .bind(batch.iter().map(|submission| submission.at.0).max().unwrap_or_default())
        .bind(keys().filter_map(|key| key.replaces.as_ref()).map(TaskId::as_str).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == count as u64)
}
