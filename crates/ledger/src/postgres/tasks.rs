//! Reading tasks: one by id, the unfinished ones, and the conditions of lists and of the firehose.

use std::collections::HashMap;

use sqlx::{PgPool, Postgres, QueryBuilder, Row};

use crate::rows::{clean, light_task_columns, short, task_columns};
use crate::{Error, Filter, Message, Task};
use celery::task::{Phase, TaskId};
use runtime::clock::Time;

use super::rows;

pub(super) const TASK: &str = concat!("select ", task_columns!(), " from taskgate.task t where t.task_id = $1");

pub(super) const MESSAGE: &str = "select m.headers, m.body from taskgate.task t join taskgate.message m on m.task_no = t.task_no \
     where t.task_id = $1";

pub(super) const UNFINISHED: &str = concat!(
    "select ",
    light_task_columns!(),
    " from taskgate.unfinished u join taskgate.task t on t.task_no = u.task_no \
     where u.task_no > $1 and (cardinality($2::text[]) = 0 or t.phase = any($2)) order by u.task_no limit $3"
);

/// As [`UNFINISHED`], where all phases are those of tasks that workers have: what is queued is not read.
pub(super) const AT_WORKER: &str = concat!(
    "select ",
    light_task_columns!(),
    " from taskgate.unfinished u join taskgate.task t on t.task_no = u.task_no \
     where u.at_worker and u.task_no > $1 and (cardinality($2::text[]) = 0 or t.phase = any($2)) order by u.task_no limit $3"
);

/// As [`UNFINISHED`], where the only phase is `waiting`.
pub(super) const WAITING: &str = concat!(
    "select ",
    light_task_columns!(),
    " from taskgate.unfinished u join taskgate.task t on t.task_no = u.task_no \
     where u.waits and u.task_no > $1 and (cardinality($2::text[]) = 0 or t.phase = any($2)) order by u.task_no limit $3"
);

pub(super) const TASKS_BY_ID: &str =
    concat!("select ", task_columns!(), " from taskgate.task t where t.task_id = any($1)");

pub(super) const STANDING: &str =
    concat!("select ", light_task_columns!(), " from taskgate.task t where t.task_id = any($1)");

pub(super) const EXPIRED: &str = concat!(
    "select ",
    light_task_columns!(),
    " from taskgate.task t \
     where t.expires_at > $1 and t.expires_at <= $2 and t.phase = 'queued' order by t.expires_at limit $3"
);

pub(super) const CENSUS: &str = "select coalesce(t.queue, ''), t.phase, count(*) from taskgate.unfinished u \
     join taskgate.task t on t.task_no = u.task_no group by 1, 2";

/// From one name to the next along the index.
pub(super) const QUEUES: &str = "with recursive known(queue) as (\
     select min(queue) from taskgate.task \
     union all select (select min(t.queue) from taskgate.task t where t.queue > known.queue) \
     from known where known.queue is not null) select queue from known where queue is not null limit $1";

pub(super) const TOMBSTONE: &str = "select pruned_at from taskgate.tombstone where task_id = $1";

pub(super) async fn task(pool: &PgPool, id: &TaskId) -> Result<Option<Task>, Error> {
    sqlx::query(TASK).bind(id.as_str()).fetch_optional(pool).await?.as_ref().map(rows::task).transpose()
}

pub(super) async fn message(pool: &PgPool, id: &TaskId) -> Result<Option<Message>, Error> {
    let row = sqlx::query(MESSAGE).bind(id.as_str()).fetch_optional(pool).await?;
    row.map(|row| Ok(Message { headers: row.try_get(0)?, body: row.try_get(1)? })).transpose()
}

pub(super) async fn unfinished(pool: &PgPool, phases: &[Phase], after: i64, limit: i64) -> Result<Vec<Task>, Error> {
    let statement = match phases {
        [Phase::Waiting] => WAITING,
        some if !some.is_empty() && some.iter().all(|phase| phase.is_at_worker()) => AT_WORKER,
        _ => UNFINISHED,
    };
    let phases: Vec<&str> = phases.iter().map(|phase| phase.as_str()).collect();
    rows::tasks(&sqlx::query(statement).bind(after).bind(phases).bind(limit).fetch_all(pool).await?)
}

pub(super) async fn tasks_by_id(pool: &PgPool, ids: &[TaskId]) -> Result<Vec<Task>, Error> {
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    rows::tasks(&sqlx::query(TASKS_BY_ID).bind(ids).fetch_all(pool).await?)
}

pub(super) async fn expired(pool: &PgPool, since: Time, now: Time, limit: i64) -> Result<Vec<Task>, Error> {
    rows::tasks(&sqlx::query(EXPIRED).bind(since.0).bind(now.0).bind(limit).fetch_all(pool).await?)
}

pub(super) async fn standing(pool: &PgPool, ids: &[TaskId]) -> Result<Vec<Task>, Error> {
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    rows::tasks(&sqlx::query(STANDING).bind(ids).fetch_all(pool).await?)
}

