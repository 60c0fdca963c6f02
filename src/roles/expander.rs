//! Writes the tasks of large fan-outs in pieces. Each piece moves the row's count in the same transaction as its tasks, so a crash
//! between two pieces neither loses nor repeats a task. One replica writes at a time, but only for speed: with two, each would find the
//! other's piece written. While the backlog is at its limit nothing is written.

use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::catalog::Damaged;
use crate::live::commit::outgoing;
use crate::usecase::fan_out::{Kept, tasks};
use crate::usecase::submit::{SubmitRequest, trace_headers};
use crate::usecase::{Roster, SharedGateway};
use celery::plan::{self, Piece};
use celery::task::{Invalid, Signature, Submission, TaskId};
use ledger::Error;
use runtime::clock;
use runtime::lifecycle::Backoff;

/// Tasks in one transaction, which takes some 10 ms on PostgreSQL and some 100 ms on SQLite.
const PIECE: u32 = 500;
/// Pieces written before the next fan-out gets its turn.
const TURN: u32 = 20;
const LEASE: &str = "fan_out";
const LEASE_TTL: Duration = Duration::from_secs(10);
/// How often the ledger is read without a nudge.
const PERIOD: Duration = Duration::from_secs(2);
/// How long to wait for the relay to take a piece. After that, the next piece is left to the outbox.
const RELAY_PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(2);

/// Writes the tasks of accepted fan-outs.
pub struct Expander {
    gateway: SharedGateway,
    holder: String,
    /// The fan-out of the last turn, parsed.
    current: Option<(i64, Kept)>,
}

/// Why a piece was not written. It is retried.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Ledger(#[from] Error),
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error("its tasks do not fit: {0:?}")]
    Invalid(Vec<Invalid>),
}

impl Expander {
    pub fn new(gateway: SharedGateway, holder: String) -> Self {
        Self { gateway, holder, current: None }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(PAUSE);
        let nudge = self.gateway.expander.clone();
        while !stop.is_cancelled() {
            let pause = match self.pass(&stop).await {
                Ok(()) => {
                    backoff.reset();
                    PERIOD
                }
                Err(error) => {
                    if backoff.is_fresh() {
                        warn!(error = %error, "a fan-out could not be written out, trying again");
                    }
                    backoff.pause()
                }
            };
            tokio::select! { () = stop.cancelled() => {} () = nudge.nudged() => {} () = tokio::time::sleep(pause) => {} }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.gateway.ledger.release(LEASE, &self.holder)).await;
    }

    /// Handles all fan-outs in turn, until none is left.
    async fn pass(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let (mut after, mut progress) = (0, false);
        loop {
            let Some(next) = self.gateway.ledger.next_fan_out(after).await? else {
                if !progress {
                    return Ok(());
                }
                (after, progress) = (0, false);
                continue;
            };
            if !self.may_write(stop).await? {
                return Ok(());
            }
            after = next.no;
            match self.turn(next, stop).await {
                Ok(written) => progress |= written,
                Err(Trouble::Ledger(error)) if error.is_transient() => return Err(error),
                // One broken fan-out does not stop the others.
                Err(trouble) => {
                    error!(error = %trouble, fan_out = after, "fan-out {after} cannot be written out: {trouble}")
                }
            }
        }
    }

    async fn may_write(&self, stop: &CancellationToken) -> Result<bool, Error> {
        if stop.is_cancelled() || self.gateway.check_backlog().is_err() {
            return Ok(false);
        }
        Ok(self.gateway.ledger.lease(LEASE, &self.holder, clock::now(), LEASE_TTL).await?.is_some())
    }

    /// Writes some pieces of one fan-out. Returns whether it wrote any.
    async fn turn(&mut self, mut fan_out: ledger::FanOut, stop: &CancellationToken) -> Result<bool, Trouble> {
        let kept = match self.current.take() {
            Some((no, kept)) if no == fan_out.no => kept,
            _ => serde_json::from_str(&fan_out.plan).map_err(|error| Damaged::new(&error))?,
        };
        fan_out.plan = String::new();
        let mut written = false;
        for _ in 0..TURN {
            let count = self.piece(&fan_out, &kept).await?;
            fan_out.written += count;
            written |= count > 0;
            if count == 0 || fan_out.written >= fan_out.total || !self.may_write(stop).await? {
                break;
            }
        }
        if fan_out.written >= fan_out.total {
            info!(group.id = %fan_out.group_id, "all {} tasks of group {} are written", fan_out.total, fan_out.group_id);
        } else {
            self.current = Some((fan_out.no, kept));
        }
        Ok(written)
    }

    /// Writes the next tasks and offers them to the relay. Returns their number, 0 when another replica wrote them.
    async fn piece(&self, fan_out: &ledger::FanOut, kept: &Kept) -> Result<i32, Trouble> {
        let mut submission = self.rows(fan_out, kept)?;
        let _files = self.gateway.offload(&mut submission.tasks, &Roster::default()).await;
        let count = i32::try_from(submission.tasks.len()).unwrap_or(i32::MAX);
        let Some(inserted) = self.gateway.ledger.write_piece(fan_out, &submission).await? else { return Ok(0) };
        counter!("taskgate_fan_out_tasks_total").increment(inserted.task_nos.len() as u64);
        self.gateway.hub.accepted(&submission, &inserted.task_nos);
        let offer = outgoing(submission, &inserted);
        // A relay that lags finds them in the outbox, so they need not wait in memory.
        if self.relay_is_free().await {
            self.gateway.relay.offer(offer);
        }
        self.gateway.relay.nudge();
        Ok(count)
    }

    async fn relay_is_free(&self) -> bool {
        let deadline = Instant::now() + RELAY_PATIENCE;
        while !self.gateway.relay.is_idle() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }

    fn rows(&self, fan_out: &ledger::FanOut, kept: &Kept) -> Result<ledger::Submission, Trouble> {
        let gateway = &self.gateway;
        let now = clock::now();
        let first = u32::try_from(fan_out.written).unwrap_or_default();
        let tasks = tasks(&kept.call, first, first.saturating_add(PIECE))?;
        let headers = trace_headers(kept.traceparent.as_deref());
        let context = gateway.context(&headers, now);
        let mut root = (first == 0).then(|| fan_out.root_id.clone());
        let mut ids = || root.take().unwrap_or_else(|| TaskId::from(clock::new_id()));
        let piece = Piece { group: &fan_out.group_id, root: &fan_out.root_id, first: fan_out.written, tasks };
        let plan = plan::piece(piece, &context, &mut ids, &|task| gateway.defaults(task)).map_err(Trouble::Invalid)?;
        let mut request = SubmitRequest::new(Submission::of(Signature::Group(Vec::new())));
        request.traceparent.clone_from(&kept.traceparent);
        request.token.clone_from(&kept.token);
        request.submission.limits.clone_from(&kept.limits);
        request.submission.labels.clone_from(&kept.labels);
        request.submission.fair.clone_from(&kept.fair);
        Ok(gateway.rows(plan, request, now))
    }
}
