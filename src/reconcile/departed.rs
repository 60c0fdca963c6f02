//! Settles tasks that dead workers had acknowledged, on brokers whose messages cannot be inspected (RabbitMQ).
//!
//! RabbitMQ redelivers at once the messages that a dead worker had not acknowledged. Messages that it had acknowledged are in no queue,
//! and their tasks would run for ever. No worker has a task if its worker is dead, its queue is empty, and all online workers of its
//! queue were asked and do not have it; this must hold twice, one grace period apart. With less proof nothing is done. Otherwise the
//! task's recovery policy decides, as with Redis. A task in `retrying` is left alone, because its next message is in the broker. Results
//! are read last: a task with a stored result that has its end has ended.
//!
//! `recovery.enabled = false` and the bound on repetitions hold here as they do with Redis: such tasks become incidents.
//!
//! One replica does this at a time, the holder of the lease. A decision that is based on an older state of the task is not carried out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::findings::{Findings, running_if_too_many};
use super::process::{self, Sameness};
use super::recorder;
use super::sweeper;
use super::workers::is_online;
use crate::config;
use crate::live::direct;
use crate::live::hub::Hub;
use broker::backend::ResultBackend;
use broker::{Broker, Request};
use celery::task::{Phase, TaskId, pause};
use ledger::{Event, Failure, News, SharedLedger, Source, Task, Worker};
use runtime::clock::{self, Time};

const LEASE: &str = "sweeper";
/// Duration of the lease, longer than a pass takes.
const LEASE_TTL: Duration = Duration::from_secs(30);
/// Unfinished tasks read at a time.
const PAGE: i64 = 500;
/// Phases in which a dead worker may have acknowledged a task. A task in `retrying` has already sent its next message.
const AT_WORKER: [Phase; 2] = [Phase::Received, Phase::Running];
/// Maximum number of tasks in one pass; the next pass continues.
const MOST: usize = 2_000;
/// How long workers may take to answer: busy ones answer late.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known about a task whose worker may be dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Evidence {
    /// The worker has sent no heartbeat for longer than a live one would be silent, or was restarted since it took the task or in those
    /// moments.
    worker_is_dead: bool,
    /// The task's queue is empty, so its message is not there.
    queue_is_empty: bool,
    /// A worker reports to have the task.
    is_held: bool,
    /// All online workers that may have the task answered.
    all_answered: bool,
}

impl Evidence {
    fn nobody_has_it(self) -> bool {
        self.worker_is_dead && self.queue_is_empty && self.all_answered && !self.is_held
    }
}

/// The checked queues, and whether they are empty.
type Emptiness = HashMap<String, bool>;

/// Why a pass failed; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

/// The service that handles tasks of dead workers.
pub struct Departed {
    ledger: SharedLedger,
    broker: Broker,
    backend: ResultBackend,
    hub: Hub,
    relay: direct::Handle,
    holder: String,
    config: config::Sweeper,
    recovery: config::Recovery,
}

/// What a pass leaves for the next one.
#[derive(Default)]
struct Memory {
    /// Tasks that no worker had, with their `seq` and when that was first seen.
    suspects: HashMap<TaskId, (i64, Time)>,
    findings: Findings,
}

impl Departed {
    pub fn new(
        ledger: SharedLedger,
        broker: Broker,
        backend: ResultBackend,
        hub: Hub,
        relay: direct::Handle,
        holder: String,
        (config, recovery): (config::Sweeper, config::Recovery),
    ) -> Self {
        Self { ledger, broker, backend, hub, relay, holder, config, recovery }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut memory = Memory::default();
        while !stop.is_cancelled() {
            if let Err(trouble) = self.pass(&mut memory).await {
                info!(error = %trouble, "tasks of dead workers could not be checked, trying again: {trouble}");
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(self.config.period) => {} }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ledger.release(LEASE, &self.holder)).await;
    }

