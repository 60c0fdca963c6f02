//! Incidents, conditions that a person should look at: a worker that is alive but takes nothing, a queue that no worker serves, a task
//! over its budget, an outbox that does not drain.
//!
//! All replicas find the same incidents from the same facts; only `since` may differ by a period. An incident that is over is dropped;
//! its end is logged.

mod repeated;
mod stuck;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::gauge;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::catalog::Catalog;
use crate::config;
use crate::live::learned::Learned;
use crate::reconcile::workers::is_online;
use crate::tell::{health, sizes};
use broker::Broker;
use celery::task::{Phase, TaskId};
use ledger::{SharedLedger, Task, Worker};
use runtime::clock::{self, Time};

const PERIOD: Duration = Duration::from_secs(2);
/// A check takes at most a tenth of the time, however many tasks are unfinished,
const SHARE: u32 = 10;
/// but it runs at least this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Pause between two checks of sizes,
const SIZES_PERIOD: Duration = Duration::from_secs(10);
/// which take at most a hundredth of the time, unless they would then be too rare.
const SIZES_SHARE: u32 = 100;
const PAGE: i64 = 500;
/// Maximum number of queues to check, besides those of the workers.
const QUEUES: i64 = 5_000;
/// From this delivery on a task is reported as an incident.
const REPEATED: i32 = 3;
/// Maximum number of incidents.
const MOST: usize = 1_000;

/// Bytes of an incident's id, which has twice as many characters.
const ID_BYTES: usize = 10;

pub use super::incident_kind::Kind;

/// A problem that exists now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    pub kind: Kind,
    /// A worker, a queue or a task; `outbox`.
    pub subject: String,
    pub since: Time,
    pub detail: String,
}

impl Incident {
    /// The id. It depends only on kind and subject, so every replica computes the same one each time.
    pub fn id(&self) -> String {
        let digest = Sha256::digest(format!("{}\0{}", self.kind.as_str(), self.subject));
        digest.iter().take(ID_BYTES).fold(String::new(), |id, byte| id + &format!("{byte:02x}"))
    }
}

/// The current incidents. Cheap to clone.
#[derive(Clone, Default)]
pub struct Incidents(Arc<Mutex<BTreeMap<(Kind, String), Incident>>>);

impl Incidents {
    /// By kind and subject.
    pub fn all(&self) -> Vec<Incident> {
        self.0.lock().expect("nothing panics under this lock").values().cloned().collect()
    }

    /// Replaces the incidents of these kinds by those that were found. Others stay.
    fn replace(&self, kinds: impl Fn(Kind) -> bool, found: Vec<Incident>) {
        let mut all = self.0.lock().expect("nothing panics under this lock");
        let (mut known, mut next): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut *all).into_iter().partition(|((kind, _), _)| kinds(*kind));
        for mut incident in found {
            let key = (incident.kind, incident.subject.clone());
            match known.remove(&key) {
                Some(before) => incident.since = before.since,
                None => warn!(kind = incident.kind.as_str(), subject = incident.subject, "{}", incident.detail),
            }
            next.insert(key, incident);
        }
        for over in known.values() {
            info!(kind = over.kind.as_str(), subject = over.subject, "incident over: {}", over.detail);
        }
        for kind in Kind::ALL {
            let count = next.keys().filter(|(known, _)| *known == kind).count();
            gauge!("taskgate_incidents", "kind" => kind.as_str()).set(count as f64);
        }
        *all = next;
    }
}

/// Reports dependencies that are down as soon as it is known. Needs neither the ledger nor Redis. Runs until `stop`.
pub async fn troubles(incidents: Incidents, health: health::Handle, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let incident = |kind, subject: &str, trouble: health::Trouble| Incident {
            kind,
            subject: subject.to_owned(),
            since: trouble.since,
            detail: format!("{subject} cannot be written: {}", trouble.reason),
        };
        let ledger = health.ledger_trouble().map(|trouble| incident(Kind::LedgerDown, "ledger", trouble));
        let redis = health.redis_trouble().map(|trouble| incident(Kind::RedisDown, "redis", trouble));
        incidents.replace(|kind| Kind::OF_HEALTH.contains(&kind), ledger.into_iter().chain(redis).collect());
        tokio::select! { () = stop.cancelled() => {} () = health.turned() => {} }
    }
}

