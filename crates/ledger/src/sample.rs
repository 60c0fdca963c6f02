//! For tests of other crates: what the ledger makes of news.

use super::applied::Applied;
use super::types::{Event, News, Task};

/// The entries that news makes in the history of a task, in order, and the task after them.
///
/// # Panics
/// When the task is gone, which no news does.
pub fn history(task: Task, news: &[News]) -> (Task, Vec<Event>) {
    let mut applied = Applied::new(vec![task]);
    news.iter().for_each(|news| applied.learn(news));
    (applied.entries.remove(0).task, applied.events)
}