    async fn pass(&self, memory: &mut Memory) -> Result<(), Trouble> {
        let now = clock::now();
        if self.ledger.lease(LEASE, &self.holder, now, LEASE_TTL.max(self.config.period * 2)).await?.is_none() {
            *memory = Memory::default();
            return Ok(());
        }
        let workers = self.ledger.workers().await?;
        let mut empty = Emptiness::new();
        let orphans = self.orphans(&workers, &mut empty, now).await?;
        let nobodys = self.nobodys(&orphans, &empty, &workers, now).await?;
        let suspects = &mut memory.suspects;
        suspects.retain(|id, (seq, _)| nobodys.iter().any(|task| task.id == *id && task.seq == *seq));
        let mut proven = Vec::new();
        for task in nobodys {
            let (_, since) = *suspects.entry(task.id.clone()).or_insert((task.seq, now));
            if now.since(since) >= self.config.grace {
                proven.push(task);
            }
        }
        let proven = self.without_result(proven).await?;
        let settled = self.within_the_limits(proven, &mut memory.findings).await?;
        memory.findings.tell(&self.ledger).await?;
        for task in settled {
            self.settle_one(task).await?;
            memory.suspects.remove(&task.id);
        }
        Ok(())
    }

    /// Leaves out the tasks that would run again, if repairs are switched off or these are too many at once.
    async fn within_the_limits<'a>(
        &self,
        proven: Vec<&'a Task>,
        findings: &mut Findings,
    ) -> Result<Vec<&'a Task>, Trouble> {
        let (again, rest): (Vec<&Task>, Vec<&Task>) = proven.iter().copied().partition(|task| runs_again(task));
        if !self.recovery.enabled {
            for task in again {
                let worker = task.worker.as_deref().unwrap_or("a worker");
                findings.note_undecided(task, &sweeper::switched_off(worker, task.id.as_str()));
            }
            return Ok(rest);
        }
        let Some(running) = running_if_too_many(&self.ledger, again.len()).await? else { return Ok(proven) };
        warn!("{} tasks would run again at once, none of them does: see the incident", again.len());
        counter!("taskgate_repairs_total", "kind" => "suspended").increment(again.len() as u64);
        let workers = again.iter().filter_map(|task| task.worker.as_deref()).collect();
        findings.note_suspended(again.len(), running, workers);
        Ok(rest)
    }

    /// Records the ends of tasks whose results contain one; returns the other tasks.
    async fn without_result<'a>(&self, proven: Vec<&'a Task>) -> Result<Vec<&'a Task>, Trouble> {
        if proven.is_empty() {
            return Ok(proven);
        }
        let ids: Vec<TaskId> = proven.iter().map(|task| task.id.clone()).collect();
        let records = self.backend.records(&ids).await?;
        let (mut ends, mut rest) = (Vec::new(), Vec::new());
        for (task, record) in proven.into_iter().zip(records) {
            match record.and_then(|payload| recorder::end_of(task.id.clone(), &payload)) {
                Some(end) => ends.push(end),
                None => rest.push(task),
            }
        }
        if !ends.is_empty() {
            self.hub.publish(&self.ledger.learn(&ends, true).await?);
        }
        Ok(rest)
    }

    /// Tasks of dead workers in empty queues. Tasks in queues that are never empty do not count towards the limit.
    async fn orphans(&self, workers: &[Worker], empty: &mut Emptiness, now: Time) -> Result<Vec<Task>, Trouble> {
        let (mut orphans, mut after) = (Vec::new(), 0);
        while orphans.len() < MOST {
            let tasks = self.ledger.unfinished(&AT_WORKER, after, PAGE).await?;
            let Some(last) = tasks.last() else { break };
            after = last.no;
            let is_here = |task: &Task| pause::is_held_here(task.queue.as_deref());
            let is_orphan = |task: &Task| {
                !task.adopted && !is_here(task) && is_dead(task, workers, self.config.worker_lost_after, now)
            };
            let found: Vec<Task> = tasks.into_iter().filter(is_orphan).collect();
            self.look_into_queues(&found, empty).await?;
            orphans.extend(found.into_iter().filter(|task| is_empty(task, empty)));
        }
        Ok(orphans)
    }

    async fn nobodys<'a>(
        &self,
        orphans: &'a [Task],
        empty: &Emptiness,
        workers: &[Worker],
        now: Time,
    ) -> Result<Vec<&'a Task>, Trouble> {
        if orphans.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = orphans.iter().map(|task| task.id.as_str()).collect();
        let arguments = serde_json::json!({ "ids": ids }).to_string();
        let replies = self.broker.ask(&Request::to_all("query_task", &arguments), PATIENCE).await?;
        let online = workers.iter().filter(|worker| is_online(worker, now));
        let silent: Vec<&Worker> = online.filter(|worker| !replies.contains_key(&worker.hostname)).collect();
        let held: HashSet<&str> = ids
            .into_iter()
            .filter(|id| replies.values().any(|reply| reply.get().contains(&format!("\"{id}\""))))
            .collect();
        let evidence = |task: &Task| Evidence {
            worker_is_dead: true,
            queue_is_empty: is_empty(task, empty),
            is_held: held.contains(task.id.as_str()),
            all_answered: all_answered(task, &silent),
        };
        debug!("{} tasks of dead workers, {} online workers did not answer", orphans.len(), silent.len());
        Ok(orphans.iter().filter(|task| evidence(task).nobody_has_it()).collect())
    }

    /// Checks the queues of these tasks that were not checked in this pass yet.
    async fn look_into_queues(&self, tasks: &[Task], empty: &mut Emptiness) -> Result<(), Trouble> {
        let queues = tasks.iter().filter_map(|task| task.queue.as_deref());
        let names: BTreeSet<&str> = queues.filter(|queue| !empty.contains_key(*queue)).collect();
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        if names.is_empty() {
            return Ok(());
        }
        let depths = self.broker.depths(&names).await?;
        let is_empty = depths.iter().map(|depth| depth.trouble.is_none() && depth.total() == 0);
        empty.extend(names.into_iter().zip(is_empty));
        Ok(())
    }

    /// Settles a task. An error of the ledger about one task does not stop the others.
    async fn settle_one(&self, task: &Task) -> Result<(), Trouble> {
        match self.settle(task).await {
            Err(Trouble::Ledger(error)) if !error.is_transient() => {
                warn!(task.id = %task.id, error = %error, "task {}, whose worker is gone, was not settled: {error}", task.id);
                Ok(())
            }
            settled => settled,
        }
    }

    async fn settle(&self, task: &Task) -> Result<(), Trouble> {
        let worker = task.worker.as_deref().unwrap_or("a worker");
        let now = clock::now();
        let events = if task.revoke_requested_at.is_some() {
            let reason = format!("it was to be revoked, and {worker}, which had it, is gone");
            let news = News { reason: Some(reason), ..decided(task, Phase::Revoked, now) };
            repaired("revoked", self.ledger.learn(&[news], true).await?)
        } else if runs_again(task) {
            let reason = format!("{worker} had it and is gone; its recovery policy is rerun, it is queued again");
            let events = self.ledger.requeue(&[(task.id.clone(), task.seq)], &reason, now).await?;
            counter!("taskgate_tasks_requeued_total", "reason" => "absent").increment(events.len() as u64);
            self.relay.nudge();
            repaired("rerun", events)
        } else {
            let reason =
                format!("{worker} had it and is gone; it may have run, and is not known to be safe to run again");
            let failure = Some(Failure { kind: "TaskLost".to_owned(), message: reason.clone() });
            let news = News { failure, reason: Some(reason), ..decided(task, Phase::Lost, now) };
            let events = self.ledger.learn(&[news], true).await?;
            counter!("taskgate_tasks_lost_total").increment(events.len() as u64);
            repaired("lost", events)
        };
        for event in &events {
            warn!(task.id = %event.task_id, "task {} of the dead worker {worker} is {} now", event.task_id, event.phase);
        }
        self.hub.publish(&events);
        Ok(())
    }
}

