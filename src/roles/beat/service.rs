//! Fires due schedules. Every replica runs this, without a leader: the replica that moves a schedule's row forward submits the tick in
//! the same transaction.
//!
//! To be on time it looks ahead: schedules that become due within [`HORIZON`] are read and planned early, and shortly before the due
//! time everything except the commit is done ([`lead`]). The transaction checks that the row has not moved and was not edited since.
//! If an overlap policy depends on running tasks, it waits for the due time. While the ledger is down nothing is lost: ticks are found
//! later, and `catch_up` says what happens to them.

use std::collections::HashMap;
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::firing::{Planned, decided};
use super::seed;
use crate::config::RawSchedule;
use crate::usecase::revoke::RevokeRequest;
use crate::usecase::{Kept, Nudge, Roster, SharedGateway};
use celery::task::TaskId;
use ledger::{Conflict, Fired, Firing, Firings, Inserted, MOST_AHEAD, Schedule, Submission};
use runtime::clock::{self, Time};
use runtime::lifecycle::{Backoff, OnExit, Tasks};
use schedule::definition::Overlap;

/// Schedules that become due within this time are read and planned.
const HORIZON: Duration = Duration::from_secs(2);
/// How soon a replica tries again after it found all due rows locked by another.
const ANOTHERS: Duration = Duration::from_millis(50);
/// How often the schedules are read without a nudge, because other replicas may have edited them.
const PERIOD: Duration = Duration::from_millis(500);
/// How long before the due time the transactions begin: for the first schedule, and for each further one due at the same time.
const LEAD: Duration = Duration::from_millis(4);
const LEAD_EACH: Duration = Duration::from_micros(200);
/// Schedules in one transaction, unless so many are due that they are divided among [`TRANSACTIONS`].
const BATCH: usize = 250;
/// Concurrent transactions, so that a thousand schedules due in the same second begin together. Less than half of the connections.
const TRANSACTIONS: usize = 4;
/// Maximum number of schedules planned ahead. The rest are planned when these have fired.
const LOOK_AHEAD: i64 = 2_000;
const LEDGER_PAUSE: Duration = Duration::from_secs(2);
/// How often old runs are removed.
const PRUNE_PERIOD: Duration = Duration::from_hours(1);
const PRUNE_BATCH: i64 = 5_000;

pub struct Beat {
    gateway: SharedGateway,
    tasks: Tasks,
    wake: Nudge,
    seeds: Vec<RawSchedule>,
    /// How long runs are kept.
    keep: Duration,
    /// Plans by schedule, only from the last look-ahead.
    planned: HashMap<String, Planned>,
}