pub(super) async fn queues(pool: &PgPool, limit: i64) -> Result<Vec<String>, Error> {
    sqlx::query(QUEUES).bind(limit).fetch_all(pool).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) async fn census(pool: &PgPool) -> Result<HashMap<(String, Phase), i64>, Error> {
    let found = sqlx::query(CENSUS).fetch_all(pool).await?;
    let entry = |row: &sqlx::postgres::PgRow| {
        let phase = crate::rows::phase(row.try_get(1)?, "task", 0)?;
        Ok(((row.try_get(0)?, phase), row.try_get(2)?))
    };
    found.iter().map(entry).collect()
}

/// Conditions on where a task is now.
pub(super) fn task_conditions(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if !filter.status.is_empty() {
        query.push(" and t.status = any(").push_bind(cleaned(&filter.status)).push(")");
    }
    if !filter.phase.is_empty() {
        query.push(" and t.phase = any(").push_bind(phases(filter)).push(")");
    }
    if !filter.worker.is_empty() {
        query.push(" and t.worker = any(").push_bind(cleaned(&filter.worker)).push(")");
    }
    if filter.dead_letters {
        query.push(" and exists (select 1 from taskgate.trouble d where d.task_no = t.task_no and d.dead)");
    }
}

/// The same of an event: where the task was then.
pub(super) fn event_conditions(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if !filter.status.is_empty() {
        query.push(" and e.status = any(").push_bind(cleaned(&filter.status)).push(")");
    }
    if !filter.phase.is_empty() {
        query.push(" and e.phase = any(").push_bind(phases(filter)).push(")");
    }
    if !filter.worker.is_empty() {
        query.push(" and e.worker = any(").push_bind(cleaned(&filter.worker)).push(")");
    }
    if filter.dead_letters {
        query.push(" and e.phase in ('failed', 'lost')");
    }
}

fn phases(filter: &Filter) -> Vec<&'static str> {
    filter.phase.iter().map(|phase| phase.as_str()).collect()
}

/// Conditions on what a task is.
pub(super) fn conditions(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    one_of(query, "t.name", &filter.task);
    one_of(query, "t.queue", &filter.queue);
    if !filter.task_patterns.is_empty() {
        let patterns: Vec<String> = filter.task_patterns.iter().map(|pattern| like(pattern)).collect();
        query.push(" and t.name like any(").push_bind(patterns).push(")");
    }
    for (key, value) in &filter.labels {
        query.push(" and exists (select 1 from taskgate.label l where l.task_no = t.task_no and l.key = ");
        query.push_bind(short(key)).push(" and l.value = ").push_bind(short(value)).push(")");
    }
    if let Some(root) = &filter.root_id {
        query.push(" and (t.root_id = ").push_bind(clean(root).into_owned());
        query.push(" or (t.task_id = ").push_bind(clean(root).into_owned()).push(" and t.root_id is null))");
    }
    if let Some(group) = &filter.group_id {
        query.push(" and t.group_id = ").push_bind(clean(group).into_owned());
    }
    if let Some(schedule) = &filter.schedule {
        query.push(" and t.schedule = ").push_bind(short(schedule));
    }
    if let Some(from) = filter.from {
        query.push(" and t.submitted_at >= ").push_bind(from.0);
    }
    if let Some(to) = filter.to {
        query.push(" and t.submitted_at < ").push_bind(to.0);
    }
    if let Some(text) = &filter.q {
        search(query, &clean(text));
    }
}

fn one_of(query: &mut QueryBuilder<Postgres>, column: &'static str, values: &[String]) {
    match values {
        [] => {}
        // One value can be read from its index in the list's order.
        [one] => {
            query.push(" and ").push(column).push(" = ").push_bind(clean(one).into_owned());
        }
        many => {
            query.push(" and ").push(column).push(" = any(").push_bind(cleaned(many)).push(")");
        }
    }
}

fn cleaned(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| clean(text).into_owned()).collect()
}

fn search(query: &mut QueryBuilder<Postgres>, text: &str) {
    let prefix = format!("{}%", escape(text));
    let anywhere = format!("%{}%", escape(&text.to_lowercase()));
    query.push(" and (t.task_id like ").push_bind(prefix.to_lowercase());
    query.push(" or t.task_id like ").push_bind(prefix);
    for column in ["t.name", "t.labels", "t.failure_type", "t.failure_message"] {
        query.push(" or lower(").push(column).push(") like ").push_bind(anywhere.clone());
    }
    query.push(")");
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// `tasks.*` as a LIKE pattern.
fn like(pattern: &str) -> String {
    escape(&clean(pattern)).replace('*', "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_star_of_a_pattern_is_special() {
        assert_eq!(like("tasks.*"), "tasks.%");
        assert_eq!(like("a_b%*"), "a\\_b\\%%");
    }
}
