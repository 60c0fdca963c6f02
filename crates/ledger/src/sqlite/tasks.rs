//! Reading tasks: one by id, lists by filter, the unfinished ones.
//!
//! Every list is newest first by `task_no`, through the index of its most selective condition.

use std::collections::HashMap;

use sqlx::{QueryBuilder, Row, Sqlite, SqlitePool};

use crate::query::{BEHIND_ARGUMENTS, SEARCHED_TEXT, spellings};
use crate::rows::{clean, light_task_columns, short, task_columns};
use crate::statements::statements;
use crate::unreadable::{Unreadable, full_page};
use crate::{Cursor, Error, Filter, Message, Page, Task};
use celery::task::{Phase, TaskId};
use runtime::clock::Time;

use super::pool::list;
use super::{on_facts, rows};

/// Reads unfinished tasks after `$1` in the order of their numbers, of the phases `$2` (all when empty), at most `$3`. `$only` is a
/// condition that an index covers.
macro_rules! open_tasks {
    ($only:literal) => {
        concat!(
            "select ",
            light_task_columns!(),
            " from unfinished u join task t on t.task_no = u.task_no where ",
            $only,
            "u.task_no > $1 and ($2 = '[]' or t.phase in (select value from json_each($2))) order by u.task_no limit $3"
        )
    };
}

statements! {
    NUMBERED = concat!(
        "select ",
        task_columns!(),
        " from task t where t.task_no in (select value from json_each($1)) order by t.task_no"
    );
    TASK = concat!("select ", task_columns!(), " from task t where t.task_id = $1");
    TASKS_BY_ID =
        concat!("select ", task_columns!(), " from task t where t.task_id in (select value from json_each($1))");
    MESSAGE = "select m.headers, m.body from task t join message m on m.task_no = t.task_no \
         where t.task_id = $1";
    UNFINISHED = open_tasks!("");
    /// As [`UNFINISHED`], if all phases are those of tasks at workers; does not read queued tasks.
    AT_WORKER = open_tasks!("u.at_worker and ");
    /// As [`UNFINISHED`], if the only phase is `waiting`.
    WAITING = open_tasks!("u.waits and ");
    EXPIRED = concat!(
        "select ",
        light_task_columns!(),
        " from task t \
         where t.expires_at > $1 and t.expires_at <= $2 and t.phase = 'queued' order by t.expires_at limit $3"
    );
    CENSUS = "select coalesce(t.queue, ''), t.phase, count(*) from unfinished u \
         join task t on t.task_no = u.task_no group by 1, 2";
    RESULT_SIZES = "select octet_length(result) from (select task_no, phase, result, submitted_at from task where name = $1 \
         order by task_no desc limit 100) where phase = 'succeeded' and submitted_at >= $2 order by task_no desc limit $3";
    NEWEST = "select coalesce(max(task_no), 0) from task";
    TOMBSTONE = "select pruned_at from tombstone where task_id = $1";
}

/// How many tasks one page of a search in arguments reads.
const SEARCHED_TASKS: i64 = 20_000;

/// Skips from one name to the next along the index.
const QUEUES: &str = "with recursive known(queue) as (\
     select min(queue) from task \
     union all select (select min(t.queue) from task t where t.queue > known.queue) \
     from known where known.queue is not null) select queue from known where queue is not null limit $1";

const NAMES: &str = "with recursive known(name) as (\
     select min(name) from task \
     union all select (select min(t.name) from task t where t.name > known.name) \
     from known where known.name is not null) select name from known where name is not null limit $1";

const LIST: &str = concat!("select ", task_columns!(), " from ");

pub(super) async fn task(pool: &SqlitePool, id: &TaskId) -> Result<Option<Task>, Error> {
    sqlx::query(TASK).bind(id.as_str()).fetch_optional(pool).await?.as_ref().map(rows::task).transpose()
}

pub(super) async fn message(pool: &SqlitePool, id: &TaskId) -> Result<Option<Message>, Error> {
    let row = sqlx::query(MESSAGE).bind(id.as_str()).fetch_optional(pool).await?;
    row.map(|row| Ok(Message { headers: row.try_get(0)?, body: row.try_get(1)? })).transpose()
}

/// A page is shorter than `limit` only at the end, although rows that cannot be read are left out.
pub(super) async fn unfinished(
    pool: &SqlitePool,
    unreadable: &Unreadable,
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
        sqlx::query(statement).bind(after).bind(list(&phases)).bind(missing).fetch_all(pool).await?
    })
}

pub(super) async fn tasks_by_id(pool: &SqlitePool, ids: &[TaskId]) -> Result<Vec<Task>, Error> {
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    rows::tasks(&sqlx::query(TASKS_BY_ID).bind(list(&ids)).fetch_all(pool).await?)
}