impl Beat {
    pub fn new(gateway: SharedGateway, tasks: Tasks, wake: Nudge, seeds: Vec<RawSchedule>, keep: Duration) -> Self {
        Self { gateway, tasks, wake, seeds, keep, planned: HashMap::new() }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        let mut seeded = false;
        let mut prune_at = Instant::now() + PRUNE_PERIOD;
        while !stop.is_cancelled() {
            let pause = match self.pass(&mut seeded, &mut prune_at).await {
                Ok(pause) => {
                    backoff.reset();
                    pause
                }
                Err(failure) => {
                    if backoff.is_fresh() {
                        warn!(error = %failure, "schedules cannot be fired, trying again: {failure}");
                    }
                    backoff.pause()
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.nudged() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Fires what is due, then plans ahead. Returns how long nothing will be due.
    async fn pass(&mut self, seeded: &mut bool, prune_at: &mut Instant) -> Result<Duration, ledger::Error> {
        if !*seeded {
            seed::seed(&self.gateway, &self.seeds).await?;
            *seeded = true;
        }
        let least = self.fire_due().await?;
        self.look_ahead().await?;
        if Instant::now() >= *prune_at {
            *prune_at = Instant::now() + PRUNE_PERIOD;
            let before = clock::now().minus(self.keep);
            while self.gateway.ledger.prune_runs(before, PRUNE_BATCH).await? == PRUNE_BATCH {}
        }
        let now = clock::now();
        Ok(self.soonest().map_or(PERIOD, |crowd| crowd.begins_at.since(now)).clamp(least, PERIOD))
    }

    /// The schedules with the earliest due time.
    fn soonest(&self) -> Option<Crowd> {
        let due_at = self.planned.values().map(|plan| plan.due_at).min()?;
        let early = self.planned.values().filter(|plan| plan.due_at == due_at && plan.may_be_early()).count();
        Some(Crowd { due_at, begins_at: due_at.minus(lead(early)) })
    }

    /// Reads schedules that are due soon, and plans the new ones.
    async fn look_ahead(&mut self) -> Result<(), ledger::Error> {
        let until = clock::now().plus(HORIZON);
        let rows = self.gateway.ledger.upcoming(until, LOOK_AHEAD).await?;
        let mut before = std::mem::take(&mut self.planned);
        for schedule in rows {
            let known = before.remove(&schedule.id).filter(|plan| plan.is_of(&schedule));
            let plan = known.or_else(|| Planned::new(&self.gateway, schedule));
            self.planned.extend(plan.map(|plan| (plan.schedule.id.clone(), plan)));
        }
        Ok(())
    }

    /// Fires schedules that are due now or in a moment. Returns the shortest pause.
    async fn fire_due(&mut self) -> Result<Duration, ledger::Error> {
        let now = clock::now();
        let Some(crowd) = self.soonest().filter(|crowd| crowd.begins_at <= now) else { return Ok(Duration::ZERO) };
        let is_next = |plan: &Planned| plan.due_at <= now || (plan.due_at == crowd.due_at && plan.may_be_early());
        let (mut due, later): (Vec<Planned>, Vec<Planned>) =
            std::mem::take(&mut self.planned).into_values().partition(is_next);
        self.planned = later.into_iter().map(|plan| (plan.schedule.id.clone(), plan)).collect();
        due.sort_by_key(|plan| plan.due_at);
        let share = due.len().div_ceil(TRANSACTIONS).max(BATCH);
        let mut won = 0;
        while !due.is_empty() {
            let mut batches = Vec::with_capacity(TRANSACTIONS);
            while batches.len() < TRANSACTIONS && !due.is_empty() {
                let rest = due.split_off(due.len().min(share));
                batches.push(self.fire(std::mem::replace(&mut due, rest), crowd.due_at));
            }
            let (mut committed, mut failure) = (Vec::new(), None);
            for outcome in futures_util::future::join_all(batches).await {
                match outcome {
                    Ok((ours, tasks)) => {
                        won += ours;
                        committed.extend(tasks);
                    }
                    Err(error) => failure = Some(error),
                }
            }
            // Announce all together, so that they share one publication and none waits for another to be recorded.
            self.gateway.announce(committed).await;
            // Each batch was committed separately; schedules of a failed batch are found again.
            failure.map_or(Ok(()), Err)?;
        }
        Ok(if won == 0 { ANOTHERS } else { Duration::ZERO })
    }

    /// Writes a batch in one transaction, committed at `at` if that is in the future. Returns how many this replica fired, and what was
    /// submitted.
    async fn fire(&self, batch: Vec<Planned>, at: Time) -> Result<(usize, Vec<Committed>), ledger::Error> {
        let running = self.still_running(&batch).await?;
        let now = clock::now().max(at);
        let mut replaced: Vec<Vec<TaskId>> = Vec::with_capacity(batch.len());
        let mut firings: Vec<Firing> = Vec::with_capacity(batch.len());
        for plan in batch {
            let previous = running.get(&plan.schedule.name).map_or(&[][..], Vec::as_slice);
            replaced.push(if plan.overlap() == Overlap::Replace { previous.to_vec() } else { Vec::new() });
            firings.push(decided(&self.gateway, plan, previous, now));
        }
        // Before the revokes are announced: a store may take a while, and the tick must follow the announcement at once.
        let files = self.offload(&mut firings).await;
        self.announce_revokes(&replaced, now).await?;
        let fired = self.gateway.ledger.fire(&firings, now).await?;
        drop(files);
        let ours = replaced.into_iter().zip(&fired).filter(|(_, fired)| fired.is_some());
        self.revoke(ours.flat_map(|(replaced, _)| replaced).collect());
        let won = fired.iter().flatten().count();
        Ok((won, conclude(firings, fired)))
    }

    /// Moves large arguments into the store; see [`Gateway::offload`](crate::usecase::Gateway::offload).
    async fn offload(&self, firings: &mut [Firing]) -> Vec<Kept> {
        let roster = Roster::default();
        let mut files = Vec::new();
        for run in firings.iter_mut().flat_map(|firing| &mut firing.runs) {
            if let Some(submission) = &mut run.submission {
                files.push(self.gateway.offload(&mut submission.tasks, &roster).await);
            }
        }
        files
    }

    /// Unfinished tasks of the last firings, by schedule, where the overlap policy needs them.
    async fn still_running(&self, batch: &[Planned]) -> Result<HashMap<String, Vec<TaskId>>, ledger::Error> {
        let asked = batch.iter().filter(|plan| plan.overlap() != Overlap::Allow);
        let firings: Vec<Firings> = asked.filter_map(|plan| last_firing(&plan.schedule)).collect();
        let mut found: HashMap<String, Vec<TaskId>> = HashMap::new();
        if firings.is_empty() {
            return Ok(found);
        }
        for (schedule, id) in self.gateway.ledger.still_running(&firings).await? {
            found.entry(schedule).or_default().push(id);
        }
        Ok(found)
    }

    /// Records the revokes before the tick fires, so that a crash in between does not leave two tasks running.
    async fn announce_revokes(&self, replaced: &[Vec<TaskId>], now: Time) -> Result<(), ledger::Error> {
        for id in replaced.iter().flatten() {
            self.gateway.ledger.request_revoke(id, now).await?;
        }
        Ok(())
    }

    /// Revokes in the background, because waiting for the workers' confirmation must not delay the next tick.
    fn revoke(&self, replaced: Vec<TaskId>) {
        if replaced.is_empty() {
            return;
        }
        let gateway = self.gateway.clone();
        self.tasks.spawn("replacing", OnExit::Nothing, |_| async move {
            let request = RevokeRequest::terminating("replaced by the next tick of its schedule");
            for id in replaced {
                if let Err(failure) = gateway.revoke(&id, &request).await {
                    warn!(task.id = %id, error = %failure, "task {id} could not be revoked for the next tick: {failure}");
                }
            }
        });
    }
}

/// A task or canvas of a tick, as it was submitted.
type Committed = (Submission, Inserted);

/// Schedules that are due at the same time.
struct Crowd {
    due_at: Time,
    /// When their transactions must begin.
    begins_at: Time,
}

/// How long before the due time the transactions for this many schedules begin.
fn lead(schedules: usize) -> Duration {
    let each = LEAD_EACH.saturating_mul(u32::try_from(schedules).unwrap_or(u32::MAX));
    if schedules == 0 { Duration::ZERO } else { (LEAD + each).min(MOST_AHEAD) }
}

/// Counts the outcome of each run; returns what was submitted.
fn conclude(firings: Vec<Firing>, fired: Vec<Option<Fired>>) -> Vec<Committed> {
    let mut committed = Vec::new();
    let now = clock::now();
    let won = firings.into_iter().zip(fired).filter_map(|(firing, fired)| fired.map(|fired| (firing, fired)));
    for (firing, answers) in won {
        for (run, answer) in firing.runs.into_iter().zip(answers) {
            let late = now.since(run.scheduled_at);
            counter!("taskgate_schedule_runs_total", "outcome" => run.outcome.as_str()).increment(1);
            match (answer, run.submission) {
                (Some(Ok(inserted)), Some(submission)) => {
                    histogram!("taskgate_schedule_lateness_seconds").record(late.as_secs_f64());
                    committed.push((submission, inserted));
                }
                (Some(Err(conflict)), _) => refused(&firing.schedule_id, &conflict),
                (None, _) if run.outcome == ledger::Outcome::Failed => {
                    let reason = run.reason.unwrap_or_default();
                    error!(schedule.id = firing.schedule_id, "a tick could not be submitted: {reason}");
                }
                _ => {}
            }
        }
    }
    committed
}

fn refused(schedule_id: &str, conflict: &Conflict) {
    info!(schedule.id = schedule_id, ?conflict, "a tick was not submitted again");
}

fn last_firing(schedule: &Schedule) -> Option<Firings> {
    let (first_no, last_no) = schedule.last_tasks?;
    Some(Firings { schedule: schedule.name.clone(), first_no, last_no })
}
