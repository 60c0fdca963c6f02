//! Reads the tasks of groups and canvases, and their edges, from SQLite.

use sqlx::SqlitePool;
use sqlx::sqlite::SqliteRow;

use super::pool::list;
use crate::Error;
use crate::rows::task_columns;
use crate::statements::statements;
use celery::task::{GroupId, TaskId};

statements! {
    MEMBERS = "select task_no, task_id, name, group_index, phase, status, seq, result, failure_type, failure_message \
         from task where group_id = $1 order by group_index nulls last, task_no";
    CANVAS = concat!(
        "select ",
        task_columns!(),
        " from task t where t.root_id = $1 union all select ",
        task_columns!(),
        " from task t where t.task_id = $1 and t.root_id is null order by task_no"
    );
    EDGES =
        "select from_no, to_no, kind from edge where from_no in (select value from json_each($1)) order by from_no, to_no";
}

pub(super) async fn members(pool: &SqlitePool, id: &GroupId) -> Result<Vec<SqliteRow>, Error> {
    Ok(sqlx::query(MEMBERS).bind(id.as_str()).fetch_all(pool).await?)
}

pub(super) async fn canvas(pool: &SqlitePool, root: &TaskId) -> Result<Vec<SqliteRow>, Error> {
    Ok(sqlx::query(CANVAS).bind(root.as_str()).fetch_all(pool).await?)
}

pub(super) async fn edges(pool: &SqlitePool, numbers: &[i64]) -> Result<Vec<SqliteRow>, Error> {
    Ok(sqlx::query(EDGES).bind(list(numbers)).fetch_all(pool).await?)
}
