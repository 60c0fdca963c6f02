//! The outbox rows of a pass: which ones it claims, and what must be done with each.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::Row;

use super::control;
use super::dialect::{AdapterRow, Tx, list};
use super::outbox_rows::{self, DUE, THESE};
use crate::change::was_taken;
use crate::{Carrier, Error, Task, refusal};
use celery::task::Phase;
use runtime::clock::Time;

pub(super) struct Claimed {
    pub task_no: i64,
    pub accepted_at: Time,
    pub gate: Option<String>,
    pub gate_max: Option<i32>,
    /// See [`crate::Outgoing::direct`].
    pub direct: bool,
}

/// The rows of a pass.
pub(super) struct Claims {
    pub rows: Vec<Claimed>,
    /// Whether more rows may be due than were read.
    pub is_full: bool,
}

/// Claims rows: first those picked from lines, in that order; then those that wait longest at open gates, and due ones, by acceptance.
pub(super) async fn claim(
    tx: &mut Tx,
    heads: &[i64],
    picked: &[i64],
    now: Time,
    settle: Duration,
    limit: i64,
) -> Result<Claims, Error> {
    let mut rows = Vec::new();
    if !heads.is_empty() || !picked.is_empty() {
        let numbers: Vec<i64> = heads.iter().chain(picked).copied().collect();
        rows = sqlx::query(THESE).bind(list(&numbers)).fetch_all(&mut **tx).await?;
    }
    let due = sqlx::query(DUE).bind(now.0).bind(now.minus(settle).0).bind(limit).fetch_all(&mut **tx).await?;
    let is_full = due.len() as i64 >= limit;
    rows.extend(due);
    let mut seen = HashSet::new();
    let claimed = |row: &AdapterRow| {
        let (accepted_at, wake_at): (i64, i64) = (row.try_get(1)?, row.try_get(4)?);
        Ok(Claimed {
            task_no: row.try_get(0)?,
            accepted_at: Time(accepted_at),
            gate: row.try_get(2)?,
            gate_max: row.try_get(3)?,
            direct: wake_at == accepted_at,
        })
    };
    let mut claimed = rows.iter().map(claimed).collect::<Result<Vec<_>, Error>>()?;
    claimed.retain(|row| seen.insert(row.task_no));
    if !heads.is_empty() || !picked.is_empty() {
        let places: HashMap<i64, usize> = picked.iter().enumerate().map(|(place, no)| (*no, place)).collect();
        claimed.sort_by_key(|row| (places.get(&row.task_no).copied().unwrap_or(usize::MAX), row.task_no));
    }
    Ok(Claims { rows: claimed, is_full })
}

/// The rows of a pass, by what must be done with them.
#[derive(Default)]
pub(super) struct Sorted {
    pub due: Vec<Task>,
    pub expired: Vec<Task>,
    pub parked: Vec<Task>,
    /// Tasks that must not be published now, with the reason.
    pub refused: Vec<(Task, String)>,
    /// Tasks that were published although the row is still there: a worker has reported this delivery.
    pub taken: Vec<Task>,
    /// Rows to delete: the task ended, was pruned, or is in the broker already.
    pub over: Vec<i64>,
}

pub(super) async fn sort(tx: &mut Tx, claimed: &[Claimed], now: Time, carrier: &dyn Carrier) -> Result<Sorted, Error> {
    let numbers: Vec<i64> = claimed.iter().map(|row| row.task_no).collect();
    let found = outbox_rows::tasks(tx, &numbers).await?;
    let paused = control::paused_now(tx).await?;
    let is_paused = |task: &Task| task.queue.as_ref().is_some_and(|queue| paused.contains(queue));
    let mut by_no: HashMap<i64, Task> = found.into_iter().map(|task| (task.no, task)).collect();
    let mut sorted = Sorted::default();
    for row in claimed {
        match by_no.remove(&row.task_no) {
            None => sorted.over.push(row.task_no),
            Some(task) if task.phase.is_final() => sorted.over.push(row.task_no),
            // The direct path published it late, after it was put into the outbox.
            Some(task) if task.phase == Phase::Queued => sorted.over.push(row.task_no),
            Some(task) if task.expires_at.is_some_and(|at| at <= now) && task.phase.is_ours() => {
                sorted.expired.push(task)
            }
            Some(task) if was_taken(&task, row.accepted_at) => sorted.taken.push(task),
            Some(task) if is_paused(&task) => sorted.parked.push(task),
            Some(task) => match refusal(carrier, &task) {
                Some(why) => sorted.refused.push((task, why)),
                None => sorted.due.push(task),
            },
        }
    }
    Ok(sorted)
}

/// Does not park tasks whose queue was resumed while the carrier published, because nothing would wake them. Returns whether there are
/// such tasks; the next pass takes them.
pub(super) async fn let_go(tx: &mut Tx, sorted: &mut Sorted) -> Result<bool, Error> {
    if sorted.parked.is_empty() {
        return Ok(false);
    }
    let paused = control::still_paused(tx).await?;
    let before = sorted.parked.len();
    sorted.parked.retain(|task| task.queue.as_ref().is_some_and(|queue| paused.contains(queue)));
    Ok(sorted.parked.len() < before)
}
