//! Settles what dead workers had acknowledged, where the broker shows no single messages (RabbitMQ).
//!
//! RabbitMQ delivers again at once what a dead worker had not acknowledged. What it had acknowledged is in no queue, and its task would
//! run for ever. It is proven that nobody has a task when its worker is dead, its queue is empty, and all workers that are online were
//! asked and do not have it; seen twice, one grace period apart. Less proves nothing, and nothing is done. What is proven is settled
//! by the task's recovery policy, as with Redis.
//!
//! One replica looks at a time: the holder of the lease. What was decided from an older state of a task than it has now is not
//! carried out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::process::{self, Sameness};
use super::workers::is_online;
use crate::config;
use crate::live::direct;
use crate::live::hub::Hub;
use broker::{Broker, Request};
use celery::task::{Phase, TaskId, pause};
use ledger::{Failure, News, SharedLedger, Source, Task, Worker};
use runtime::clock::{self, Time};

const LEASE: &str = "sweeper";
/// Longer than a look takes.
const LEASE_TTL: Duration = Duration::from_secs(30);
/// Unfinished tasks read at a time.
const PAGE: i64 = 500;
/// Tasks looked after in one pass; the next pass takes the rest.
const MOST: usize = 2_000;
/// Workers that are busy answer late; all that answer by then count.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a task whose worker may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Evidence {
    /// No heartbeat for longer than anybody alive would be silent, or it was started anew since it took the task.
    worker_is_dead: bool,
    /// Nothing waits in the task's queue, so no message of it does.
    queue_is_empty: bool,
    /// A worker says that it has it.
    is_held: bool,
    /// Every worker that is online answered.
    all_answered: bool,
}

impl Evidence {
    fn nobody_has_it(self) -> bool {
        self.worker_is_dead && self.queue_is_empty && self.all_answered && !self.is_held
    }
}

/// What goes wrong in a pass; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

/// Looks after tasks of workers that are gone.
pub struct Departed {
    ledger: SharedLedger,
    broker: Broker,
    hub: Hub,
    relay: direct::Handle,
    holder: String,
    config: config::Sweeper,
}

impl Departed {
    pub fn new(
        ledger: SharedLedger,
        broker: Broker,
        hub: Hub,
        relay: direct::Handle,
        holder: String,
        config: config::Sweeper,
    ) -> Self {
        Self { ledger, broker, hub, relay, holder, config }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut suspects: HashMap<TaskId, (i64, Time)> = HashMap::new();
        while !stop.is_cancelled() {
            if let Err(trouble) = self.pass(&mut suspects).await {
                info!(error = %trouble, "tasks of dead workers were not looked for, trying again: {trouble}");
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(self.config.period) => {} }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ledger.release(LEASE, &self.holder)).await;
    }

    /// `suspects`: tasks that nobody had at the last look, with their sequence numbers and when that was first seen.
    async fn pass(&self, suspects: &mut HashMap<TaskId, (i64, Time)>) -> Result<(), Trouble> {
        let now = clock::now();
        if self.ledger.lease(LEASE, &self.holder, now, LEASE_TTL.max(self.config.period * 2)).await?.is_none() {
            suspects.clear();
            return Ok(());
        }
        let workers = self.ledger.workers().await?;
        let orphans = self.orphans(&workers, now).await?;
        let nobodys = self.nobodys(&orphans, &workers, now).await?;
        suspects.retain(|id, (seq, _)| nobodys.iter().any(|task| task.id == *id && task.seq == *seq));
        for task in nobodys {
            let (_, since) = *suspects.entry(task.id.clone()).or_insert((task.seq, now));
            if now.since(since) >= self.config.grace {
                self.settle(task).await?;
                suspects.remove(&task.id);
            }
        }
        Ok(())
    }

    /// Tasks that workers had which are dead.
    async fn orphans(&self, workers: &[Worker], now: Time) -> Result<Vec<Task>, Trouble> {
        let (mut orphans, mut after) = (Vec::new(), 0);
        while orphans.len() < MOST {
            let phases = [Phase::Received, Phase::Running, Phase::Retrying];
            let tasks = self.ledger.unfinished(&phases, after, PAGE).await?;
            let Some(last) = tasks.last() else { break };
            after = last.no;
            let is_here = |task: &Task| pause::is_held_here(task.queue.as_deref());
            let is_orphan = |task: &Task| {
                !task.adopted && !is_here(task) && is_dead(task, workers, self.config.worker_lost_after, now)
            };
            orphans.extend(tasks.into_iter().filter(is_orphan));
        }
        Ok(orphans)
    }

