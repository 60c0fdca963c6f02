//! Applies news to a task, for tests of other crates.

use super::applied::Applied;
use super::types::{Event, News, Task};

/// The task after this news, and the events that the news adds to its history, in order.
pub fn history(task: Task, news: &[News]) -> (Task, Vec<Event>) {
    let mut applied = Applied::new(vec![task]);
    news.iter().for_each(|news| applied.learn(news));
    (applied.entries.remove(0).task, applied.events)
}
