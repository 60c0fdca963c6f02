//! Sends the spans of requests to the collector, in batches.
//!
//! They are kept in memory only: spans that cannot be delivered within [`PATIENCE`] are dropped and counted, because tracing must
//! not affect the gateway's work.

use std::time::Duration;

use metrics::counter;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Exporter;
use super::span::Span;
use runtime::lifecycle::Backoff;

/// Spans in one request to the collector.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(5);

pub struct Courier {
    finished: mpsc::Receiver<Span>,
    exporter: Exporter,
}

impl Courier {
    pub fn new(finished: mpsc::Receiver<Span>, exporter: Exporter) -> Self {
        Self { finished, exporter }
    }

    /// Runs until `stop`, then sends the rest once.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        while !stop.is_cancelled() {
            tokio::select! {
                count = self.finished.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = stop.cancelled() => break,
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(LINGER) => {} }
            while batch.len() < BATCH {
                let Ok(span) = self.finished.try_recv() else { break };
                batch.push(span);
            }
            self.deliver(&mut batch, &stop).await;
        }
        while self.finished.try_recv().is_ok_and(|span| {
            batch.len() < BATCH && {
                batch.push(span);
                true
            }
        }) {}
        let _ = tokio::time::timeout(Duration::from_secs(2), self.exporter.export(&batch)).await;
    }

    async fn deliver(&self, batch: &mut Vec<Span>, stop: &CancellationToken) {
        let mut backoff = Backoff::new(PAUSE);
        let began = Instant::now();
        while let Err(error) = self.exporter.export(batch).await {
            if backoff.is_fresh() {
                warn!(error = %error, "{} spans could not be delivered: {error}", batch.len());
            }
            if !error.is_transient() || began.elapsed() > PATIENCE || stop.is_cancelled() {
                counter!("taskgate_spans_dropped_total").increment(batch.len() as u64);
                break;
            }
            let pause = backoff.pause();
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
        }
        batch.clear();
    }
}