pub(super) async fn numbered(pool: &SqlitePool, task_nos: &[i64]) -> Result<Vec<Task>, Error> {
    rows::tasks(&sqlx::query(NUMBERED).bind(list(task_nos)).fetch_all(pool).await?)
}

pub(super) async fn expired(
    pool: &SqlitePool,
    unreadable: &Unreadable,
    since: Time,
    now: Time,
    limit: i64,
) -> Result<Vec<Task>, Error> {
    let rows = sqlx::query(EXPIRED).bind(since.0).bind(now.0).bind(limit).fetch_all(pool).await?;
    unreadable.leave_out(&rows, rows::task)
}

pub(super) async fn standing(pool: &SqlitePool, ids: &[TaskId]) -> Result<Vec<Task>, Error> {
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    rows::tasks(&sqlx::query(super::learn::LOAD).bind(list(&ids)).fetch_all(pool).await?)
}

pub(super) async fn queues(pool: &SqlitePool, limit: i64) -> Result<Vec<String>, Error> {
    sqlx::query(QUEUES).bind(limit).fetch_all(pool).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) async fn names(pool: &SqlitePool, limit: i64) -> Result<Vec<String>, Error> {
    sqlx::query(NAMES).bind(limit).fetch_all(pool).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) async fn result_sizes(pool: &SqlitePool, name: &str, since: Time, limit: i64) -> Result<Vec<i64>, Error> {
    let query = sqlx::query(RESULT_SIZES).bind(clean(name).into_owned()).bind(since.0).bind(limit);
    query.fetch_all(pool).await?.iter().map(|row| Ok(row.try_get::<Option<i64>, _>(0)?.unwrap_or(0))).collect()
}

pub(super) async fn census(pool: &SqlitePool) -> Result<HashMap<(String, Phase), i64>, Error> {
    let found = sqlx::query(CENSUS).fetch_all(pool).await?;
    let entry = |row: &sqlx::sqlite::SqliteRow| {
        let phase = crate::rows::phase(row.try_get(1)?, "task", 0)?;
        Ok(((row.try_get(0)?, phase), row.try_get(2)?))
    };
    found.iter().map(entry).collect()
}

pub(super) async fn tasks(
    pool: &SqlitePool,
    filter: &Filter,
    page: &Page,
) -> Result<(Vec<Task>, Option<Cursor>), Error> {
    let mut query = QueryBuilder::new(LIST);
    query.push(source(filter)).push(" where 1");
    if let Some(Cursor(after)) = page.after {
        query.push(" and t.task_no < ").push_bind(after);
    }
    let end = end_of_search(pool, filter, page).await?;
    if let Some(end) = end {
        query.push(" and t.task_no >= ").push_bind(end);
    }
    conditions(&mut query, filter);
    task_conditions(&mut query, filter);
    query.push(" order by t.task_no desc limit ").push_bind(page.limit.saturating_add(1));
    let mut found = rows::tasks(&query.build().fetch_all(pool).await?)?;
    let more = found.len() > usize::try_from(page.limit).unwrap_or(usize::MAX);
    if more {
        found.pop();
    }
    let next = found.last().filter(|_| more).map(|task| Cursor(task.no));
    Ok((found, next.or(end.filter(|end| *end > 1).map(Cursor))))
}

/// The number at which a page of a search in arguments ends, because no index supports it.
async fn end_of_search(pool: &SqlitePool, filter: &Filter, page: &Page) -> Result<Option<i64>, Error> {
    if filter.argument.is_none() {
        return Ok(None);
    }
    let below = match page.after {
        Some(Cursor(after)) => after,
        None => sqlx::query(NEWEST).fetch_one(pool).await?.try_get::<i64, _>(0)? + 1,
    };
    Ok(Some((below - SEARCHED_TASKS).max(1)))
}

/// The table whose order the list follows.
fn source(filter: &Filter) -> &'static str {
    let all = |test: fn(&Phase) -> bool| !filter.phase.is_empty() && filter.phase.iter().all(test);
    if filter.dead_letters {
        "trouble d join task t on t.task_no = d.task_no and d.dead"
    } else if all(|phase| phase.is_at_worker()) {
        "unfinished u join task t on t.task_no = u.task_no and u.at_worker"
    } else if all(|phase| !phase.is_final()) {
        "unfinished u join task t on t.task_no = u.task_no"
    } else {
        "task t"
    }
}

/// Conditions on a task's present state.
fn task_conditions(query: &mut QueryBuilder<Sqlite>, filter: &Filter) {
    if !filter.status.is_empty() {
        among(query, "t.status", &filter.status);
    }
    if !filter.phase.is_empty() {
        among(query, "t.phase", &phases(filter));
    }
    if !filter.worker.is_empty() {
        among(query, "t.worker", &filter.worker);
    }
}

