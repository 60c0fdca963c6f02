//! Reading tasks: by id, by number, the unfinished ones.

use std::collections::{HashMap, HashSet};

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::columns::{between, fact_columns, named, open_columns, standing, state_columns};
use super::numbers::{self, ANYWHERE};
use super::pool::Tx;
use super::pooled::Pool;
use super::rows;
use crate::headers;
use crate::rows::clean;
use crate::statements::statements;
use crate::unreadable::{self, full_page};
use crate::{Error, Message, Task};
use celery::task::{Phase, TaskId};
use runtime::clock::Time;

/// Reads unfinished tasks after `$1` in the order of their numbers, of the phases `$2` (all when empty), at most `$3`. `$only` is a
/// condition that an index covers.
macro_rules! open_tasks {
    ($only:literal) => {
        concat!(
            "select ",
            fact_columns!(),
            ", ",
            open_columns!(),
            " from (select * from taskgate.flight s where ",
            $only,
            "s.task_no > $1 and (cardinality($2::text[]) = 0 or s.phase = any($2)) order by s.task_no limit $3) s \
             cross join lateral (select * from taskgate.task t where t.task_no = s.task_no and t.task_no >> 32 = s.task_no >> 32 offset 0) t",
            named!(),
            "order by s.task_no"
        )
    };
}

statements! {
    /// `$1` keys of ids; `$2` and `$3` bound the numbers, here and in the following statements.
    TASKS = concat!(
        "select ",
        fact_columns!(),
        ", ",
        state_columns!(),
        " from ",
        standing!(full, "$2", "$3"),
        " where t.id = any($1) and ",
        between!("$2", "$3")
    );
    STANDING = concat!(
        "select ",
        fact_columns!(),
        ", ",
        state_columns!(),
        " from ",
        standing!(light, "$2", "$3"),
        " where t.id = any($1) and ",
        between!("$2", "$3")
    );
    /// `$1` numbers.
    NUMBERED = concat!(
        "select ",
        fact_columns!(),
        ", ",
        state_columns!(),
        " from ",
        standing!(full, "$2", "$3"),
        " where t.task_no = any($1) and ",
        between!("$2", "$3"),
        " order by t.task_no"
    );
    /// `$1` name, `$2` earliest submission, `$3` its day, `$4` limit. Reads the sizes of results without the texts.
    RESULT_SIZES = "select octet_length(e.result)::bigint from taskgate.kind k cross join lateral (\
         select task_no, submitted_at from taskgate.task where kind_no = k.kind_no and task_no >> 32 >= $3 \
         order by kind_no desc, task_no desc limit 100) t join taskgate.ended e on e.task_no = t.task_no and e.task_no >> 32 >= $3 \
         where k.name = $1 and t.submitted_at >= $2 and e.phase = 'succeeded' order by t.task_no desc limit $4";
    MESSAGE = concat!(
        "select t.headers, t.body, k.name from taskgate.task t",
        named!(),
        "where t.id = any($1) and ",
        between!("$2", "$3")
    );
    UNFINISHED = open_tasks!("");
    /// As [`UNFINISHED`], if all phases are those of tasks at workers; does not read queued tasks.
    AT_WORKER = open_tasks!("s.at_worker and ");
    /// As [`UNFINISHED`], if the only phase is `waiting`.
    WAITING = open_tasks!("s.waits and ");
    EXPIRED = concat!(
        "select ",
        fact_columns!(),
        ", ",
        open_columns!(),
        " from (select * from taskgate.task t where t.expires_at > $1 and t.expires_at <= $2 order by t.expires_at offset 0) t",
        named!(),
        "cross join lateral (select * from taskgate.flight f where f.task_no = t.task_no and f.phase = 'queued' offset 0) s limit $3"
    );
    CENSUS = "select k.queue, s.phase, count(*) from taskgate.flight s \
         cross join lateral (select t.kind_no from taskgate.task t where t.task_no = s.task_no and t.task_no >> 32 = s.task_no >> 32 offset 0) t \
         cross join lateral (select k.queue from taskgate.kind k where k.kind_no = t.kind_no offset 0) k where s.task_no >= 0 group by 1, 2";
    /// `$1` keys of ids; `$2` and `$3` bound the numbers.
    NUMBERS = concat!("select t.task_no, t.id from taskgate.task t where t.id = any($1) and ", between!("$2", "$3"));
    /// Skips from one name to the next along the index.
    QUEUES = "with recursive known(queue) as (\
         select min(queue) from taskgate.kind where queue > '' \
         union all select (select min(k.queue) from taskgate.kind k where k.queue > known.queue) \
         from known where known.queue is not null) select queue from known where queue is not null limit $1";
    NAMES = "with recursive known(name) as (\
         select min(name) from taskgate.kind where name > '' \
         union all select (select min(k.name) from taskgate.kind k where k.name > known.name) \
         from known where known.name is not null) select name from known where name is not null limit $1";
    /// `$1` the key of an id; finds tasks that were pruned alone or with their partition.
    TOMBSTONE = "select taskgate.pruned_at($1)";
}

/// Rows of `statement` for these ids: first in the expected partitions, then anywhere for missing ones.
pub(super) async fn by_id(pool: &Pool, statement: &'static str, keys: &[Uuid]) -> Result<Vec<PgRow>, Error> {
    let place = numbers::place(keys);
    let mut found = select(pool, statement, keys, place).await?;
    if found.len() < keys.len() && place != ANYWHERE {
        // If an id is repeated, fewer rows are found, which only costs a second look-up.
        let known: HashSet<Uuid> = found.iter().map(key_of).collect::<Result<_, Error>>()?;
        let missing: Vec<Uuid> = keys.iter().copied().filter(|key| !known.contains(key)).collect();
        if !missing.is_empty() {
            found.extend(select(pool, statement, &missing, ANYWHERE).await?);
        }
    }
    Ok(found)
}

