//! Keeps canvases from getting stuck: when a step does not succeed, the tasks that wait for it are ended too, with the reason.
//!
//! Celery itself stores FAILURE for the later steps of a chain whose step failed, and for the body of a chord whose header failed;
//! this service adds the reason, which names the failed task. Where Celery writes nothing (the step was revoked, has expired, is lost,
//! was skipped, or ignores its result), the waiting tasks end as `skipped`.
//!
//! The hub signals ends at once. A pass over all waiting tasks finds ends that were missed (other replicas, restarts).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use metrics::counter;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::live::hub::Hub;
use broker::Broker;
use celery::task::{Phase, TaskId};
use ledger::change::SENT_BY_WORKER;
use ledger::{EdgeKind, Error, Event, Failure, Neighbour, News, SharedLedger, Source, Task};
use runtime::clock::{self, Time};
use runtime::lifecycle::Backoff;

/// How long to wait for Celery's own records of later steps, which arrive within milliseconds of the first.
const RECORDS: Duration = Duration::from_secs(2);
/// A worker sends the next step before it stores its own result: after this time the step is in its queue, or a worker has reported it.
const SENT: Duration = Duration::from_secs(5);
/// Time between two passes over the waiting tasks.
const PERIOD: Duration = Duration::from_secs(5);
/// Waiting tasks read in one pass. The next pass continues from there.
const PAGE: i64 = 1_000;
/// A chord's body waits for an ignored member for this many times `recovery.settle_after`.
const WAITS: u32 = 10;
/// The end of the reason of a step that was ended because of another step.
const BEFORE: &str = " before it";
const LEDGER_PAUSE: Duration = Duration::from_secs(2);

/// The service of one replica. All may run: each repair is idempotent.
pub struct Canvases {
    ledger: SharedLedger,
    broker: Broker,
    hub: Hub,
    /// How long the body of a chord waits for a member that was ignored.
    patience: Duration,
    /// The task number after which the next pass begins.
    after: i64,
    /// Failed steps, by number, whose followers Celery may still record.
    failed: HashMap<i64, (TaskId, Instant)>,
}

