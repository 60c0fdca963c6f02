//! Watches the end of each queue that is served next: a worker that stops, or fails, puts what it had back there, marked. When the
//! next one comes the message is gone within milliseconds, and the mark with it.

use std::time::Duration;

use tracing::debug;

use super::redelivered::is_news;
use super::{PAUSE, Sweeper, Trouble};
use celery::task::TaskId;
use runtime::lifecycle::Backoff;

/// A worker that failed takes longer to come back.
const PERIOD: Duration = Duration::from_millis(500);
/// Queues that are watched.
const QUEUES: i64 = 1_000;

impl Sweeper {
    pub(super) async fn watch_fronts(&self) {
        let mut backoff = Backoff::new(PAUSE);
        loop {
            let pause = match self.note_fronts().await {
                Ok(()) => {
                    backoff.reset();
                    PERIOD
                }
                Err(trouble) => {
                    debug!(error = %trouble, "returned messages were not looked for");
                    backoff.pause()
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks twice: what was there before and after its task was read went back before whatever the ledger says of it by then.
    async fn note_fronts(&self) -> Result<(), Trouble> {
        let queues = self.ledger.queues(QUEUES).await?;
        let seen = self.broker.at_front(&queues).await?;
        let ids: Vec<TaskId> = seen.returned.iter().filter_map(|id| TaskId::parse(id.as_str()).ok()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let tasks = self.ledger.standing(&ids).await?;
        if !tasks.iter().any(|task| is_news(task, &seen)) {
            return Ok(());
        }
        let present = self.broker.at_front(&queues).await?;
        self.note_returned(&tasks, &present).await
    }
}
