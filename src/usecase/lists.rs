//! Pages of the ledger's contents: tasks, dead letters, schedules, webhooks, and the events of a task.

use super::Gateway;
use crate::guard::tokens::Visibility;
use celery::task::TaskId;
use ledger::{Cursor, Endpoint, Error, Event, Filter, Page, PoolUse, Schedule, Task};

/// Maximum number of events of a task in a list; the stream has all of them.
const MAX_EVENTS: usize = 10_000;
/// Maximum number of task names in a list.
const MOST_NAMES: i64 = 10_000;
/// Schedules read at once for a caller who sees only some of them.
const SCHEDULES_PAGE: i64 = 500;
/// Events read at once.
const EVENTS_PAGE: i64 = 500;

impl Gateway {
    /// The newest state of a task.
    pub async fn task(&self, id: &TaskId) -> Result<Option<Task>, Error> {
        self.ledger.task(id).await
    }

    /// The newest matching tasks, and where the next page begins.
    pub async fn tasks(&self, filter: &Filter, page: &Page) -> Result<(Vec<Task>, Option<Cursor>), Error> {
        self.ledger.tasks(filter, page).await
    }

    /// As [`Gateway::tasks`], but only dead letters.
    pub async fn dead_letters(&self, filter: Filter, page: &Page) -> Result<(Vec<Task>, Option<Cursor>), Error> {
        self.ledger.tasks(&Filter { dead_letters: true, ..filter }, page).await
    }

    /// At most `limit` schedules by name that the caller sees, after the one of this name, and whether there are more.
    pub async fn schedules(
        &self,
        visibility: &Visibility,
        mut after: Option<String>,
        limit: i64,
    ) -> Result<(Vec<Schedule>, bool), Error> {
        let (most, mut seen) = (usize::try_from(limit).unwrap_or_default(), Vec::new());
        // A page never ends at a schedule that the caller does not see: its name would be in the cursor.
        let size = if visibility.is_limited() { SCHEDULES_PAGE } else { limit + 1 };
        while seen.len() <= most {
            let page = self.ledger.schedules(after.as_deref(), size).await?;
            let is_last = page.len() < usize::try_from(size).unwrap_or_default();
            after = page.last().map(|last| last.name.clone());
            seen.extend(page.into_iter().filter(|schedule| self.sees_schedule(visibility, schedule)));
            if is_last {
                break;
            }
        }
        Ok(page_of(seen, limit))
    }

    /// At most `limit` webhooks by id, after this one, and whether there are more.
    pub async fn endpoints(&self, after: Option<&str>, limit: i64) -> Result<(Vec<Endpoint>, bool), Error> {
        Ok(page_of(self.ledger.endpoints(after, limit + 1).await?, limit))
    }

    /// The recorded events of a task after a `seq`, in order, bounded.
    pub async fn events(&self, id: &TaskId, mut after: i64) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        loop {
            let page = self.ledger.events(id, after, EVENTS_PAGE).await?;
            let Some(last) = page.last() else { return Ok(events) };
            after = last.seq;
            events.extend(page);
            if events.len() >= MAX_EVENTS {
                return Ok(events);
            }
        }
    }

    /// The names of all known tasks.
    pub async fn seen_names(&self) -> Result<Vec<String>, Error> {
        self.ledger.names(MOST_NAMES).await
    }

    /// How busy the connections to the ledger are.
    pub fn pools(&self) -> Vec<PoolUse> {
        self.ledger.pools()
    }

    /// Whether this process is the active recorder of worker events.
    pub fn is_recording(&self) -> bool {
        self.recorder.is_active()
    }

    /// Waits until the relay has taken most accepted tasks, for callers with many tasks.
    pub async fn room(&self) {
        self.relay.room().await;
    }
}

/// Splits off the extra row that shows that there is a next page.
fn page_of<T>(mut found: Vec<T>, limit: i64) -> (Vec<T>, bool) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > limit;
    found.truncate(limit);
    (found, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_full_and_says_whether_more_follows() {
        assert_eq!(page_of(vec![1, 2, 3], 2), (vec![1, 2], true));
        assert_eq!(page_of(vec![1, 2], 2), (vec![1, 2], false));
    }
}