/// Whether the task's policy is to run again. One with a requested revoke ends instead.
fn runs_again(task: &Task) -> bool {
    task.revoke_requested_at.is_none() && task.options.recovery.as_deref() == Some("rerun")
}

/// Counts the repairs.
fn repaired(kind: &'static str, events: Vec<Event>) -> Vec<Event> {
    counter!("taskgate_repairs_total", "kind" => kind).increment(events.len() as u64);
    events
}

fn decided(task: &Task, phase: Phase, now: Time) -> News {
    News { if_seq: Some(task.seq), ..News::new(task.id.clone(), Source::Ledger, phase, now) }
}

fn is_empty(task: &Task, empty: &Emptiness) -> bool {
    task.queue.as_ref().is_some_and(|queue| empty.get(queue).copied().unwrap_or(false))
}

/// Whether all online workers that may have the task answered.
fn all_answered(task: &Task, silent: &[&Worker]) -> bool {
    !silent.iter().any(|worker| process::serves(worker, task))
}

/// Whether the task's worker is dead, or may be. A worker restarted under the same name does not have its predecessor's tasks.
fn is_dead(task: &Task, workers: &[Worker], patience: Duration, now: Time) -> bool {
    let Some(name) = task.worker.as_deref() else { return false };
    let Some(worker) = workers.iter().find(|worker| worker.hostname == name) else { return false };
    let taken = task.started_at.or(task.received_at);
    // If the present process had it, it would say so when it is asked.
    let is_another = taken.is_some_and(|at| {
        process::since(worker, at) == Sameness::Replaced || process::may_be_of_the_former(worker, at)
    });
    is_another || !is_online(worker, now) && now.since(worker.seen_at) > patience
}

