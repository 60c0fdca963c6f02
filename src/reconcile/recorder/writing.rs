//! News on its way into the ledger: in batches, fenced by the term of the lease, and repeated until the ledger has it. A batch that the
//! ledger refuses for good is halved until what it refuses stands alone, so that one piece of news costs no other one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::state::State;
use super::{BATCH, LEASE, LEASE_TTL, Recorder};
use ledger::change::{DUPLICATE, ENDED_ELSEWHERE, REDELIVERED};
use ledger::{Event, Fence, News};
use runtime::clock;
use runtime::lifecycle::Backoff;

const LEDGER_PAUSE: Duration = Duration::from_secs(2);

impl Recorder {
    /// Retries until the ledger has the news: nothing is dropped while the process lives. `lost` is cancelled when the lease is lost, which
    /// ends a pause.
    pub(super) async fn commit(&self, mut news: Vec<News>, state: &mut State, lost: &CancellationToken) {
        if news.is_empty() {
            // It is retried with the next news at the latest.
            let _ = self.retell(state).await;
        }
        while !news.is_empty() {
            let rest = news.split_off(news.len().min(BATCH));
            self.commit_halved(news, state, lost).await;
            news = rest;
        }
    }

    /// In order: the second half of a refused chunk is written after all of the first.
    async fn commit_halved(&self, chunk: Vec<News>, state: &mut State, lost: &CancellationToken) {
        let mut open = vec![chunk];
        while let Some(chunk) = open.pop() {
            if let Some(mut refused) = self.commit_chunk(chunk, state, lost).await
                && refused.len() > 1
            {
                let second = refused.split_off(refused.len() / 2);
                open.extend([second, refused]);
            }
        }
    }

    /// Gives back what the ledger refuses for good.
    async fn commit_chunk(&self, chunk: Vec<News>, state: &mut State, lost: &CancellationToken) -> Option<Vec<News>> {
        // Ends must survive a crash of the server, and so must events that a watcher has seen: their numbers would be used again.
        let durable = chunk.iter().any(|report| report.phase.is_final())
            || self.hub.watches(chunk.iter().map(|report| &report.task_id));
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        loop {
            let started = Instant::now();
            let _announcing = self.hub.announcing();
            match self.write(&chunk, durable, state).await {
                Ok(None) => {
                    self.hand_over(&chunk).await;
                    return None;
                }
                Ok(Some(events)) => {
                    histogram!("taskgate_recorder_commit_seconds").record(started.elapsed().as_secs_f64());
                    note_lag(&chunk);
                    counter!("taskgate_recorder_events_total").increment(events.len() as u64);
                    note_redeliveries(&events);
                    state.note_untaken(&chunk, &events);
                    self.hand_on_adopted(&events);
                    self.hub.publish(&events);
                    if !durable {
                        state.unsure.keep(Instant::now(), chunk);
                    }
                    return None;
                }
                Err(error) if error.is_transient() => {
                    self.is_shaken.store(true, Ordering::Relaxed);
                    if backoff.is_fresh() {
                        warn!(error = %error, "the ledger is down, {} reports wait", chunk.len());
                    }
                    let (pause, is_lost) = (backoff.pause(), lost.is_cancelled());
                    tokio::select! {
                        () = lost.cancelled(), if !is_lost => backoff.reset(),
                        () = tokio::time::sleep(pause) => {}
                    }
                }
                Err(error) => {
                    tell_refusal(&chunk, &error);
                    return Some(chunk);
                }
            }
        }
    }

    /// A task's first recorded event is that of its adoption. If the channel is full, the task keeps the data of its event.
    fn hand_on_adopted(&self, events: &[Event]) {
        if let Some(adopted) = &self.adopted {
            for event in events.iter().filter(|event| event.seq == 1) {
                let _ = adopted.try_send(event.task_id.clone());
            }
        }
    }

    /// `None` when another replica records now. News that a crash may have undone is written first.
    async fn write(
        &self,
        chunk: &[News],
        durable: bool,
        state: &mut State,
    ) -> Result<Option<Vec<Event>>, ledger::Error> {
        self.retell(state).await?;
        let (term, until) = (self.term.load(Ordering::Relaxed), clock::now().plus(LEASE_TTL));
        self.ledger.learn_fenced(chunk, durable, &Fence { lease: LEASE, term, until }).await
    }

    /// Writes again what was written before the ledger went down and may not have been on its disk. The ledger drops what it has.
    async fn retell(&self, state: &mut State) -> Result<(), ledger::Error> {
        if !self.is_shaken.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let unsure = state.unsure.take();
        for chunk in unsure.chunks(BATCH) {
            match self.ledger.learn(chunk, true).await {
                Ok(events) if events.is_empty() => {}
                Ok(events) => {
                    info!("a crash of the ledger had undone {} of {} news", events.len(), chunk.len());
                    self.hub.publish(&events);
                }
                Err(error) if error.is_transient() => {
                    state.unsure.put_back(Instant::now(), unsure);
                    self.is_shaken.store(true, Ordering::Relaxed);
                    return Err(error);
                }
                Err(error) => warn!(error = %error, "{} news were refused when they were written again", chunk.len()),
            }
        }
        Ok(())
    }

    /// Called when another replica records now: writes news that it may have missed; the ledger drops what it has.
    async fn hand_over(&self, heard: &[News]) {
        let late: Vec<News> = heard.iter().map(|report| News { late: true, ..report.clone() }).collect();
        match self.ledger.learn(&late, true).await {
            Ok(events) => {
                debug!("another replica records now, {} of {} news were new to it", events.len(), heard.len());
                note_redeliveries(&events);
                self.hub.publish(&events);
            }
            Err(error) => warn!(error = %error, "another replica records now, {} news are left to it", heard.len()),
        }
    }
}

/// Only the single refused piece is lost.
fn tell_refusal(chunk: &[News], error: &ledger::Error) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    match chunk {
        [report] => {
            error!(task.id = %report.task_id, %error, cause, "news of task {} was refused and is dropped", report.task_id);
        }
        many => warn!(%error, cause, "{} news were refused together, each half is tried alone", many.len()),
    }
}

/// Counts redeliveries by the broker, for the metrics.
fn note_redeliveries(events: &[Event]) {
    let count = |reason: &str| events.iter().filter(|event| event.reason.as_deref() == Some(reason)).count() as u64;
    counter!("taskgate_redeliveries_total").increment(count(REDELIVERED) + count(ENDED_ELSEWHERE));
    counter!("taskgate_duplicates_total").increment(count(DUPLICATE));
}

/// Measures how late the oldest of these was written, except ends that waited for a confirmation.
fn note_lag(written: &[News]) {
    if let Some(oldest) = written.iter().map(|report| report.at).min() {
        histogram!("taskgate_recorder_lag_seconds").record(clock::now().since(oldest).as_secs_f64());
    }
}
