//! What a list asks for: filters and a keyset page.

use celery::task::Phase;
use runtime::clock::Time;

/// All given conditions hold at once; an empty list means "any".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Celery's words, custom states included.
    pub status: Vec<String>,
    pub phase: Vec<Phase>,
    /// Task names.
    pub task: Vec<String>,
    /// Name patterns (`tasks.*`) of which one must match: what a limited token may see. `*` stands for any text.
    pub task_patterns: Vec<String>,
    pub queue: Vec<String>,
    pub worker: Vec<String>,
    /// `key:value` pairs, all of which the task must carry.
    pub labels: Vec<(String, String)>,
    pub root_id: Option<String>,
    pub group_id: Option<String>,
    pub schedule: Option<String>,
    /// Submitted at or after.
    pub from: Option<Time>,
    /// Submitted before.
    pub to: Option<Time>,
    /// Id prefix, or part of name, a label, error type or error message; case-insensitive but for ids. On a long history a
    /// page of a search may end early, even empty, with a cursor to go on from.
    pub q: Option<String>,
    /// Only `failed` and `lost` tasks that were not deleted or re-queued as dead letters.
    pub dead_letters: bool,
}

/// A place in the list: the number of the last task of the page before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub i64);

#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// 1 to 500.
    pub limit: i64,
    pub after: Option<Cursor>,
}
