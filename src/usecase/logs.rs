//! Log lines of a task: pages of lines, and a live stream.

use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use futures_util::Stream;
use tokio::time::Instant;

use super::Gateway;
use crate::live::hub::Signal;
use celery::task::TaskId;
use ledger::{Error, Line, Task};
use runtime::lifecycle::Backoff;

/// Pieces in one read of the ledger, each of at most 64 KiB.
const PIECES: i64 = 16;
/// How long to wait for lines after the end of their task.
const TRAIL: Duration = Duration::from_secs(2);
/// How often the ledger is read for the remaining lines of an ended task.
const TRAIL_PAUSE: Duration = Duration::from_millis(200);
/// After this time without a signal, a follower reads the ledger again.
const LOOK_AGAIN: Duration = Duration::from_secs(20);
const LEDGER_PAUSE: Duration = Duration::from_secs(2);

/// A line with its number within the task.
#[derive(Debug, Clone)]
pub struct Logged {
    pub no: i64,
    pub attempt: i32,
    pub line: Line,
}

/// What a follower gets.
#[derive(Debug)]
pub enum Followed {
    Line(Logged),
    /// The task has ended and no line will follow. Has the number of the last line.
    End(i64),
}

impl Gateway {
    /// Some lines with numbers above `after`, in order; empty only if there are none.
    pub async fn log_lines(&self, task: &Task, after: i64) -> Result<Vec<Logged>, Error> {
        let pieces = self.ledger.log_pieces(task.no, after, PIECES).await?;
        let lines = pieces.into_iter().flat_map(|piece| {
            let attempt = piece.attempt;
            (piece.first_no..).zip(piece.lines).map(move |(no, line)| Logged { no, attempt, line })
        });
        Ok(lines.filter(|logged| logged.no > after).collect())
    }

    /// Lines above `after`, then new lines, until the task has ended. Silent while the ledger is down.
    ///
    /// # Cancel safety
    /// A dropped stream leaves nothing behind.
    pub fn follow_logs(self: &Arc<Self>, task: Task, after: i64) -> impl Stream<Item = Followed> + use<> {
        let gateway = Arc::clone(self);
        let mut signals = self.hub.watch_task(&task.id);
        stream! {
            let (mut last, mut backoff) = (after, Backoff::new(LEDGER_PAUSE));
            let mut ended = task.phase.is_final().then(Instant::now);
            loop {
                let lines = match gateway.log_lines(&task, last).await {
                    Ok(lines) => lines,
                    Err(_) => {
                        tokio::time::sleep(backoff.pause()).await;
                        continue;
                    }
                };
                backoff.reset();
                if !lines.is_empty() {
                    for logged in lines {
                        last = logged.no;
                        yield Followed::Line(logged);
                    }
                    continue;
                }
                if ended.is_some_and(|at| at.elapsed() >= TRAIL) {
                    yield Followed::End(last);
                    return;
                }
                let pause = if ended.is_some() { TRAIL_PAUSE } else { LOOK_AGAIN };
                let heard = tokio::time::timeout(pause, signals.recv()).await;
                let may_have_ended = match heard {
                    Ok(Ok(Signal::Event(event))) => event.phase.is_final(),
                    // Lines from other replicas cause this signal too, so the task itself is read as rarely as possible.
                    Ok(Ok(Signal::Reread)) => signals.is_empty(),
                    Ok(Err(_)) | Err(_) => true,
                };
                if ended.is_none() && may_have_ended && gateway.has_ended(&task.id).await {
                    ended = Some(Instant::now());
                }
            }
        }
    }

    async fn has_ended(&self, id: &TaskId) -> bool {
        matches!(self.reads.task(id).await, Ok(Some(task)) if task.phase.is_final())
    }
}