/// The numbers of these ids, within a transaction: first from the expected partitions, then from all.
pub(super) async fn numbers_of(tx: &mut Tx, keys: &[Uuid]) -> Result<HashMap<Uuid, i64>, sqlx::Error> {
    let mut found = HashMap::new();
    for (low, high) in [numbers::place(keys), ANYWHERE] {
        let missing: Vec<Uuid> = keys.iter().copied().filter(|key| !found.contains_key(key)).collect();
        if missing.is_empty() {
            break;
        }
        for row in sqlx::query(NUMBERS).bind(missing).bind(low).bind(high).fetch_all(&mut **tx).await? {
            found.insert(row.try_get(1)?, row.try_get(0)?);
        }
    }
    Ok(found)
}

fn key_of(row: &PgRow) -> Result<Uuid, Error> {
    Ok(numbers::key(row.try_get::<&str, _>("task_id")?))
}

async fn select(
    pool: &Pool,
    statement: &'static str,
    keys: &[Uuid],
    (low, high): (i64, i64),
) -> Result<Vec<PgRow>, Error> {
    Ok(sqlx::query(statement).bind(keys).bind(low).bind(high).fetch_all(pool).await?)
}

pub(super) async fn task(pool: &Pool, id: &TaskId) -> Result<Option<Task>, Error> {
    by_id(pool, TASKS, &[numbers::key(id.as_str())]).await?.first().map(rows::task).transpose()
}

pub(super) async fn message(pool: &Pool, id: &TaskId) -> Result<Option<Message>, Error> {
    let keys = [numbers::key(id.as_str())];
    let mut found = select(pool, MESSAGE, &keys, numbers::place(&keys)).await?;
    if found.is_empty() {
        found = select(pool, MESSAGE, &keys, ANYWHERE).await?;
    }
    let Some(row) = found.first() else { return Ok(None) };
    let (packed, body): (Option<&str>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let name: &str = row.try_get(2)?;
    Ok(body.map(|body| Message { headers: packed.map(|text| headers::unpack(text, id.as_str(), name)), body }))
}

/// A page is shorter than `limit` only at the end, although rows that cannot be read are left out.
pub(super) async fn unfinished(
    pool: &Pool,
    unreadable: &unreadable::Unreadable,
    phases: &[Phase],
    mut after: i64,
    limit: i64,
) -> Result<Vec<Task>, Error> {
    let statement = match phases {
        [Phase::Waiting] => WAITING,
        some if !some.is_empty() && some.iter().all(|phase| phase.is_at_worker()) => AT_WORKER,
        _ => UNFINISHED,
    };
    let phases: Vec<&str> = phases.iter().map(|phase| phase.as_str()).collect();
    full_page!(unreadable, after, limit, |missing| {
        sqlx::query(statement).bind(after).bind(&phases).bind(missing).fetch_all(pool).await?
    })
}

pub(super) async fn tasks_by_id(pool: &Pool, ids: &[TaskId]) -> Result<Vec<Task>, Error> {
    rows::tasks(&by_id(pool, TASKS, &numbers::keys(ids)).await?)
}

pub(super) async fn standing(pool: &Pool, ids: &[TaskId]) -> Result<Vec<Task>, Error> {
    rows::tasks(&by_id(pool, STANDING, &numbers::keys(ids)).await?)
}

pub(super) async fn numbered(pool: &Pool, task_nos: &[i64]) -> Result<Vec<Task>, Error> {
    let (low, high) = numbers::span(task_nos);
    rows::tasks(&sqlx::query(NUMBERED).bind(task_nos).bind(low).bind(high).fetch_all(pool).await?)
}

pub(super) async fn expired(
    pool: &Pool,
    unreadable: &unreadable::Unreadable,
    since: Time,
    now: Time,
    limit: i64,
) -> Result<Vec<Task>, Error> {
    let rows = sqlx::query(EXPIRED).bind(since.0).bind(now.0).bind(limit).fetch_all(pool).await?;
    unreadable.leave_out(&rows, rows::task)
}

pub(super) async fn queues(pool: &Pool, limit: i64) -> Result<Vec<String>, Error> {
    sqlx::query(QUEUES).bind(limit).fetch_all(pool).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) async fn names(pool: &Pool, limit: i64) -> Result<Vec<String>, Error> {
    sqlx::query(NAMES).bind(limit).fetch_all(pool).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) async fn result_sizes(pool: &Pool, name: &str, since: Time, limit: i64) -> Result<Vec<i64>, Error> {
    let query = sqlx::query(RESULT_SIZES).bind(clean(name)).bind(since.0).bind(numbers::first_day(since)).bind(limit);
    query.fetch_all(pool).await?.iter().map(|row| Ok(row.try_get::<Option<i64>, _>(0)?.unwrap_or(0))).collect()
}

pub(super) async fn census(pool: &Pool) -> Result<HashMap<(String, Phase), i64>, Error> {
    let found = sqlx::query(CENSUS).fetch_all(pool).await?;
    let entry = |row: &PgRow| {
        let phase = crate::rows::phase(row.try_get(1)?, "flight", 0)?;
        Ok(((row.try_get(0)?, phase), row.try_get(2)?))
    };
    found.iter().map(entry).collect()
}

pub(super) async fn tombstone(pool: &Pool, id: &str) -> Result<Option<Time>, Error> {
    let row = sqlx::query(TOMBSTONE).bind(numbers::key(id)).fetch_one(pool).await?;
    Ok(row.try_get::<Option<i64>, _>(0)?.map(Time))
}
