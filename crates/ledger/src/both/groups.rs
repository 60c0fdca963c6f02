//! Groups and whole canvases. The adapter's `canvas_rows` has the statements that read tasks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::Row;

use super::dialect::{AdapterRow, Pool, Tx, among, list};
use super::{canvas_rows, rows};
use crate::rows::{failure, json, phase};
use crate::statements::statements;
use crate::{EdgeKind, Error, Group, GroupMember, NewGroup, Task};
use celery::task::{GroupId, TaskId};
use runtime::clock::Time;

statements! {
    GROUP = "select root_id, total, submitted_at, chord_size, structure from task_group where group_id = $1";
    OF_CANVASES = concat!(
        "select group_id, root_id, total, chord_size, structure from task_group where root_id ",
        among!("$1"),
        " and (chord_size is not null or structure is not null)"
    );
}

pub(super) async fn group(pool: &Pool, id: &GroupId) -> Result<Option<Group>, Error> {
    let Some(row) = sqlx::query(GROUP).bind(id.as_str()).fetch_optional(pool).await? else { return Ok(None) };
    let members = canvas_rows::members(pool, id).await?;
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

fn member(row: &AdapterRow) -> Result<GroupMember, Error> {
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

/// The groups with chord keys of the canvases of these tasks, by root.
pub(super) async fn of_canvases(tx: &mut Tx, tasks: &[Task]) -> Result<HashMap<TaskId, Arc<[NewGroup]>>, Error> {
    let roots: HashSet<&str> = tasks.iter().filter_map(|task| task.root_id.as_ref()).map(TaskId::as_str).collect();
    let roots: Vec<&str> = roots.into_iter().collect();
    let mut found: HashMap<TaskId, Vec<NewGroup>> = HashMap::new();
    for row in sqlx::query(OF_CANVASES).bind(list(&roots)).fetch_all(&mut **tx).await? {
        let group = new_group(&row)?;
        found.entry(group.root_id.clone()).or_default().push(group);
    }
    Ok(found.into_iter().map(|(root, groups)| (root, Arc::from(groups))).collect())
}

fn new_group(row: &AdapterRow) -> Result<NewGroup, Error> {
    let id: String = row.try_get(0)?;
    Ok(NewGroup {
        root_id: TaskId::parse(row.try_get::<&str, _>(1)?).map_err(|_| corrupt("root_id", &id))?,
        total: row.try_get(2)?,
        chord_size: row.try_get(3)?,
        structure: json(row.try_get(4)?).map_err(|_| corrupt("structure", &id))?,
        id: GroupId::parse(&id).map_err(|_| corrupt("group_id", &id))?,
    })
}

type Graph = (Vec<Task>, Vec<(TaskId, TaskId, EdgeKind)>);

pub(super) async fn graph(pool: &Pool, task: Task) -> Result<Graph, Error> {
    let root = task.root_id.clone().unwrap_or_else(|| task.id.clone());
    let mut tasks = rows::tasks(&canvas_rows::canvas(pool, &root).await?)?;
    if !tasks.iter().any(|node| node.no == task.no) {
        tasks.push(task);
    }
    let ids: HashMap<i64, TaskId> = tasks.iter().map(|task| (task.no, task.id.clone())).collect();
    let numbers: Vec<i64> = tasks.iter().map(|task| task.no).collect();
    let mut edges = Vec::new();
    for row in canvas_rows::edges(pool, &numbers).await? {
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
