//! The recorder writes what workers report into the ledger: the result channel (instant, includes `update_state`) and worker events
//! (received, started, ends of tasks that store no result).
//!
//! Both feeds lose, repeat and reorder messages. The ledger handles that ([`ledger::change`]); here news is only decoded, batched and
//! committed, and published to watchers after the commit. Uncertain ends (FAILURE set by the task itself, REVOKED written by a worker
//! that does not have the task, an event whose record has not arrived yet) wait in [`pending`]. After a gap the records of all
//! unfinished tasks are read, so no end is missed while its record exists.
//!
//! One replica records at a time, the holder of the lease, and every write is fenced by the lease's term. A recorder that was paused for
//! longer than its lease, or could not reach the ledger, notices with its next write. Its successor may have missed messages that it
//! received, so it listens for a moment longer and writes news that may be recorded late and twice. The standby replicas listen too
//! ([`feeds`]), and the next recorder writes what arrived while there was no recorder. What a crash of PostgreSQL may have undone is
//! written again ([`unsure`]).

mod asking;
mod attempts;
mod ended;
mod event;
mod feeds;
mod marks;
mod pending;
mod record;
mod state;
mod unsure;
mod writing;

#[cfg(test)]
mod retries_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use metrics::counter;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::ended::Ended;
use self::feeds::{Feeds, Socket};
use self::state::State;
use super::details::Sink as DetailSink;
use super::task_logs::Sink as LogSink;
use crate::live::hub::Hub;
use broker::backend::{Heard, ResultBackend};
use broker::{Broker, Feed};
use celery::event::Event;
use celery::result::ResultMeta;
use celery::task::{Phase, TaskId};
use celery::task_log::TaskLog;
use ledger::{Changed, Lease, News, SharedLedger, Task};
use runtime::clock;
use runtime::lifecycle::Backoff;

/// Maximum amount of news in one commit.
const BATCH: usize = 2_000;
const LEASE: &str = "recorder";
const LEASE_TTL: Duration = Duration::from_millis(1_500);
const LEASE_PERIOD: Duration = Duration::from_millis(500);
/// How often a standby replica tries to get the lease, so that a gap between two recorders stays below two seconds.
const STANDBY: Duration = Duration::from_millis(200);
/// How long a replica that has just begun to listen leaves the lease to replicas that have received more.
const HEAD_START: Duration = Duration::from_millis(500);
/// Pause before records that could not be read after a gap are read again.
const CATCH_UP_AGAIN: Duration = Duration::from_secs(1);
/// How many records of unfinished tasks are read in one round trip.
const CATCH_UP_PAGE: i64 = 500;
/// How long a recorder with a successor keeps listening: messages that arrived while neither of the two recorded are on its sockets.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Passes events about workers themselves to the registry.
pub type WorkerEvents = mpsc::Sender<Event>;

/// Callers' side of the recorder.
#[derive(Clone)]
pub struct Handle {
    active: Arc<AtomicBool>,
    /// Tasks whose results were announced while this replica was the active recorder.
    pub ended: Ended,
}

impl Handle {
    /// Whether this replica is the active recorder.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }
}

/// The recorder of one replica; idle unless it holds the lease.
pub struct Recorder {
    ledger: SharedLedger,
    broker: Broker,
    backend: ResultBackend,
    hub: Hub,
    holder: String,
    workers: Option<WorkerEvents>,
    logs: Option<LogSink>,
    /// Receives adopted tasks.
    adopted: Option<DetailSink>,
    active: Arc<AtomicBool>,
    ended: Ended,
    /// The term of the lease, while it is held.
    term: AtomicI64,
    /// Whether the ledger was down: what was not on its disk may be lost.
    is_shaken: AtomicBool,
}

impl Recorder {
    /// `holder` names this process among the replicas.
    pub fn new(
        ledger: SharedLedger,
        broker: Broker,
        backend: ResultBackend,
        hub: Hub,
        holder: String,
        workers: Option<WorkerEvents>,
    ) -> (Self, Handle) {
        let active = Arc::new(AtomicBool::new(false));
        let ended = Ended::default();
        let handle = Handle { active: Arc::clone(&active), ended: ended.clone() };
        let (term, is_shaken) = (AtomicI64::new(0), AtomicBool::new(false));
        (
            Self {
                ledger,
                broker,
                backend,
                hub,
                holder,
                workers,
                logs: None,
                adopted: None,
                active,
                ended,
                term,
                is_shaken,
            },
            handle,
        )
    }

