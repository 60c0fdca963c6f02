//! Reads a queue that only the gateway reads.
//!
//! A worker's method (pop, reserve, acknowledge) would leave a message reserved for the visibility timeout when its reader dies. Here
//! the message stays in the list until it is done: a blocking rotation of the list onto itself wakes the reader, which then reads the
//! list. Several readers may see a message; they must decide elsewhere which of them handles it.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Broker, Error};
use crate::Served;
use celery::task::Priority;

/// Timeout of a blocking call.
const PATIENCE: Duration = Duration::from_secs(2);
/// Extra time for its answer.
const GRACE: Duration = Duration::from_secs(5);
/// Messages read at a time.
const CHUNK: isize = 100;
const PAUSE: Duration = Duration::from_millis(500);

impl Broker {
    /// Reads messages until `stop`, reconnecting for ever. The next ones are read when all earlier ones were dropped.
    pub async fn serve_queue(&self, queue: &str, sink: mpsc::Sender<Served>, stop: CancellationToken) {
        let key = self.keys.queue(queue, Priority::clamped(0));
        let mut connection = None;
        while !stop.is_cancelled() && !sink.is_closed() {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.serve_once(&key, &mut connection, &sink) => outcome,
            };
            if let Err(error) = outcome {
                debug!(error = %error, "the queue {queue} cannot be read, trying again");
                connection = None;
                tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PAUSE) => {} }
            }
        }
    }

    async fn serve_once(
        &self,
        key: &str,
        connection: &mut Option<MultiplexedConnection>,
        sink: &mpsc::Sender<Served>,
    ) -> Result<(), Error> {
        let open = match connection {
            Some(open) => open,
            missing => missing.insert(self.link.dedicated(Some(PATIENCE + GRACE)).await?),
        };
        let mut command = redis::cmd("BRPOPLPUSH");
        command.arg(key).arg(key).arg(PATIENCE.as_secs());
        let woken: Option<Vec<u8>> = command.query_async(open).await?;
        if woken.is_none() {
            return Ok(());
        }
        let mut command = redis::cmd("LRANGE");
        command.arg(key).arg(-CHUNK).arg(-1);
        let found: Vec<Vec<u8>> = self.link.call(&command).await?;
        let (busy, mut idle) = mpsc::channel(1);
        for payload in found.into_iter().rev() {
            if sink.send(Served::of_list(payload, self.clone(), key.to_owned(), busy.clone())).await.is_err() {
                return Ok(());
            }
        }
        drop(busy);
        // Nothing is ever sent: this ends when the last message is dropped.
        let _: Option<()> = idle.recv().await;
        Ok(())
    }

    /// Removes exactly this message from a list.
    pub(crate) async fn drop_from(&self, key: &str, payload: &[u8]) -> Result<(), Error> {
        let mut command = redis::cmd("LREM");
        command.arg(key).arg(-1).arg(payload);
        let _: i64 = self.link.call(&command).await?;
        Ok(())
    }
}
