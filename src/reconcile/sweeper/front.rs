//! Watches the head of each queue: a worker that stops or fails puts its messages back there, marked as redelivered. The next worker
//! takes them within milliseconds, and the mark is gone with them.

use std::time::Duration;

use tracing::debug;

use super::redelivered::is_news;
use super::{PAUSE, Sweeper, Trouble};
use celery::task::TaskId;
use runtime::lifecycle::Backoff;

/// Pause between two checks, shorter than a failed worker takes to restart.
const PERIOD: Duration = Duration::from_millis(500);
/// Maximum number of watched queues.
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
                    debug!(error = %trouble, "returned messages could not be read, trying again");
                    backoff.pause()
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads the heads twice: a message that is there before and after its task was read from the ledger was put back before that state.
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
