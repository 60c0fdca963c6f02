//! Reads a queue that only the gateway reads. An unacknowledged message is delivered again, to this replica or another one.
//!
//! The queue is not declared here: its first publisher declares it with the fleet's arguments, and would be refused if the queue
//! existed with other ones.

use std::time::Duration;

use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use runtime::clock;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::error::{self, NOT_FOUND, short};
use super::link::Link;
use super::{message, queues};
use crate::{Error, Served};

/// Maximum number of unacknowledged messages.
const AHEAD: u16 = 100;
/// Pause between attempts to connect, and between checks whether the queue exists.
const PAUSE: Duration = Duration::from_millis(500);

/// Reads until `stop`, reconnecting for ever.
pub async fn serve(link: Link, queue: &str, sink: mpsc::Sender<Served>, stop: CancellationToken) {
    while !stop.is_cancelled() && !sink.is_closed() {
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = listen(&link, queue, &sink) => outcome,
        };
        match outcome {
            Err(refusal) if !error::is(&refusal, NOT_FOUND) => {
                debug!(error = %refusal, "the queue {queue} cannot be read, trying again");
            }
            Ok(()) | Err(_) => {}
        }
        tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PAUSE) => {} }
    }
}

async fn listen(link: &Link, queue: &str, sink: &mpsc::Sender<Served>) -> Result<(), Error> {
    let channel = link.channel().await?;
    link.answer(channel.basic_qos(AHEAD, BasicQosOptions::default())).await?;
    let tag = format!("taskgate-{}", clock::new_id());
    let options = BasicConsumeOptions::default();
    let consume = channel.basic_consume(short(queue)?, tag.as_str().into(), options, FieldTable::default());
    let mut messages = link.answer(consume).await?;
    while let Some(came) = messages.next().await {
        let came = came?;
        let payload = message::inbound(&came, "");
        if sink.send(Served::of_channel(payload, came.acker)).await.is_err() {
            break;
        }
    }
    queues::close(Some(channel)).await;
    Ok(())
}
