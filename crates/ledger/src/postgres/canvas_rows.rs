//! Reads the tasks of groups and canvases, and their edges, from PostgreSQL.

use sqlx::postgres::PgRow;

use super::columns::{between, fact_columns, standing, state_columns};
use super::numbers;
use super::pooled::Pool;
use crate::Error;
use crate::statements::statements;
use celery::task::{GroupId, TaskId};

statements! {
    /// `$2` and `$3` bound the numbers, here and in [`CANVAS`].
    MEMBERS = concat!(
        "select t.task_no, coalesce(t.given_id, cast(t.id as text)) as task_id, nullif(k.name, '') as name, t.group_index, s.phase, \
         coalesce(s.status, taskgate.word(s.phase)) as status, cast(s.seq as bigint) as seq, s.result, s.failure_type, s.failure_message from ",
        standing!(full, "$2", "$3"),
        " where t.group_id = $1 and ",
        between!("$2", "$3"),
        " order by t.group_index nulls last, t.task_no"
    );
    /// `$4` is the key of the root's id.
    CANVAS = concat!(
        "select ",
        fact_columns!(),
        ", ",
        state_columns!(),
        " from ",
        standing!(full, "$2", "$3"),
        " where t.root_id = $1 and ",
        between!("$2", "$3"),
        " union all select ",
        fact_columns!(),
        ", ",
        state_columns!(),
        " from ",
        standing!(full, "$2", "$3"),
        " where t.id = $4 and t.root_id is null and ",
        between!("$2", "$3"),
        " order by task_no"
    );
    /// `$2` and `$3` bound the numbers.
    EDGES = "select from_no, to_no, kind from taskgate.edge \
         where from_no = any($1) and from_no >> 32 >= $2 and from_no >> 32 < $3 order by from_no, to_no";
}

pub(super) async fn members(pool: &Pool, id: &GroupId) -> Result<Vec<PgRow>, Error> {
    Ok(sqlx::query(MEMBERS).bind(id.as_str()).bind(0i64).bind(i64::MAX).fetch_all(pool).await?)
}

/// Reads only from about the root's day on: no task of a canvas is older than its root.
pub(super) async fn canvas(pool: &Pool, root: &TaskId) -> Result<Vec<PgRow>, Error> {
    let key = numbers::key(root.as_str());
    let (low, _) = numbers::place(&[key]);
    Ok(sqlx::query(CANVAS).bind(root.as_str()).bind(low).bind(i64::MAX).bind(key).fetch_all(pool).await?)
}

pub(super) async fn edges(pool: &Pool, numbers: &[i64]) -> Result<Vec<PgRow>, Error> {
    let (low, high) = numbers::span(numbers);
    Ok(sqlx::query(EDGES).bind(numbers).bind(low).bind(high).fetch_all(pool).await?)
}
