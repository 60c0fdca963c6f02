//! Reads the channels of worker events.
//!
//! Lossy like all pub/sub: gaps are reported, and a reader that needs the truth gets it elsewhere.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Broker, Error};

/// Celery's default `event_exchange`.
pub const EVENT_EXCHANGE: &str = "celeryev";

/// A message of the feed.
#[derive(Debug)]
pub enum Feed {
    /// A published message: an envelope with an event or a list of events.
    Message(Vec<u8>),
    /// The subscription was (re)established.
    Gap,
}

/// Pause between attempts to connect.
const PAUSE: Duration = Duration::from_millis(200);

impl Broker {
    /// Reads all worker events until `stop`, reconnecting for ever. While `sink` is full the socket is not read.
    pub async fn follow_events(&self, sink: mpsc::Sender<Feed>, stop: CancellationToken) {
        let mut was_up = true;
        while !stop.is_cancelled() && !sink.is_closed() {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.listen_to_events(&sink) => outcome,
            };
            if was_up {
                match &outcome {
                    Ok(()) => info!("the event channel was closed, connecting again"),
                    Err(error) => warn!(error = %error, "worker events cannot be read, trying again"),
                }
            }
            was_up = outcome.is_ok();
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(PAUSE) => {} }
        }
    }

    async fn listen_to_events(&self, sink: &mpsc::Sender<Feed>) -> Result<(), Error> {
        let mut pubsub = self.link.pubsub().await?;
        pubsub.psubscribe(self.keys.fanout(EVENT_EXCHANGE, "*")).await?;
        if sink.send(Feed::Gap).await.is_err() {
            return Ok(());
        }
        let mut messages = pubsub.on_message();
        while let Some(message) = messages.next().await {
            if sink.send(Feed::Message(message.get_payload_bytes().to_vec())).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}