/// Conditions on an event: the task's state at that time.
pub(super) fn event_conditions(query: &mut QueryBuilder<Sqlite>, filter: &Filter) {
    if !filter.status.is_empty() {
        among(query, "e.status", &filter.status);
    }
    if !filter.phase.is_empty() {
        among(query, "e.phase", &phases(filter));
    }
    if !filter.worker.is_empty() {
        among(query, "e.worker", &filter.worker);
    }
    if filter.dead_letters {
        query.push(" and e.phase in ('failed', 'lost')");
    }
}

fn phases(filter: &Filter) -> Vec<&'static str> {
    filter.phase.iter().map(|phase| phase.as_str()).collect()
}

/// Conditions on what was submitted.
pub(super) fn conditions(query: &mut QueryBuilder<Sqlite>, filter: &Filter) {
    one_of(query, "t.name", &filter.task);
    one_of(query, "t.queue", &filter.queue);
    if let [first, others @ ..] = filter.task_patterns.as_slice() {
        query.push(" and (t.name glob ").push_bind(glob(first));
        for pattern in others {
            query.push(" or t.name glob ").push_bind(glob(pattern));
        }
        query.push(")");
    }
    for (key, value) in &filter.labels {
        query.push(" and exists (select 1 from label l where l.task_no = t.task_no and l.key = ");
        query.push_bind(short(key)).push(" and l.value = ").push_bind(short(value)).push(")");
    }
    if let Some(root) = &filter.root_id {
        query.push(" and (t.root_id = ").push_bind(clean(root).into_owned());
        query.push(" or (t.task_id = ").push_bind(clean(root).into_owned()).push(" and t.root_id is null))");
    }
    on_facts::narrow(query, filter);
    if let Some(text) = &filter.q {
        search(query, &clean(text));
    }
    if let Some(text) = &filter.argument {
        argument(query, &clean(text));
    }
}

fn among<T: serde::Serialize>(query: &mut QueryBuilder<Sqlite>, column: &'static str, values: &[T]) {
    query.push(" and ").push(column).push(" in (select value from json_each(").push_bind(list(values)).push("))");
}

fn one_of(query: &mut QueryBuilder<Sqlite>, column: &'static str, values: &[String]) {
    match values {
        [] => {}
        // A single value can be read from its index in the list's order.
        [value] => {
            query.push(" and ").push(column).push(" = ").push_bind(clean(value).into_owned());
        }
        many => among(query, column, many),
    }
}

/// Searches for a text. SQLite ignores the case of ASCII letters only.
fn search(query: &mut QueryBuilder<Sqlite>, text: &str) {
    let (prefix, anywhere) = (glob(text).replace('*', "[*]") + "*", text.to_lowercase());
    query.push(" and (t.task_id glob ").push_bind(prefix.to_lowercase());
    query.push(" or t.task_id glob ").push_bind(prefix);
    for column in ["t.name", "t.labels", "t.failure_type", "t.failure_message"] {
        query.push(" or instr(lower(").push(column).push("), ").push_bind(anywhere.clone()).push(") > 0");
    }
    query.push(")");
}

/// Searches the arguments: in the beginning of the message, and for adopted tasks in the texts that workers' events contain.
fn argument(query: &mut QueryBuilder<Sqlite>, text: &str) {
    let begun = format!("lower(substr(m.body, 1, {SEARCHED_TEXT}))");
    let texts = [
        format!(
            "(select substr({begun}, 1, coalesce(nullif(instr({begun}, '{BEHIND_ARGUMENTS}'), 0) - 1, {SEARCHED_TEXT})) \
             from message m where m.task_no = t.task_no)"
        ),
        format!("lower(substr(t.argsrepr, 1, {SEARCHED_TEXT}))"),
        format!("lower(substr(t.kwargsrepr, 1, {SEARCHED_TEXT}))"),
    ];
    query.push(" and coalesce(t.options, '') not like '%\"redact\":%' and (0");
    for spelling in spellings(text) {
        for searched in &texts {
            query.push(format!(" or instr({searched}, ")).push_bind(spelling.clone()).push(") > 0");
        }
    }
    query.push(")");
}

/// `tasks.*` as a GLOB pattern: only the star is special.
fn glob(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len());
    for character in clean(pattern).chars() {
        match character {
            '?' => glob.push_str("[?]"),
            '[' => glob.push_str("[[]"),
            other => glob.push(other),
        }
    }
    glob
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_star_of_a_pattern_is_special() {
        assert_eq!(glob("tasks.*"), "tasks.*");
        assert_eq!(glob("a?[b]"), "a[?][[]b]");
    }
}
