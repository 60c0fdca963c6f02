//! The query of a list: filters and a keyset page.

use celery::task::Phase;
use runtime::clock::Time;

/// A task must match all conditions; an empty list means "any".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Celery states, also custom ones.
    pub status: Vec<String>,
    pub phase: Vec<Phase>,
    /// Task names.
    pub task: Vec<String>,
    /// Name patterns (`tasks.*`) of which one must match: the tasks that a limited token may see. `*` matches any text.
    pub task_patterns: Vec<String>,
    pub queue: Vec<String>,
    pub worker: Vec<String>,
    /// `key:value` pairs, all of which the task must have.
    pub labels: Vec<(String, String)>,
    pub root_id: Option<String>,
    pub group_id: Option<String>,
    pub schedule: Option<String>,
    /// Submitted at or after.
    pub from: Option<Time>,
    /// Submitted before.
    pub to: Option<Time>,
    /// Id prefix, or part of name, a label, error type or error message; case-insensitive except for ids. On a long history a page of
    /// search results may end early, even empty, with a cursor to continue.
    pub q: Option<String>,
    /// Only `failed` and `lost` tasks that were not deleted or re-queued as dead letters.
    pub dead_letters: bool,
}

/// A position in the list: the number of the previous page's last task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub i64);

#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// 1 to 500.
    pub limit: i64,
    pub after: Option<Cursor>,
}