impl Canvases {
    pub fn new(ledger: SharedLedger, broker: Broker, hub: Hub, settle_after: Duration) -> Self {
        Self { ledger, broker, hub, after: 0, failed: HashMap::new(), patience: settle_after * WAITS }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ends = self.hub.watch_bad_ends();
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        let mut next = Instant::now() + PERIOD;
        loop {
            let wake = self.failed.values().map(|(_, at)| *at).min().unwrap_or(next).min(next);
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                event = ends.recv() => match event {
                    Ok(event) => self.hear(&event).await,
                    // The next pass finds what was missed.
                    Err(RecvError::Lagged(_)) => Ok(()),
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep_until(wake) => self.pass(&mut next).await,
            };
            match outcome {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    if backoff.is_fresh() {
                        warn!(error = %error, "canvases could not be checked, trying again");
                    }
                    let pause = backoff.pause();
                    tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(pause) => {} }
                }
            }
        }
    }

    /// Handles a task that did not succeed: ends the tasks that wait for it, now, or a little later if Celery may do that itself.
    async fn hear(&mut self, event: &Event) -> Result<(), Error> {
        if event.phase == Phase::Failed {
            self.failed.insert(event.task_no, (event.task_id.clone(), Instant::now() + RECORDS));
            return Ok(());
        }
        self.settle_after(&[event.task_no]).await
    }

    async fn pass(&mut self, next: &mut Instant) -> Result<(), Error> {
        let now = Instant::now();
        let due: Vec<i64> = self.failed.iter().filter(|(_, (_, at))| *at <= now).map(|(no, _)| *no).collect();
        if !due.is_empty() {
            self.explain(&due).await?;
            self.settle_after(&due).await?;
            for no in due {
                self.failed.remove(&no);
            }
        }
        if now >= *next {
            *next = now + PERIOD;
            self.look_at_waiting().await?;
            self.remove_revoked().await?;
        }
        Ok(())
    }

    /// Adds to the steps that Celery ended the name of the step that really failed. Steps are numbered in order, so the previous step
    /// has its reason already; if its end arrived after theirs, the steps after it are handled again.
    async fn explain(&self, failed: &[i64]) -> Result<(), Error> {
        let heard = failed.iter().filter_map(|no| Some((*no, self.failed.get(no)?.0.clone())));
        let mut steps: BTreeMap<i64, TaskId> = heard.collect();
        while let Some((no, id)) = steps.pop_first() {
            let before = self.ledger.predecessors(&[no]).await?;
            let bad = before.iter().find(|step| step.kind == EdgeKind::Next && step.task.phase == Phase::Failed);
            if let Some(bad) = bad
                && self.is_explained(&bad.task).await?
            {
                self.ledger.explain(&id, &blame(&bad.task)).await?;
            }
            let behind = self.ledger.successors(&[no]).await?.into_iter();
            let unexplained = behind.filter(|next| next.kind == EdgeKind::Next && is_unexplained(&next.task));
            steps.extend(unexplained.map(|next| (next.task.no, next.task.id)));
        }
        Ok(())
    }

    /// Whether a step has a reason of its own, or no step before it can have caused its failure.
    async fn is_explained(&self, step: &Task) -> Result<bool, Error> {
        if step.reason.is_some() {
            return Ok(true);
        }
        let before = self.ledger.predecessors(&[step.no]).await?;
        let may_be_to_blame = |phase: Phase| phase == Phase::Failed || !phase.is_final();
        Ok(!before.iter().any(|neighbour| neighbour.kind == EdgeKind::Next && may_be_to_blame(neighbour.task.phase)))
    }

    /// Ends the tasks that wait for these.
    async fn settle_after(&self, ended: &[i64]) -> Result<(), Error> {
        let followers = self.ledger.successors(ended).await?;
        let waiting: Vec<Task> =
            followers.into_iter().map(|next| next.task).filter(|task| task.phase == Phase::Waiting).collect();
        self.settle(waiting).await
    }

    async fn look_at_waiting(&mut self) -> Result<(), Error> {
        let tasks = self.ledger.unfinished(&[Phase::Waiting], self.after, PAGE).await?;
        self.after = match tasks.last() {
            Some(last) if tasks.len() as i64 == PAGE => last.no,
            _ => 0,
        };
        self.settle(tasks).await
    }

    /// Removes messages of revoked steps. A step that was revoked before its turn is inside its predecessor's message, and workers were
    /// told to refuse it. If it was sent to a queue without workers, it is removed before a worker comes online that was not told.
    async fn remove_revoked(&self) -> Result<(), Error> {
        let Some(lists) = self.broker.lists() else { return Ok(()) };
        let ids: Vec<TaskId> =
            self.ledger.open_revocations(PAGE).await?.into_iter().map(|revocation| revocation.task_id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let never_sent = |task: &Task| task.phase == Phase::Revoked && task.queued_at.is_none();
        let steps: Vec<Task> = self.ledger.standing(&ids).await?.into_iter().filter(never_sent).collect();
        let numbers: Vec<i64> = steps.iter().map(|step| step.no).collect();
        let before = self.ledger.predecessors(&numbers).await?;
        let may_stand = |step: &&Task| {
            before.iter().any(|neighbour| neighbour.of == step.no && neighbour.task.phase == Phase::Succeeded)
        };
        for step in steps.iter().filter(may_stand) {
            let Some(queue) = step.queue.as_deref() else { continue };
            // Redis may be down; the next pass tries again.
            let Ok(removed) = lists.remove_task(queue, step.id.as_str()).await else { return Ok(()) };
            if !removed.is_empty() {
                counter!("taskgate_messages_removed_total", "reason" => "revoked").increment(removed.len() as u64);
                info!(task.id = %step.id, "the message of the revoked step {} was removed from {queue}", step.id);
            }
        }
        Ok(())
    }

    async fn settle(&self, waiting: Vec<Task>) -> Result<(), Error> {
        if waiting.is_empty() {
            return Ok(());
        }
        let numbers: Vec<i64> = waiting.iter().map(|task| task.no).collect();
        let mut before: HashMap<i64, Vec<Neighbour>> = HashMap::new();
        for step in self.ledger.predecessors(&numbers).await? {
            before.entry(step.of).or_default().push(step);
        }
        let now = clock::now();
        let mut news: Vec<News> =
            waiting.iter().filter_map(|task| verdict(task, before.get(&task.no)?, now, self.patience)).collect();
        let sent = |task: &&Task| before.get(&task.no).is_some_and(|steps| may_be_sent(steps, now));
        news.extend(self.find_sent(waiting.iter().filter(sent).collect(), &before, now).await);
        if news.is_empty() {
            return Ok(());
        }
        let events = self.ledger.learn(&news, true).await?;
        for event in events.iter().filter(|event| event.phase.is_final()) {
            counter!("taskgate_steps_settled_total", "phase" => event.phase.as_str()).increment(1);
            info!(task.id = %event.task_id, "step {} ended as {}", event.task_id, event.phase);
        }
        self.hub.publish(&events);
        Ok(())
    }
}

impl Canvases {
    /// Finds steps that a worker has sent: they are in their queues. An errback that is not in its queue was run by the worker directly.
    async fn find_sent(&self, tasks: Vec<&Task>, before: &HashMap<i64, Vec<Neighbour>>, now: Time) -> Vec<News> {
        if tasks.is_empty() {
            return Vec::new();
        }
        let mut queues: Vec<String> = tasks.iter().filter_map(|task| task.queue.clone()).collect();
        queues.sort();
        queues.dedup();
        // Redis may be down; the next pass tries again.
        let Some(lists) = self.broker.lists() else { return Vec::new() };
        let Ok(present) = lists.present(&queues).await else { return Vec::new() };
        let news = |task: &Task| {
            let errback = before.get(&task.no)?.iter().any(|step| step.kind == EdgeKind::LinkError);
            if present.contains(task.id.as_str()) {
                let reason = Some(SENT_BY_WORKER.to_owned());
                return Some(News { reason, ..News::new(task.id.clone(), Source::Ledger, Phase::Queued, now) });
            }
            let reason = Some("its worker ran the errback itself, unseen".to_owned());
            errback.then(|| News { reason, ..News::new(task.id.clone(), Source::Ledger, Phase::Skipped, now) })
        };
        tasks.into_iter().filter_map(news).collect()
    }
}