#[cfg(test)]
mod tests {
    use ledger::{WorkerFacts, sample_task};

    use super::*;

    const PROOF: Evidence = Evidence { worker_is_dead: true, queue_is_empty: true, is_held: false, all_answered: true };

    #[test]
    fn only_the_whole_proof_proves_that_nobody_has_a_task() {
        assert!(PROOF.nobody_has_it());
        for lacking in [
            Evidence { worker_is_dead: false, ..PROOF },
            Evidence { queue_is_empty: false, ..PROOF },
            Evidence { is_held: true, ..PROOF },
            Evidence { all_answered: false, ..PROOF },
        ] {
            assert!(!lacking.nobody_has_it(), "{lacking:?}");
        }
    }

    #[test]
    fn a_worker_is_dead_when_it_is_silent_for_long_or_another_process_has_its_name() {
        let second = |number: i64| Time(number * 1_000_000);
        let mut task = sample_task("t", Phase::Running, second(0));
        task.worker = Some("w@h".to_owned());
        task.started_at = Some(second(10));
        let worker = |seen: i64, online: i64| Worker {
            hostname: "w@h".to_owned(),
            seen_at: second(seen),
            offline_at: None,
            facts: WorkerFacts { replaced_at: Some(second(online).0), ..WorkerFacts::default() },
        };
        let dead = |worker: Worker, now: i64| is_dead(&task, &[worker], Duration::from_secs(60), second(now));
        assert!(!dead(worker(100, 1), 101));
        assert!(!dead(worker(100, 1), 150), "silent, and not for long enough");
        assert!(dead(worker(100, 1), 300));
        assert!(dead(worker(100, 20), 101), "started after it had taken the task");
        assert!(!is_dead(&task, &[], Duration::from_secs(60), second(300)), "nothing is known of it");
    }

    #[test]
    fn one_that_is_to_be_retried_is_the_brokers() {
        assert!(!AT_WORKER.contains(&Phase::Retrying));
    }

    #[test]
    fn a_worker_of_another_queue_that_keeps_silent_proves_nothing_against_it() {
        let worker = |queues: &[&str]| Worker {
            hostname: "w@h".to_owned(),
            seen_at: Time(0),
            offline_at: None,
            facts: WorkerFacts {
                queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
                ..WorkerFacts::default()
            },
        };
        let mut task = sample_task("t", Phase::Running, Time(0));
        task.queue = Some("mail".to_owned());
        let answered = |worker: &Worker| all_answered(&task, &[worker]);
        assert!(answered(&worker(&["images"])));
        assert!(!answered(&worker(&["images", "mail"])));
        assert!(!answered(&worker(&[])), "nobody knows what it serves");
    }
}
