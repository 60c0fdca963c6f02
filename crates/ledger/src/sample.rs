//! For tests of other crates: what the ledger makes of news.

use super::book::Book;
use super::types::{Event, News, Task};

/// The entries that news makes in the history of a task, in order, and the task after them.
///
/// # Panics
/// When the task is gone, which no news does.
pub fn history(task: Task, news: &[News]) -> (Task, Vec<Event>) {
    let mut book = Book::new(vec![task]);
    news.iter().for_each(|news| book.learn(news));
    (book.entries.remove(0).task, book.events)
}
