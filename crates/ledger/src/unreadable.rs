//! Rows that this release cannot read: damaged ones, and those of a newer release.
//!
//! A service that looks after all tasks goes on with the others, and the rows are told as incidents. The list is bounded and in memory; a
//! row that has not been met for a while is forgotten: it was mended, or has ended.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use runtime::clock::{self, Time};
use tracing::error;

use crate::{Error, Task};

/// The most rows that are remembered.
const MOST: usize = 100;
/// Longer than the pause between two reads of all unfinished tasks.
const KEPT: Duration = Duration::from_secs(120);

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRow {
    /// The number of the task.
    pub task_no: i64,
    pub since: Time,
    /// What is wrong with it.
    pub detail: String,
}

/// The rows that were met lately.
#[derive(Default)]
pub(crate) struct Unreadable(Mutex<BTreeMap<i64, (UnreadableRow, Instant)>>);

impl Unreadable {
    /// Returns the rows that can be read, and notes the others.
    ///
    /// # Errors
    /// Errors other than [`Error::Corrupt`].
    pub fn leave_out<R>(&self, rows: &[R], read: impl Fn(&R) -> Result<Task, Error>) -> Result<Vec<Task>, Error> {
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            match read(row) {
                Ok(task) => tasks.push(task),
                Err(Error::Corrupt { table, column, row }) => {
                    // The row of a task is told by its number.
                    let task_no = row.parse().unwrap_or_default();
                    self.note(task_no, &Error::Corrupt { table, column, row }, Instant::now());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(tasks)
    }

    fn note(&self, task_no: i64, error: &Error, at: Instant) {
        let mut all = self.0.lock().expect("nothing panics under this lock");
        if let Some((_, met)) = all.get_mut(&task_no) {
            *met = at;
        } else if all.len() < MOST {
            error!(task_no, "a task is left out: {error}");
            let row = UnreadableRow { task_no, since: clock::now(), detail: error.to_string() };
            all.insert(task_no, (row, at));
        }
    }

    /// Forgets old rows and returns the rest, by number.
    pub fn list(&self, now: Instant) -> Vec<UnreadableRow> {
        let mut all = self.0.lock().expect("nothing panics under this lock");
        all.retain(|_, (_, met)| now.saturating_duration_since(*met) < KEPT);
        all.values().map(|(row, _)| row.clone()).collect()
    }
}

/// Returns a page of tasks from the function around it. `$read` reads so many rows after `$after`; where rows are left out, the next ones
/// fill the page, so only the last page is short.
macro_rules! full_page {
    ($unreadable:expr, $after:ident, $limit:expr, |$missing:ident| $read:expr) => {{
        let mut tasks: Vec<$crate::Task> = Vec::new();
        loop {
            let $missing = $limit - i64::try_from(tasks.len()).unwrap_or($limit);
            let found = $read;
            let Some(last) = found.last() else { return Ok(tasks) };
            $after = sqlx::Row::try_get(last, "task_no")?;
            tasks.extend($unreadable.leave_out(&found, rows::task)?);
            if (found.len() as i64) < $missing || tasks.len() as i64 >= $limit {
                return Ok(tasks);
            }
        }
    }};
}
pub(crate) use full_page;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::sample_task;
    use celery::task::Phase;

    fn read(row: &i64) -> Result<Task, Error> {
        match row {
            0 => Err(Error::Corrupt { table: "task", column: "labels", row: row.to_string() }),
            -1 => Err(Error::Unavailable("away".into())),
            _ => Ok(sample_task(&format!("t{row}"), Phase::Running, Time(0))),
        }
    }

    #[test]
    fn a_row_that_cannot_be_read_hides_no_other_and_is_told_while_it_is_met() {
        let unreadable = Unreadable::default();
        let tasks = unreadable.leave_out(&[1, 0, 2], read).unwrap();
        assert_eq!(tasks.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["t1", "t2"]);
        let told = unreadable.list(Instant::now());
        assert!(told.len() == 1 && told[0].detail.contains("task.labels"), "{told:?}");
        assert!(unreadable.list(Instant::now() + KEPT).is_empty());
        assert!(unreadable.leave_out(&[1, -1], read).is_err(), "a ledger that is away is no row");
    }
}