/// The service that finds incidents.
pub struct Lookout {
    ledger: SharedLedger,
    broker: Broker,
    incidents: Incidents,
    config: config::Incidents,
    catalog: Arc<Catalog>,
    /// Since when a worker takes nothing although it could, with its count of processed tasks at that time.
    idle: BTreeMap<String, (Time, Option<i64>)>,
    /// Since when a queue has messages and no consumer.
    unserved: BTreeMap<String, Time>,
    /// Unfinished tasks that are delivered again and again, and since when that is known.
    repeated: BTreeMap<TaskId, Time>,
    learned: Learned,
    sizes: Vec<sizes::Advice>,
    sizes_due: Option<Time>,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Redis(#[from] broker::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

impl Lookout {
    pub fn new(
        ledger: SharedLedger,
        broker: Broker,
        config: config::Incidents,
        catalog: Arc<Catalog>,
    ) -> (Self, Incidents) {
        let incidents = Incidents::default();
        let lookout = Self {
            ledger,
            broker,
            incidents: incidents.clone(),
            config,
            catalog,
            idle: BTreeMap::new(),
            unserved: BTreeMap::new(),
            repeated: BTreeMap::new(),
            learned: Learned::default(),
            sizes: Vec::new(),
            sizes_due: None,
        };
        (lookout, incidents)
    }

    /// Also reports contradictory signatures.
    pub fn with_learned(mut self, learned: Learned) -> Self {
        self.learned = learned;
        self
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let started = Instant::now();
            match self.detect().await {
                Ok(found) => self.incidents.replace(|kind| !Kind::OF_HEALTH.contains(&kind), found),
                Err(trouble) => debug!(error = %trouble, "incidents could not be updated, trying again"),
            }
            let pause = PERIOD.max((started.elapsed() * SHARE).min(LONGEST_PAUSE));
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
        }
    }

    async fn detect(&mut self) -> Result<Vec<Incident>, Trouble> {
        let now = clock::now();
        let mut found: Vec<Incident> = self.outbox(now).await?.into_iter().collect();
        found.extend(self.over_budget(now).await?);
        // Advice must not displace real incidents.
        match self.sizes(now).await {
            Ok(advice) => found.extend(advice),
            Err(trouble) => debug!(error = %trouble, "sizes cannot be checked"),
        }
        found.extend(self.delivered_again(now).await?);
        found.extend(self.stuck(now).await?);
        found.extend(self.evicting(now).await);
        found.extend(self.ledger.findings(MOST as i64).await?.into_iter().filter_map(told));
        found.extend(self.signatures(now));
        found.extend(self.ledger.unreadable().into_iter().map(unreadable));
        // The rest needs Redis. While it is down, incidents known from the ledger are still reported.
        match self.queues_and_workers(now).await {
            Ok(more) => found.extend(more),
            Err(Trouble::Redis(error)) => {
                debug!(error = %error, "queues and workers could not be checked for incidents")
            }
            Err(trouble) => return Err(trouble),
        }
        Ok(found)
    }

    /// Reports a Redis that evicts keys when it is full.
    async fn evicting(&self, now: Time) -> Option<Incident> {
        let memory = self.broker.lists()?.memory().await.ok().flatten().filter(broker::Memory::evicts)?;
        Some(Incident { kind: Kind::RedisEvicts, subject: "redis".to_owned(), since: now, detail: memory.told() })
    }

    fn signatures(&self, now: Time) -> Vec<Incident> {
        let incident = |(subject, detail)| Incident { kind: Kind::OtherSignature, subject, since: now, detail };
        self.learned.misfits().into_iter().map(incident).collect()
    }

    async fn outbox(&self, now: Time) -> Result<Option<Incident>, Trouble> {
        let backlog = self.ledger.backlog(now).await?;
        let age = backlog.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
        Ok((backlog.due > 0 && age > self.config.undrained_after).then(|| Incident {
            kind: Kind::OutboxStuck,
            subject: "outbox".to_owned(),
            since: backlog.oldest.unwrap_or(now),
            detail: format!("{} accepted tasks wait for Redis, the oldest for {} s", backlog.due, age.as_secs()),
        }))
    }

    async fn over_budget(&self, now: Time) -> Result<Vec<Incident>, Trouble> {
        let (mut after, mut found, mut quiet) = (0, Vec::new(), Vec::new());
        loop {
            let tasks = self.ledger.unfinished(&[Phase::Running], after, PAGE).await?;
            let Some(last) = tasks.last() else {
                found.append(&mut quiet);
                return Ok(found);
            };
            after = last.no;
            for task in tasks {
                quiet.extend(self.without_progress(&task, now).filter(|_| quiet.len() < MOST));
                let usual = || task.name.as_deref().and_then(|name| self.catalog.budget(name));
                let budget = task.options.budget.or_else(usual);
                let (Some(budget), Some(started)) = (budget, task.started_at) else { continue };
                let ran = now.since(started).as_secs_f64();
                if ran <= budget || found.len() >= MOST {
                    continue;
                }
                let name = task.name.as_deref().unwrap_or("a task");
                found.push(Incident {
                    kind: Kind::OverBudget,
                    subject: task.id.to_string(),
                    since: started.plus(Duration::try_from_secs_f64(budget).unwrap_or_default()),
                    detail: format!("{name} has run for {ran:.0} s, its budget is {budget} s"),
                });
            }
        }
    }

    fn without_progress(&self, task: &Task, now: Time) -> Option<Incident> {
        // A task that reports progress has a custom state.
        let started = task.started_at.filter(|_| task.status == Phase::Running.status())?;
        let ran = now.since(started);
        let name = task.name.as_deref().unwrap_or("a task");
        (ran > self.config.no_progress_after).then(|| Incident {
            kind: Kind::NoProgress,
            subject: task.id.to_string(),
            since: started.plus(self.config.no_progress_after),
            detail: format!("{name} has run for {:.0} s and has reported no progress", ran.as_secs_f64()),
        })
    }

    /// Sizes change slowly, and checking them costs more than the other checks.
    async fn sizes(&mut self, now: Time) -> Result<Vec<Incident>, Trouble> {
        if self.sizes_due.is_none_or(|due| now >= due) {
            let started = Instant::now();
            self.sizes = sizes::look(&*self.ledger, now).await?;
            let pause = SIZES_PERIOD.max((started.elapsed() * SIZES_SHARE).min(LONGEST_PAUSE));
            self.sizes_due = Some(now.plus(pause));
        }
        let incident = |advice: &sizes::Advice| Incident {
            kind: advice.kind,
            subject: advice.subject.clone(),
            since: now,
            detail: advice.detail.clone(),
        };
        Ok(self.sizes.iter().map(incident).collect())
    }

    async fn queues_and_workers(&mut self, now: Time) -> Result<Vec<Incident>, Trouble> {
        let workers = self.ledger.workers().await?;
        let online: Vec<&Worker> = workers.iter().filter(|worker| is_online(worker, now)).collect();
        let paused: Vec<String> = self.ledger.paused_queues().await?.into_iter().map(|(queue, _)| queue).collect();
        let mut queues: Vec<String> = self.ledger.queues(QUEUES).await?;
        queues.extend(online.iter().flat_map(|worker| worker.facts.queues.iter().cloned()));
        queues.retain(|queue| !queue.is_empty() && !paused.contains(queue));
        queues.sort();
        queues.dedup();
        let depths = self.broker.depths(&queues).await?;
        let mut found = self.wrong_keys(&queues, &depths, now);
        found.extend(self.wrong_reservations(now).await?);
        found.extend(self.other_options(now));
        found.extend(wire::reticent(&online, now));
        let waiting: BTreeMap<String, i64> =
            queues.into_iter().zip(depths).map(|(queue, depth)| (queue, depth.total())).collect();
        found.extend(self.unserved(&waiting, &online, now));
        found.extend(self.silent(&waiting, &online, now));
        Ok(found)
    }

    fn unserved(&mut self, waiting: &BTreeMap<String, i64>, online: &[&Worker], now: Time) -> Vec<Incident> {
        let served = |queue: &String| online.iter().any(|worker| worker.facts.queues.contains(queue));
        self.unserved.retain(|queue, _| waiting.get(queue).is_some_and(|count| *count > 0) && !served(queue));
        let mut found = Vec::new();
        for (queue, count) in waiting.iter().filter(|(queue, count)| **count > 0 && !served(queue)) {
            let since = *self.unserved.entry(queue.clone()).or_insert(now);
            if now.since(since) >= self.config.unserved_after {
                let detail = format!("{count} messages wait in {queue}, and no worker that is online serves it");
                found.push(Incident { kind: Kind::NoConsumer, subject: queue.clone(), since, detail });
            }
        }
        found
    }

    /// Finds workers that send heartbeats but hold and process nothing although their queues have a backlog.
    fn silent(&mut self, waiting: &BTreeMap<String, i64>, online: &[&Worker], now: Time) -> Vec<Incident> {
        let mut idle = BTreeMap::new();
        let mut found = Vec::new();
        for worker in online {
            let backlog: i64 = worker.facts.queues.iter().filter_map(|queue| waiting.get(queue)).sum();
            if backlog == 0 || worker.facts.active.unwrap_or(0) > 0 {
                continue;
            }
            let before = self.idle.get(&worker.hostname).filter(|(_, done)| *done == worker.facts.processed);
            let since = before.map_or(now, |(since, _)| *since);
            idle.insert(worker.hostname.clone(), (since, worker.facts.processed));
            if now.since(since) >= self.config.silent_after {
                let detail = format!(
                    "{} sends heartbeats and takes nothing, {backlog} messages wait in its queues",
                    worker.hostname
                );
                found.push(Incident { kind: Kind::SilentWorker, subject: worker.hostname.clone(), since, detail });
            }
        }
        self.idle = idle;
        found
    }
}

fn unreadable(row: ledger::UnreadableRow) -> Incident {
    let detail = format!("{}; its task is left out, and the others are looked after", row.detail);
    Incident { kind: Kind::UnreadableRow, subject: format!("task row {}", row.task_no), since: row.since, detail }
}

/// Converts a finding. One of a newer release may have a kind that this release does not know.
fn told(finding: ledger::Finding) -> Option<Incident> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == finding.kind)?;
    Some(Incident { kind, subject: finding.subject, since: finding.since, detail: finding.detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_keeps_its_beginning_and_is_forgotten_when_it_is_over() {
        let incidents = Incidents::default();
        let stuck = |at| Incident {
            kind: Kind::OutboxStuck,
            subject: "outbox".into(),
            since: Time(at),
            detail: "stuck".into(),
        };
        incidents.replace(|_| true, vec![stuck(1)]);
        incidents.replace(|_| true, vec![stuck(9)]);
        assert_eq!(incidents.all(), [stuck(1)]);
        incidents.replace(|_| true, Vec::new());
        assert!(incidents.all().is_empty());
    }

    #[tokio::test]
    async fn a_ledger_that_cannot_be_written_is_told_beside_what_was_found() {
        let (incidents, health, stop) = (Incidents::default(), health::Handle::default(), CancellationToken::new());
        health.ledger_is_not_ready("a standby".to_owned());
        let telling = troubles(incidents.clone(), health, stop.clone());
        let looking = async {
            incidents.replace(|kind| !Kind::OF_HEALTH.contains(&kind), Vec::new());
            stop.cancel();
        };
        tokio::join!(telling, looking);
        let all = incidents.all();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!((all[0].kind, all[0].detail.as_str()), (Kind::LedgerDown, "ledger cannot be written: a standby"));
    }
}