    /// Passes on the log lines of tasks.
    pub fn with_logs(mut self, logs: LogSink) -> Self {
        self.logs = Some(logs);
        self
    }

    /// Passes on tasks that it adopts.
    pub fn with_details(mut self, adopted: DetailSink) -> Self {
        self.adopted = Some(adopted);
        self
    }

    /// Runs until `stop`: waits for the lease, records while it holds it.
    pub async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(LEASE_PERIOD);
        let mut feeds = Feeds::open(&self.backend, &self.broker, Arc::clone(&self.active), &stop);
        while !stop.is_cancelled() {
            let behind = if feeds.is_new() { HEAD_START } else { Duration::ZERO };
            let lease = tokio::select! {
                lease = self.ask_for_lease(behind) => lease,
                () = feeds.listen() => break,
            };
            let pause = match lease {
                Ok(Some(lease)) => {
                    info!(lease.term, "this replica is the recorder, term {}", lease.term);
                    backoff.reset();
                    self.hold_and_record(lease.term, &mut feeds, &stop).await;
                    STANDBY
                }
                Ok(None) => STANDBY,
                Err(error) => {
                    if backoff.is_fresh() {
                        warn!(error = %error, "the recorder's lease cannot be read, trying again");
                    }
                    backoff.pause()
                }
            };
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} () = feeds.listen() => {} }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ledger.release(LEASE, &self.holder)).await;
    }

    /// Tries to get the lease. An expired lease is left to others for a while; a released one may be taken at once.
    async fn ask_for_lease(&self, behind: Duration) -> Result<Option<Lease>, ledger::Error> {
        self.ledger.lease(LEASE, &self.holder, clock::now().minus(behind), LEASE_TTL + behind).await
    }

    /// Records until the lease is lost or `stop`.
    async fn hold_and_record(&self, number: i64, feeds: &mut Feeds, stop: &CancellationToken) {
        let term = stop.child_token();
        self.term.store(number, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
        let lost = term.child_token();
        let mut recording = std::pin::pin!(self.record(feeds, &term, &lost));
        tokio::select! {
            () = self.heed_gaps() => {}
            () = self.keep_lease(&term) => {
                self.active.store(false, Ordering::Relaxed);
                lost.cancel();
                let _ = tokio::time::timeout(HAND_OVER, recording).await;
            }
            () = &mut recording => {}
        }
        self.active.store(false, Ordering::Relaxed);
        term.cancel();
    }

    async fn keep_lease(&self, stop: &CancellationToken) {
        let mut renewed = Instant::now();
        while !stop.is_cancelled() {
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(LEASE_PERIOD) => {} }
            match self.ledger.lease(LEASE, &self.holder, clock::now(), LEASE_TTL).await {
                Ok(Some(_)) => renewed = Instant::now(),
                Ok(None) => {
                    warn!("another replica took over recording");
                    return;
                }
                // While the ledger is down no other replica can take the lease either; messages wait.
                Err(error) => {
                    self.is_shaken.store(true, Ordering::Relaxed);
                    debug!(error = %error, since_ms = renewed.elapsed().as_millis(), "lease not renewed");
                }
            }
        }
    }

    /// Watches for lost connections to the ledger, because a crash may be over before the next write.
    async fn heed_gaps(&self) {
        let mut changes = self.ledger.changes();
        loop {
            match changes.recv().await {
                Ok(Changed::Gap) => self.is_shaken.store(true, Ordering::Relaxed),
                Ok(Changed::Any | Changed::Tasks(_)) | Err(RecvError::Lagged(_)) => {}
                // This ledger has a single process.
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    async fn record(&self, feeds: &mut Feeds, stop: &CancellationToken, lost: &CancellationToken) {
        let mut state = State::new(!self.backend.tells());
        let mut batch = feeds.kept();
        self.take(&mut batch, &mut state, true, lost).await;
        self.ask_for_events().await;
        state.catch_up_at = Some(Instant::now());
        loop {
            let deadlines = [state.pending.next_deadline(), state.asking.next(), state.catch_up_at];
            let idle = || Instant::now() + Duration::from_secs(3_600);
            let deadline = deadlines.into_iter().flatten().min().unwrap_or_else(idle);
            tokio::select! {
                biased;
                count = feeds.hear(&mut batch) => {
                    if count == 0 { break; }
                    feeds.linger(&mut batch).await;
                }
                () = tokio::time::sleep_until(deadline) => {}
                () = stop.cancelled() => break,
            }
            self.take(&mut batch, &mut state, false, lost).await;
        }
    }

    /// `late`: another recorder may have written the news before.
    async fn take(&self, batch: &mut Vec<Socket>, state: &mut State, late: bool, lost: &CancellationToken) {
        let mut news = Vec::new();
        let mut gap = false;
        let mut receipts = Vec::new();
        for heard in batch.drain(..) {
            match heard {
                Socket::Result(Heard::Gap) => {
                    state.note_gap();
                    gap = true;
                }
                Socket::Result(Heard::Record { task_id, payload, receipt }) => {
                    self.take_record(&task_id, &payload, state, &mut news);
                    receipts.push(receipt);
                }
                Socket::Event(Feed::Gap) => {
                    state.note_gap();
                    self.ask_for_events().await;
                }
                Socket::Event(Feed::Message(payload)) => self.take_events(event::decode(&payload), state, &mut news),
                Socket::Events(events, _) => self.take_events(events, state, &mut news),
                Socket::Marked(events) => news.extend(events.into_iter().filter_map(event::step)),
            }
        }
        self.take_due(state, &mut news).await;
        news.iter_mut().for_each(|report| report.late = late);
        self.commit(news, state, lost).await;
        for receipt in receipts {
            receipt.done().await;
        }
        if state.asking.is_due(Instant::now()) {
            self.ask_for_events().await;
        }
        if gap || state.catch_up_at.is_some_and(|at| at <= Instant::now()) {
            let caught_up = self.catch_up(state, lost).await;
            state.catch_up_at = (!caught_up).then(|| Instant::now() + CATCH_UP_AGAIN);
        }
    }

    fn take_record(&self, task_id: &str, payload: &[u8], state: &mut State, news: &mut Vec<News>) {
        let Ok(id) = TaskId::parse(task_id) else {
            counter!("taskgate_records_unreadable_total").increment(1);
            return;
        };
        match ResultMeta::decode(payload) {
            Ok(record) => {
                if record.is_ready() {
                    self.ended.note(id.clone());
                }
                state.hear_record(id, record, news);
            }
            Err(error) => {
                counter!("taskgate_records_unreadable_total").increment(1);
                warn!(task.id = %id, error = %error, "the record of task {id} {error}, it is left alone");
            }
        }
    }

    fn take_events(&self, events: Vec<Event>, state: &mut State, news: &mut Vec<News>) {
        for event in events {
            counter!("taskgate_worker_events_total").increment(1);
            if let Some(workers) = self.workers.as_ref().filter(|_| state.is_of_a_worker(&event)) {
                // A dropped heartbeat does no harm: the next one follows.
                let _ = workers.try_send(event.clone());
            }
            if let (Some(logs), Some(log)) = (&self.logs, TaskLog::read(&event)) {
                if logs.try_send(log).is_err() {
                    counter!("taskgate_task_log_events_dropped_total").increment(1);
                }
                continue;
            }
            state.hear_event(event, news);
        }
    }

    /// Takes uncertain ends whose wait is over. An end from an event gets its record, if there is one.
    async fn take_due(&self, state: &mut State, news: &mut Vec<News>) {
        let due = state.due(Instant::now());
        if due.is_empty() {
            return;
        }
        let (by_event, by_record): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|report| report.source == ledger::Source::Event);
        news.extend(self.without_bystanders(by_record).await);
        let ids: Vec<TaskId> = by_event.iter().map(|report| report.task_id.clone()).collect();
        let records = match self.backend.records(&ids).await {
            Ok(records) => records,
            // No message will announce these records, and the record of an ended task is not read any more.
            Err(error) if !self.backend.tells() => {
                debug!(%error, "{} ends wait for their records", by_event.len());
                news.extend(by_event.into_iter().filter_map(|told| state.pending.hold(told, CATCH_UP_AGAIN)));
                return;
            }
            Err(_) => vec![None; ids.len()],
        };
        for (told, record) in by_event.into_iter().zip(records) {
            match record.and_then(|payload| ResultMeta::decode(&payload).ok()).filter(ResultMeta::is_ready) {
                Some(record) => {
                    let end = certain(record::read(told.task_id.clone(), record, told.at));
                    let worker = end.worker.clone().or_else(|| told.worker.clone());
                    let traceback = end.traceback.clone().or_else(|| told.traceback.clone());
                    news.push(News { worker, traceback, adoption: told.adoption.clone(), ..end });
                    news.push(told);
                }
                None => news.push(told),
            }
        }
    }

    /// Drops REVOKED records of bystanders: any worker that gets a revoke writes REVOKED, even for a task that it does not have. While
    /// another worker has the task, only that worker reports its end; if it dies silently, the sweeper accepts the record.
    async fn without_bystanders(&self, ends: Vec<News>) -> Vec<News> {
        let ids: Vec<TaskId> =
            ends.iter().filter(|report| report.phase == Phase::Revoked).map(|report| report.task_id.clone()).collect();
        if ids.is_empty() {
            return ends;
        }
        // While the ledger is down nothing can be written either.
        let tasks = self.ledger.standing(&ids).await.unwrap_or_default();
        let has_owner = |report: &News| {
            let task = tasks.iter().find(|task| task.id == report.task_id);
            report.phase == Phase::Revoked
                && task.is_some_and(|task| matches!(task.phase, Phase::Received | Phase::Running) && !task.adopted)
        };
        ends.into_iter().filter(|report| !has_owner(report)).collect()
    }

    /// Asks all workers to send task events; those without `-E` start then.
    async fn ask_for_events(&self) {
        if let Err(error) = self.broker.broadcast("enable_events", "{}").await {
            info!(error = %error, "workers could not be asked for events");
        }
    }

    /// Reads the records of all unfinished tasks. False when some could not be read and it must be repeated.
    async fn catch_up(&self, state: &mut State, lost: &CancellationToken) -> bool {
        let mut after = 0;
        loop {
            let phases =
                [Phase::Queued, Phase::Received, Phase::Running, Phase::Retrying, Phase::Waiting, Phase::Accepted];
            let tasks = match self.ledger.unfinished(&phases, after, CATCH_UP_PAGE).await {
                Ok(tasks) => tasks,
                Err(error) => {
                    warn!(error = %error, "unfinished tasks could not be read after a gap, trying again");
                    return false;
                }
            };
            let Some(last) = tasks.last() else { return true };
            after = last.no;
            if !self.catch_up_page(&tasks, state, lost).await {
                return false;
            }
        }
    }

    async fn catch_up_page(&self, tasks: &[Task], state: &mut State, lost: &CancellationToken) -> bool {
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id.clone()).collect();
        let Ok(records) = self.backend.records(&ids).await else { return false };
        let mut news = Vec::new();
        for (task, payload) in tasks.iter().zip(records) {
            let Some(record) = payload.and_then(|payload| ResultMeta::decode(&payload).ok()) else { continue };
            // A poll sees the same record again and again, and cannot tell two retries from one.
            if record.status == "RETRY" && !self.backend.tells() {
                continue;
            }
            let mut said = Vec::new();
            state.hear_record(task.id.clone(), record, &mut said);
            news.extend(said.into_iter().filter(|report| !record::is_known(task, report)));
        }
        self.commit(news, state, lost).await;
        true
    }
}

/// The end of a task according to its record, if it contains one.
pub fn end_of(id: TaskId, payload: &[u8]) -> Option<News> {
    let record = ResultMeta::decode(payload).ok().filter(ResultMeta::is_ready)?;
    Some(certain(record::read(id, record, clock::now())))
}

fn certain(said: record::Said) -> News {
    match said {
        record::Said::Now(news) => *news,
        record::Said::Unless { end, .. } => *end,
    }
}
