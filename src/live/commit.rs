//! Group commit: concurrent submissions share one insert and one commit.
//!
//! A batch is whatever arrived while the previous one was being written. A lone submission never waits; under load the batches grow by
//! themselves. Callers that repeat as soon as they are answered would split into two batches that take turns, each half as large as it could
//! be, and a small batch costs the ledger nearly as much as a large one. So a batch under load first lets those join who are
//! on their way, for a fraction of the time that a commit takes.
//!
//! Submissions with many tasks, and those that come by the thousand, have a lane of their own: its transactions take long, and
//! nobody with a single task waits behind them. Its rows are made on a thread of its own, so that other requests are answered meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use metrics::{Histogram, histogram};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::hub::Hub;
use crate::live::direct;
use celery::task::{Phase, TaskId};
use ledger::{Conflict, Error, Inserted, NewGroup, NewTask, Outgoing, SharedLedger, Submission, Way};
use runtime::crash_points;

/// How many submissions may wait for the batch in progress: more than a replica has connections.
const CAPACITY: usize = 4_096;
/// Maximum number of tasks in a commit, which bounds its latency and memory.
const BATCH_TASKS: usize = 4_000;
const BATCH_BYTES: usize = 32 << 20;
/// A submission with more tasks than this is one of the many.
const FEW_TASKS: usize = 64;
/// A caller that waits longer gets an error; its submission may still be committed.
const PATIENCE: Duration = Duration::from_secs(15);
/// From this many callers at once on, a batch waits for those who were just answered:
const CROWD: usize = 8;
/// at most this long,
const GATHER: Duration = Duration::from_millis(1);
/// and not longer than this after the last that came.
const QUIET: Duration = Duration::from_micros(100);

/// Looked up once, because every submission records into it.
static SUBMIT_SECONDS: LazyLock<Histogram> = LazyLock::new(|| histogram!("taskgate_submit_seconds"));

struct Request {
    submission: Submission,
    reply: oneshot::Sender<Result<Result<Inserted, Conflict>, CommitError>>,
}

/// Why a submission could not be committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("the ledger is not available")]
    Unavailable,
    #[error("the ledger did not answer in time")]
    TimedOut,
    #[error("the ledger refused the submission")]
    Refused,
}

/// The caller's handle. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    few: mpsc::Sender<Request>,
    many: mpsc::Sender<Request>,
}

impl Handle {
    /// Returns when the submission is committed, or refused.
    ///
    /// # Cancel safety
    /// A dropped call may leave the submission committed; repeating it with an `Idempotency-Key` tells.
    pub async fn commit(&self, submission: Submission) -> Result<Result<Inserted, Conflict>, CommitError> {
        self.commit_among(submission, false).await
    }

    /// As [`Handle::commit`]; `many` is true for a submission that comes together with many others.
    pub async fn commit_among(
        &self,
        submission: Submission,
        many: bool,
    ) -> Result<Result<Inserted, Conflict>, CommitError> {
        let lane = if many || submission.tasks.len() > FEW_TASKS { &self.many } else { &self.few };
        let (reply, answer) = oneshot::channel();
        let work = async {
            lane.send(Request { submission, reply }).await.map_err(|_| CommitError::Unavailable)?;
            answer.await.map_err(|_| CommitError::Unavailable)?
        };
        let started = Instant::now();
        let outcome = tokio::time::timeout(PATIENCE, work).await.map_err(|_| CommitError::TimedOut)?;
        SUBMIT_SECONDS.record(started.elapsed().as_secs_f64());
        outcome
    }
}

/// Writes what is submitted.
pub struct Committer {
    few: Lane,
    many: Lane,
}

impl Committer {
    pub fn new(ledger: SharedLedger, relay: direct::Handle, hub: Hub) -> (Self, Handle) {
        let lane = || {
            let (sender, requests) = mpsc::channel(CAPACITY);
            (Lane { requests, ledger: ledger.clone(), relay: relay.clone(), hub: hub.clone(), crowd: 0 }, sender)
        };
        let ((few, to_few), (many, to_many)) = (lane(), lane());
        (Self { few, many }, Handle { few: to_few, many: to_many })
    }

    /// Runs until `stop`; submissions received before that are still written.
    ///
    /// # Panics
    /// When one of the lanes does.
    pub async fn run(self, stop: CancellationToken) {
        let (runtime, stop_many) = (tokio::runtime::Handle::current(), stop.clone());
        let many = tokio::task::spawn_blocking(move || runtime.block_on(self.many.run(stop_many)));
        tokio::join!(self.few.run(stop), async { many.await.expect("a lane does not panic") });
    }
}

/// Writes batches, one after the other.
struct Lane {
    requests: mpsc::Receiver<Request>,
    ledger: SharedLedger,
    relay: direct::Handle,
    hub: Hub,
    /// How many callers there were at the end of the last write: those that it answered, and those that had come meanwhile.
    crowd: usize,
}

