//! The fleet's own database as its result backend: `db+postgresql://` (SQLAlchemy) and `django-db`.
//!
//! Nothing there says that a result was written. An event that tells a task's end has its record looked up, and a slow poll of all
//! unfinished tasks finds the ends that no event told: a gap ([`Heard::Gap`]) makes the recorder read their records.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use broker::Error;
use broker::backend::{Heard, Results};
use celery::stored;
use celery::task::{GroupId, Json, TaskId};
use ledger::stored::StoredResults;

/// Pause between checks whether this replica is the recorder.
const PAUSE: Duration = Duration::from_millis(200);

pub struct DatabaseResults {
    table: StoredResults,
    poll: Duration,
}

impl DatabaseResults {
    pub fn new(table: StoredResults, poll: Duration) -> Self {
        Self { table, poll }
    }
}

#[async_trait]
impl Results for DatabaseResults {
    async fn ping(&self) -> Result<(), Error> {
        self.table.ping().await.map_err(away)
    }

    fn tells(&self) -> bool {
        false
    }

    /// A row that is not a Celery record counts as missing.
    async fn records(&self, ids: &[TaskId]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let rows = self.table.rows(ids).await.map_err(away)?;
        let read = |(id, row): (String, String)| match stored::record(&row) {
            Ok(record) => Some((id, record.encode().into_bytes())),
            Err(error) => {
                debug!(task.id = %id, %error, "the stored result of task {id} {error}");
                None
            }
        };
        let mut records: HashMap<String, Vec<u8>> = rows.into_iter().filter_map(read).collect();
        Ok(ids.iter().map(|id| records.remove(id.as_str())).collect())
    }

    async fn follow(&self, sink: mpsc::Sender<Heard>, active: Arc<AtomicBool>, stop: CancellationToken) {
        while !stop.is_cancelled() && !sink.is_closed() {
            let pause = if active.load(Ordering::Relaxed) {
                if sink.send(Heard::Gap).await.is_err() {
                    return;
                }
                self.poll
            } else {
                PAUSE
            };
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
        }
    }

    /// Does nothing: Celery counts the parts of these chords elsewhere, and the gateway refuses such chords.
    async fn prepare_group(&self, _: &GroupId, _: Option<i32>, _: Option<&Json>) -> Result<(), Error> {
        Ok(())
    }
}

fn away(error: ledger::Error) -> Error {
    Error::Results(error.told())
}
