//! Reads the channel on which every record is published when it is written.
//!
//! Lossy: messages during a lost connection are missed, but can be found in the records themselves. Each gap is reported as
//! [`Heard::Gap`], so that the reader can read the records.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Backend, Heard, Receipt, TASK_KEY};

/// Reads the records of all tasks as they are written.
pub struct Watch {
    backend: Backend,
    sink: mpsc::Sender<Heard>,
}

/// Pause between attempts to connect.
const PAUSE: Duration = Duration::from_millis(200);

impl Watch {
    /// `sink` must be bounded; while it is full the socket is not read, and Redis disconnects a reader that stays slow.
    pub fn new(backend: Backend, sink: mpsc::Sender<Heard>) -> Self {
        Self { backend, sink }
    }

    /// Runs until `stop`, reconnecting for ever.
    pub async fn run(self, stop: CancellationToken) {
        let mut was_up = true;
        while !stop.is_cancelled() && !self.sink.is_closed() {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.listen() => outcome,
            };
            if was_up {
                match &outcome {
                    Ok(()) => info!("the result channel was closed, connecting again"),
                    Err(error) => warn!(error = %error, "the result channel cannot be read, trying again"),
                }
            }
            was_up = outcome.is_ok();
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(PAUSE) => {} }
        }
    }

    async fn listen(&self) -> Result<(), super::Error> {
        let mut pubsub = self.backend.link().pubsub().await?;
        let prefix = format!("{}{TASK_KEY}", self.backend.prefix());
        pubsub.psubscribe(format!("{}*", escape(&prefix))).await?;
        if self.sink.send(Heard::Gap).await.is_err() {
            return Ok(());
        }
        let mut messages = pubsub.on_message();
        while let Some(message) = messages.next().await {
            let Some(task_id) = message.get_channel_name().strip_prefix(&prefix).map(str::to_owned) else { continue };
            let payload = message.get_payload_bytes().to_vec();
            if self.sink.send(Heard::Record { task_id, payload, receipt: Receipt::default() }).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Escapes a prefix, which may contain characters with a meaning in patterns.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