impl Lane {
    async fn run(mut self, stop: CancellationToken) {
        let mut waiting = Vec::new();
        loop {
            let count = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                count = self.requests.recv_many(&mut waiting, CAPACITY) => count,
            };
            if count == 0 {
                break;
            }
            self.gather(&mut waiting).await;
            self.write_all(&mut waiting).await;
        }
        self.requests.close();
        while self.requests.recv_many(&mut waiting, CAPACITY).await > 0 {
            self.write_all(&mut waiting).await;
        }
    }

    /// Lets callers join who were answered a moment ago and ask again. Each round runs what the runtime has to do, such as the handlers of
    /// their requests; there is no timer, because the runtime's are a millisecond long.
    async fn gather(&mut self, waiting: &mut Vec<Request>) {
        let begun = std::time::Instant::now();
        let mut last = begun;
        while is_worth_waiting(waiting.len(), self.crowd) && begun.elapsed() < GATHER && last.elapsed() < QUIET {
            tokio::task::yield_now().await;
            let before = waiting.len();
            waiting.extend(std::iter::from_fn(|| self.requests.try_recv().ok()).take(CAPACITY));
            if waiting.len() > before {
                last = std::time::Instant::now();
            }
        }
    }

    async fn write_all(&mut self, waiting: &mut Vec<Request>) {
        let mut answered = 0;
        while !waiting.is_empty() {
            let rest = waiting.split_off(batch_end(waiting));
            let batch = std::mem::replace(waiting, rest);
            answered += batch.len();
            self.write(batch).await;
        }
        self.crowd = answered + self.requests.len();
    }

    async fn write(&mut self, batch: Vec<Request>) {
        let (submissions, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|request| (request.submission, request.reply)).unzip();
        histogram!("taskgate_commit_batch_submissions").record(submissions.len() as f64);
        crash_points::reach(crash_points::BEFORE_COMMIT);
        let started = Instant::now();
        let _announcing = self.hub.announcing();
        let outcome = self.ledger.insert(&submissions).await;
        histogram!("taskgate_commit_seconds").record(started.elapsed().as_secs_f64());
        crash_points::reach(crash_points::AFTER_COMMIT);
        match outcome {
            Ok(outcomes) => self.answer(submissions, replies, outcomes),
            Err(error) => refuse(replies, &error),
        }
    }

    /// Offers the tasks to the relay before it answers the callers, so a message is being published when its 202 is sent.
    fn answer(
        &self,
        submissions: Vec<Submission>,
        replies: Vec<oneshot::Sender<Result<Result<Inserted, Conflict>, CommitError>>>,
        outcomes: Vec<Result<Inserted, Conflict>>,
    ) {
        let mut offer = Vec::new();
        let mut held = false;
        for (submission, outcome) in submissions.into_iter().zip(&outcomes) {
            if let Ok(inserted) = outcome {
                held |= submission.tasks.iter().any(needs_pass);
                self.hub.accepted(&submission, &inserted.task_nos);
                offer.extend(outgoing(submission, inserted));
            }
        }
        self.relay.offer(offer);
        if held {
            self.relay.nudge();
        }
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            let _ = reply.send(Ok(outcome));
        }
    }
}

fn refuse(replies: Vec<oneshot::Sender<Result<Result<Inserted, Conflict>, CommitError>>>, error: &Error) {
    error!(error = %error, source = ?std::error::Error::source(error).map(ToString::to_string), "{} submissions were not written", replies.len());
    for reply in replies {
        let refused = if error.is_transient() { CommitError::Unavailable } else { CommitError::Refused };
        let _ = reply.send(Err(refused));
    }
}

/// Whether a batch may become much larger. The last few of a crowd are not waited for.
fn is_worth_waiting(waiting: usize, crowd: usize) -> bool {
    crowd >= CROWD && waiting < crowd - crowd / 8
}

fn batch_end(waiting: &[Request]) -> usize {
    let (mut tasks, mut bytes) = (0, 0);
    let fits = waiting.iter().take_while(|request| {
        let first = tasks == 0;
        tasks += request.submission.tasks.len();
        bytes += request.submission.tasks.iter().map(|task| task.body.len()).sum::<usize>();
        first || (tasks <= BATCH_TASKS && bytes <= BATCH_BYTES)
    });
    fits.count().max(1)
}

/// Whether only a pass over the outbox may publish the task.
pub fn needs_pass(task: &NewTask) -> bool {
    task.phase == Phase::Held || (task.phase == Phase::Accepted && task.way != Way::Direct)
}

/// The tasks of a committed submission that may be published now.
pub fn outgoing(submission: Submission, inserted: &Inserted) -> Vec<Outgoing> {
    let Submission { at, tasks, groups, .. } = submission;
    let mut of_canvas: HashMap<TaskId, Vec<NewGroup>> = HashMap::new();
    for group in groups.into_iter().filter(|group| group.chord_size.is_some() || group.structure.is_some()) {
        of_canvas.entry(group.root_id.clone()).or_default().push(group);
    }
    let of_canvas: HashMap<TaskId, Arc<[NewGroup]>> =
        of_canvas.into_iter().map(|(root, groups)| (root, groups.into())).collect();
    let none: Arc<[NewGroup]> = Arc::default();
    let ready = tasks
        .into_iter()
        .zip(&inserted.task_nos)
        .filter(|(task, _)| task.phase == Phase::Accepted && task.way == Way::Direct);
    ready
        .filter_map(|(task, no)| {
            let NewTask { id, name, queue, priority, headers, body, expires_at, root_id, options, .. } = task;
            headers.map(|headers| Outgoing {
                no: *no,
                id,
                name,
                queue,
                spread: options.spread,
                priority,
                delivery: 1,
                headers,
                body,
                accepted_at: at,
                direct: true,
                expires_at,
                groups: Arc::clone(of_canvas.get(&root_id).unwrap_or(&none)),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_callers_are_not_gathered_and_the_last_of_a_crowd_are_not_waited_for() {
        assert!(!is_worth_waiting(1, 0), "a lone submission is written at once");
        assert!(!is_worth_waiting(1, CROWD - 1));
        assert!(is_worth_waiting(1, CROWD));
        assert!(is_worth_waiting(16, 32));
        assert!(!is_worth_waiting(28, 32));
        assert!(!is_worth_waiting(40, 32), "a crowd that grows is not waited for either");
    }
}
