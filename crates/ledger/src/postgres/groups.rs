//! Groups and whole canvases.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::rows::{failure, json, phase};
use crate::statements::statements;
use crate::{EdgeKind, Error, Group, GroupMember, NewGroup, Task};
use celery::task::{GroupId, TaskId};
use runtime::clock::Time;

use super::columns::{between, fact_columns, standing, state_columns};
use super::pool::Tx;
use super::pooled::Pool;
use super::{numbers, rows};

statements! {
    GROUP =
        "select root_id, total, submitted_at, chord_size, structure from taskgate.task_group where group_id = $1";
    /// `$2` and `$3` bound the numbers, here and in [`CANVAS`]: no task of a canvas is older than its root.
    MEMBERS = concat!(
        "select t.task_no, coalesce(t.given_id, cast(t.id as text)) as task_id, nullif(k.name, '') as name, t.group_index, s.phase, \
         coalesce(s.status, taskgate.word(s.phase)) as status, cast(s.seq as bigint) as seq, s.result, s.failure_type, s.failure_message from ",
        standing!(full, "$2", "$3"),
        " where t.group_id = $1 and ",
        between!("$2", "$3"),
        " order by t.group_index nulls last, t.task_no"
    );
    OF_CANVASES = "select group_id, root_id, total, chord_size, structure from taskgate.task_group \
         where root_id = any($1) and (chord_size is not null or structure is not null)";
    /// `$4` the key of the root's id.
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

pub(super) async fn group(pool: &Pool, id: &GroupId) -> Result<Option<Group>, Error> {
    let Some(row) = sqlx::query(GROUP).bind(id.as_str()).fetch_optional(pool).await? else { return Ok(None) };
    let members = sqlx::query(MEMBERS).bind(id.as_str()).bind(0i64).bind(i64::MAX).fetch_all(pool).await?;
    Ok(Some(Group {
        id: id.clone(),
        root_id: TaskId::parse(row.try_get::<&str, _>(0)?).map_err(|_| corrupt("root_id", id.as_str()))?,
        total: row.try_get(1)?,
        submitted_at: Time(row.try_get(2)?),
        chord_size: row.try_get(3)?,
        structure: json(row.try_get(4)?).map_err(|_| corrupt("structure", id.as_str()))?,
        members: members.iter().map(member).collect::<Result<_, Error>>()?,
    }))
}

fn corrupt(column: &'static str, row: &str) -> Error {
    Error::Corrupt { table: "task_group", column, row: row.to_owned() }
}

fn member(row: &PgRow) -> Result<GroupMember, Error> {
    let no: i64 = row.try_get("task_no")?;
    let corrupt = |column| Error::Corrupt { table: "task", column, row: no.to_string() };
    Ok(GroupMember {
        task_id: TaskId::parse(row.try_get::<&str, _>("task_id")?).map_err(|_| corrupt("task_id"))?,
        name: row.try_get("name")?,
        index: row.try_get("group_index")?,
        phase: phase(row.try_get("phase")?, "task", no)?,
        status: row.try_get("status")?,
        seq: row.try_get("seq")?,
        result: json(row.try_get("result")?).map_err(|_| corrupt("result"))?,
        failure: failure(row.try_get("failure_type")?, row.try_get("failure_message")?),
    })
}

/// By root: the groups with chord keys of the canvases of these tasks.
pub(super) async fn of_canvases(tx: &mut Tx, tasks: &[Task]) -> Result<HashMap<TaskId, Arc<[NewGroup]>>, Error> {
    let roots: HashSet<&str> = tasks.iter().filter_map(|task| task.root_id.as_ref()).map(TaskId::as_str).collect();
    let roots: Vec<&str> = roots.into_iter().collect();
    let mut found: HashMap<TaskId, Vec<NewGroup>> = HashMap::new();
    for row in sqlx::query(OF_CANVASES).bind(roots).fetch_all(&mut **tx).await? {
        let group = new_group(&row)?;
        found.entry(group.root_id.clone()).or_default().push(group);
    }
    Ok(found.into_iter().map(|(root, groups)| (root, Arc::from(groups))).collect())
}

fn new_group(row: &PgRow) -> Result<NewGroup, Error> {
    let id: String = row.try_get(0)?;
    Ok(NewGroup {
        root_id: TaskId::parse(row.try_get::<&str, _>(1)?).map_err(|_| corrupt("root_id", &id))?,
        total: row.try_get(2)?,
        chord_size: row.try_get(3)?,
        structure: json(row.try_get(4)?).map_err(|_| corrupt("structure", &id))?,
        id: GroupId::parse(&id).map_err(|_| corrupt("group_id", &id))?,
    })
}

/// Reads a canvas. No node is from a day before the root's.
async fn canvas(pool: &Pool, root: &TaskId) -> Result<Vec<PgRow>, Error> {
    let key = numbers::key(root.as_str());
    let (low, _) = numbers::place(&[key]);
    Ok(sqlx::query(CANVAS).bind(root.as_str()).bind(low).bind(i64::MAX).bind(key).fetch_all(pool).await?)
}

type Graph = (Vec<Task>, Vec<(TaskId, TaskId, EdgeKind)>);

pub(super) async fn graph(pool: &Pool, task: Task) -> Result<Graph, Error> {
    let root = task.root_id.clone().unwrap_or_else(|| task.id.clone());
    let mut tasks = rows::tasks(&canvas(pool, &root).await?)?;
    if !tasks.iter().any(|node| node.no == task.no) {
        tasks.push(task);
    }
    let ids: HashMap<i64, TaskId> = tasks.iter().map(|task| (task.no, task.id.clone())).collect();
    let numbers: Vec<i64> = tasks.iter().map(|task| task.no).collect();
    let mut edges = Vec::new();
    let (low, high) = numbers::span(&numbers);
    for row in sqlx::query(EDGES).bind(numbers).bind(low).bind(high).fetch_all(pool).await? {
        let (from, to): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let kind = EdgeKind::parse(row.try_get(2)?).ok_or_else(|| Error::Corrupt {
            table: "edge",
            column: "kind",
            row: from.to_string(),
        })?;
        if let (Some(from), Some(to)) = (ids.get(&from), ids.get(&to)) {
            edges.push((from.clone(), to.clone(), kind));
        }
    }
    Ok((tasks, edges))
}