/// Whether all predecessors of the task ended as required, a while ago.
fn may_be_sent(before: &[Neighbour], now: Time) -> bool {
    before.iter().all(|step| {
        let wanted = if step.kind == EdgeKind::LinkError { Phase::Failed } else { Phase::Succeeded };
        step.kind != EdgeKind::After
            && step.task.phase == wanted
            && step.task.finished_at.is_some_and(|at| now.since(at) >= SENT)
    })
}

/// How a waiting task ends, once that is certain.
fn verdict(task: &Task, before: &[Neighbour], now: Time, patience: Duration) -> Option<News> {
    let news =
        |phase, reason: String| News { reason: Some(reason), ..News::new(task.id.clone(), Source::Ledger, phase, now) };
    let is_link = |step: &&Neighbour| matches!(step.kind, EdgeKind::Link | EdgeKind::LinkError);
    let links: Vec<&Neighbour> = before.iter().filter(is_link).collect();
    if let Some(link) = links.first() {
        return branch(link, now).map(|reason| news(Phase::Skipped, reason));
    }
    let settled =
        |step: &Task| step.phase != Phase::Failed || step.finished_at.is_some_and(|at| now.since(at) >= RECORDS);
    let steps: Vec<&Task> = before.iter().map(|step| &step.task).collect();
    let bad = steps.iter().find(|step| step.phase.is_final() && step.phase != Phase::Succeeded)?;
    // A chord's body is handled when its whole header has ended: until then workers may still record it themselves.
    let over = steps.iter().all(|step| step.phase.is_final() && settled(step));
    // Only the gateway sends the steps of a DAG, and it does not send this one.
    let is_dag = before.iter().any(|step| step.kind == EdgeKind::After);
    if is_dag {
        let failure = bad.failure.clone().filter(|_| bad.phase == Phase::Failed);
        let phase = if bad.phase == Phase::Failed { Phase::Failed } else { Phase::Skipped };
        return Some(News { failure, ..news(phase, blame(bad)) });
    }
    if !over {
        return None;
    }
    if steps.iter().any(|step| is_ignored_part(step) && is_fresh(step, now, patience)) {
        return None;
    }
    match bad.phase {
        Phase::Failed if !bad.ignore_result => {
            let failure = bad.failure.clone().map(|failure| chord_failure(bad, failure, steps.len()));
            Some(News { failure, ..news(Phase::Failed, blame(bad)) })
        }
        _ => Some(news(Phase::Skipped, blame(bad))),
    }
}

/// Whether a member of a header was ignored: its worker never counts it, so the body waits, as in Celery. If its real end arrives
/// after all, the body runs.
fn is_ignored_part(step: &Task) -> bool {
    step.phase == Phase::Ignored && step.group_id.is_some()
}

fn is_fresh(step: &Task, now: Time, patience: Duration) -> bool {
    step.finished_at.is_some_and(|at| now.since(at) < patience)
}

/// The failure of a body is `ChordError`; any other step gets the error of the step before it.
fn chord_failure(step: &Task, failure: Failure, members: usize) -> Failure {
    if members == 1 {
        return failure;
    }
    let message = format!("Dependency {} raised {}({:?})", step.id, failure.kind, failure.message);
    Failure { kind: "ChordError".to_owned(), message }
}

/// Why a link or errback will not run. `None` while it may be sent or has been sent.
fn branch(link: &Neighbour, now: Time) -> Option<String> {
    let step = &link.task;
    let over = step.finished_at.is_some_and(|at| now.since(at) >= RECORDS);
    if !step.phase.is_final() || !over {
        return None;
    }
    match (link.kind, step.phase) {
        (EdgeKind::Link, Phase::Succeeded) | (EdgeKind::LinkError, Phase::Failed) => None,
        (EdgeKind::Link, phase) => Some(format!("{} ended as {phase}: its link is not taken", name(step))),
        (_, phase) => Some(format!("{} ended as {phase}: its errback is not taken", name(step))),
    }
}

fn is_unexplained(task: &Task) -> bool {
    task.phase == Phase::Failed && task.reason.is_none()
}

/// The step that caused the failure: this one, or the one that its own reason names.
fn blame(step: &Task) -> String {
    match &step.reason {
        Some(reason) if reason.ends_with(BEFORE) => reason.clone(),
        _ => format!("{} ended as {}{BEFORE}", name(step), step.phase),
    }
}

fn name(task: &Task) -> String {
    match &task.name {
        Some(name) => format!("{name} ({})", task.id),
        None => task.id.to_string(),
    }
}