    async fn nobodys<'a>(&self, orphans: &'a [Task], workers: &[Worker], now: Time) -> Result<Vec<&'a Task>, Trouble> {
        if orphans.is_empty() {
            return Ok(Vec::new());
        }
        let empty = self.empty_queues(orphans).await?;
        let ids: Vec<&str> = orphans.iter().map(|task| task.id.as_str()).collect();
        let arguments = serde_json::json!({ "ids": ids }).to_string();
        let replies = self.broker.ask(&Request::to_all("query_task", &arguments), PATIENCE).await?;
        let mut online = workers.iter().filter(|worker| is_online(worker, now));
        let all_answered = online.all(|worker| replies.contains_key(&worker.hostname));
        let held: HashSet<&str> = ids
            .into_iter()
            .filter(|id| replies.values().any(|reply| reply.get().contains(&format!("\"{id}\""))))
            .collect();
        let evidence = |task: &Task| Evidence {
            worker_is_dead: true,
            queue_is_empty: task.queue.as_deref().is_some_and(|queue| empty.contains(queue)),
            is_held: held.contains(task.id.as_str()),
            all_answered,
        };
        debug!("{} tasks of dead workers, all online workers answered: {all_answered}", orphans.len());
        Ok(orphans.iter().filter(|task| evidence(task).nobody_has_it()).collect())
    }

    async fn empty_queues(&self, tasks: &[Task]) -> Result<HashSet<String>, Trouble> {
        let names: BTreeMap<&str, ()> =
            tasks.iter().filter_map(|task| task.queue.as_deref()).map(|queue| (queue, ())).collect();
        let names: Vec<String> = names.into_keys().map(str::to_owned).collect();
        let depths = self.broker.depths(&names).await?;
        let is_empty =
            |(name, depth): (String, broker::Depth)| (depth.trouble.is_none() && depth.total() == 0).then_some(name);
        Ok(names.into_iter().zip(depths).filter_map(is_empty).collect())
    }

    async fn settle(&self, task: &Task) -> Result<(), Trouble> {
        let worker = task.worker.as_deref().unwrap_or("a worker");
        let now = clock::now();
        let events = if task.revoke_requested_at.is_some() {
            let reason = format!("it was to be revoked, and {worker}, which had it, is gone");
            self.ledger.learn(&[News { reason: Some(reason), ..decided(task, Phase::Revoked, now) }], true).await?
        } else if task.options.recovery.as_deref() == Some("rerun") {
            let reason = format!("{worker} had it and is gone; its recovery policy is rerun, it is queued again");
            let events = self.ledger.requeue(&[(task.id.clone(), task.seq)], &reason, now).await?;
            counter!("taskgate_tasks_requeued_total", "reason" => "absent").increment(events.len() as u64);
            self.relay.nudge();
            events
        } else {
            let reason =
                format!("{worker} had it and is gone; it may have run, and is not known to be safe to run again");
            let failure = Some(Failure { kind: "TaskLost".to_owned(), message: reason.clone() });
            let news = News { failure, reason: Some(reason), ..decided(task, Phase::Lost, now) };
            let events = self.ledger.learn(&[news], true).await?;
            counter!("taskgate_tasks_lost_total").increment(events.len() as u64);
            events
        };
        for event in &events {
            warn!(task.id = %event.task_id, "task {} of {worker}, which is gone, is {} now", event.task_id, event.phase);
        }
        self.hub.publish(&events);
        Ok(())
    }
}

fn decided(task: &Task, phase: Phase, now: Time) -> News {
    News { if_seq: Some(task.seq), ..News::new(task.id.clone(), Source::Ledger, phase, now) }
}

/// A worker that was started anew under its old name does not have what the one before it had.
fn is_dead(task: &Task, workers: &[Worker], patience: Duration, now: Time) -> bool {
    let Some(name) = task.worker.as_deref() else { return false };
    let Some(worker) = workers.iter().find(|worker| worker.hostname == name) else { return false };
    let taken = task.started_at.or(task.received_at);
    let is_another = taken.is_some_and(|at| process::since(worker, at) == Sameness::Replaced);
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
}
