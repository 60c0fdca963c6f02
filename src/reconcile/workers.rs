//! The registry of workers: which workers exist, what each does, which queues it serves.
//!
//! Fed by worker events and by answers of workers (`stats`, `active_queues`), and stored in the ledger so that all replicas know it
//! and it survives restarts. A worker that comes online is greeted: it is asked for task events, told the revokes that still apply,
//! and told not to consume paused queues. Its control channel opens a moment after its first event, so greetings are repeated until
//! it answers.
//!
//! Only the active recorder receives events; the other replicas read the ledger.

mod greeter;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use metrics::gauge;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::fleet::{Fleet, task_names};
use super::{process, recorder};
use broker::Broker;
use celery::event::{Event, Kind, WorkerNews, WorkerState};
use celery::json::Fields;
use celery::task::json;
use greeter::{Greeter, Heard, Whom};
use ledger::{SharedLedger, Worker, WorkerFacts};
use runtime::clock::{self, Time};

/// Capacity for worker events from the recorder. A dropped heartbeat does no harm: the next one follows.
pub const CAPACITY: usize = 1_024;
/// How often changes are written.
const FLUSH: Duration = Duration::from_secs(1);
/// How often all workers are asked again: queues change, and some workers send no heartbeats.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// After how many unanswered greetings a worker is no longer greeted, until its next event.
const GREETINGS: u32 = 20;
/// Extra time beyond twice the heartbeat period, and how much later than asked a worker without heartbeats may answer.
const SLACK: Duration = Duration::from_secs(2);
const SILENT: Duration = Duration::from_secs(90);
/// Workers last seen longer ago than this are removed.
const MEMORY: Duration = Duration::from_hours(24);
/// Maximum number of revokes that a new worker is told.
const REVOKES: i64 = 10_000;
/// Revokes older than this are dropped, as in Celery's workers.
const REVOKE_MEMORY: Duration = Duration::from_hours(3);

/// Whether a worker counts as alive: Celery's rule is twice the period of its heartbeats.
pub fn is_online(worker: &Worker, now: Time) -> bool {
    if worker.offline_at.is_some() {
        return false;
    }
    let allowed = match worker.facts.freq {
        Some(freq) => Duration::try_from_secs_f64(freq * 2.0).unwrap_or(SILENT) + SLACK,
        None => SILENT,
    };
    now.since(worker.seen_at) <= allowed
}

/// The registry of one replica.
pub struct WorkerRegistry {
    ledger: SharedLedger,
    broker: Broker,
    recorder: recorder::Handle,
    fleet: Fleet,
    events: mpsc::Receiver<Event>,
    known: BTreeMap<String, Worker>,
    dirty: HashSet<String>,
    /// Workers to greet, with the number of attempts.
    strangers: BTreeMap<String, u32>,
    greeting: JoinSet<Option<Heard>>,
}

impl WorkerRegistry {
    pub fn new(
        ledger: SharedLedger,
        broker: Broker,
        recorder: recorder::Handle,
        fleet: Fleet,
        events: mpsc::Receiver<Event>,
    ) -> Self {
        Self {
            ledger,
            broker,
            recorder,
            fleet,
            events,
            known: BTreeMap::new(),
            dirty: HashSet::new(),
            strangers: BTreeMap::new(),
            greeting: JoinSet::new(),
        }
    }

    /// Runs until `stop`; the last changes are written before it ends.
    pub async fn run(mut self, stop: CancellationToken) {
        self.recall().await;
        let mut flush = tokio::time::interval(FLUSH);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ask_at = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                event = self.events.recv() => match event {
                    Some(event) => self.hear(event),
                    None => break,
                },
                Some(Ok(heard)) = self.greeting.join_next() => self.take(heard),
                _ = flush.tick() => {
                    self.flush().await;
                    if self.recorder.is_active() {
                        ask_at = self.ask(ask_at).await;
                    }
                }
            }
        }
        self.flush().await;
    }

    /// Reads what the ledger knew before this process began.
    async fn recall(&mut self) {
        match self.ledger.workers().await {
            Ok(workers) => self.known = workers.into_iter().map(|worker| (worker.hostname.clone(), worker)).collect(),
            Err(error) => warn!(error = %error, "the workers known before could not be read"),
        }
    }

    fn hear(&mut self, event: Event) {
        let (news, state) = match event.kind {
            Kind::Worker { news, state } => (news, state),
            Kind::Task { .. } => return self.hear_of_a_task(&event.hostname, event.pid),
            Kind::Other { .. } => return,
        };
        let now = clock::now();
        let is_new = self.known.get(&event.hostname).is_none_or(|worker| !is_online(worker, now));
        let worker = self.known.entry(event.hostname.clone()).or_insert_with(|| stranger(&event.hostname, now));
        worker.seen_at = now;
        worker.offline_at = (news == WorkerNews::Offline).then_some(now);
        let at = Time(event.timestamp.as_microsecond());
        if news == WorkerNews::Online {
            process::hear_online(&mut worker.facts, event.pid, at);
        } else {
            process::hear_beat(&mut worker.facts, event.pid, state.processed, at);
        }
        note_state(&mut worker.facts, state, now);
        let is_new = is_new || (worker.facts.began_at.is_none() && worker.facts.pool.is_some());
        if news == WorkerNews::Offline {
            info!(worker = %event.hostname, "worker {} went offline", event.hostname);
            self.strangers.remove(&event.hostname);
        } else if is_new || news == WorkerNews::Online {
            info!(worker = %event.hostname, "worker {} is online", event.hostname);
            self.strangers.insert(event.hostname.clone(), 0);
            self.fleet.note_newcomer();
        }
        self.dirty.insert(event.hostname);
    }

    /// Records that a worker sends task events; the recorder passes such an event on occasionally.
    fn hear_of_a_task(&mut self, hostname: &str, pid: Option<i64>) {
        let now = clock::now();
        let worker = self.known.entry(hostname.to_owned()).or_insert_with(|| stranger(hostname, now));
        if pid != worker.facts.pid.or(pid) {
            return;
        }
        worker.facts.tells = Some(true);
        self.dirty.insert(hostname.to_owned());
    }

    /// Writes changes. If that fails, they are written with the next flush.
    async fn flush(&mut self) {
        let now = clock::now();
        let online = self.known.values().filter(|worker| is_online(worker, now)).count();
        gauge!("taskgate_workers_online").set(online as f64);
        if self.dirty.is_empty() {
            self.settle();
            return;
        }
        let changed: Vec<Worker> = self.dirty.iter().filter_map(|name| self.known.get(name)).cloned().collect();
        match self.ledger.note_workers(&changed).await {
            Ok(()) => {
                self.dirty.clear();
                self.settle();
            }
            Err(error) => debug!(error = %error, "{} workers are not written yet", changed.len()),
        }
    }

    /// Marks the picture as complete: workers that never answer no longer count as new after a while.
    fn settle(&self) {
        if self.strangers.is_empty() {
            self.fleet.note_settled();
        }
    }

    /// Asks workers that must be asked now, unless an answer is pending. Returns when all workers are asked again.
    async fn ask(&mut self, ask_at: Instant) -> Instant {
        if !self.greeting.is_empty() {
            return ask_at;
        }
        let everybody = Instant::now() >= ask_at;
        let strangers: Vec<String> = self.strangers.keys().cloned().collect();
        if !everybody && strangers.is_empty() {
            return ask_at;
        }
        self.note_deaf();
        let whom =
            Whom { untold: self.untold(&strangers), mute: self.mute(&strangers, everybody), strangers, everybody };
        let greeter = Greeter { ledger: self.ledger.clone(), broker: self.broker.clone() };
        self.greeting.spawn(greeter.greet(whom));
        if !everybody {
            return ask_at;
        }
        self.tidy().await;
        Instant::now() + ASK_AGAIN
    }

    /// Marks workers as deaf that were asked for long and never answered; they are not asked any more.
    fn note_deaf(&mut self) {
        self.strangers.values_mut().for_each(|tries| *tries += 1);
        let deaf = self.strangers.extract_if(.., |_, tries| *tries >= GREETINGS);
        for name in deaf.map(|(name, _)| name).collect::<Vec<_>>() {
            if let Some(worker) = self.known.get_mut(&name) {
                worker.facts.deaf = worker.facts.replied_at.is_none();
                self.dirty.insert(name);
            }
        }
    }

    /// Workers to ask for task events.
    fn mute(&self, strangers: &[String], everybody: bool) -> Vec<String> {
        let is_mute = |worker: &&Worker| everybody && worker.facts.tells.is_none();
        let known = self.known.values().filter(is_mute).map(|worker| worker.hostname.clone());
        known.chain(strangers.to_vec()).collect()
    }

    /// Workers to ask for their registered tasks, which never change during a process's life.
    fn untold(&self, strangers: &[String]) -> Vec<String> {
        let now = clock::now();
        let known = self.known.values().filter(|worker| worker.facts.tasks.is_none() && is_online(worker, now));
        let mut names: Vec<String> = known.map(|worker| worker.hostname.clone()).chain(strangers.to_vec()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Removes old workers, revokes and replies.
    async fn tidy(&mut self) {
        let now = clock::now();
        self.known.retain(|_, worker| now.since(worker.seen_at) < MEMORY);
        let forgotten = async {
            self.ledger.forget_workers(now.minus(MEMORY)).await?;
            self.ledger.forget_revocations(now.minus(REVOKE_MEMORY)).await
        };
        if let Err(error) = forgotten.await {
            debug!(error = %error, "old workers and revokes could not be removed, trying again later");
        }
        if let Some(lists) = self.broker.lists()
            && let Err(error) = lists.sweep_replies(now).await
        {
            debug!(error = %error, "late replies could not be removed, trying again later");
        }
    }

    fn take(&mut self, heard: Option<Heard>) {
        let Some(Heard { stats, queues, registered, events, greeted }) = heard else { return };
        let now = clock::now();
        self.fleet.note_asked();
        for (name, reply) in &stats {
            if !self.known.contains_key(name) {
                self.strangers.insert(name.clone(), 0);
            }
            let worker = self.known.entry(name.clone()).or_insert_with(|| stranger(name, now));
            worker.seen_at = worker.seen_at.max(now);
            worker.offline_at = None;
            note_stats(&mut worker.facts, reply, now);
            self.dirty.insert(name.clone());
        }
        for (name, reply) in &queues {
            if let Some(worker) = self.known.get_mut(name) {
                worker.facts.queues = queue_names(reply);
                self.dirty.insert(name.clone());
            }
        }
        for (name, reply) in &registered {
            if let Some(worker) = self.known.get_mut(name) {
                worker.facts.tasks = task_names(reply);
                self.dirty.insert(name.clone());
            }
        }
        for (name, reply) in &events {
            if let Some(worker) = self.known.get_mut(name) {
                worker.facts.tells = Some(will_tell(reply));
                self.dirty.insert(name.clone());
            }
        }
        for name in greeted {
            self.strangers.remove(&name);
        }
    }
}

fn stranger(hostname: &str, now: Time) -> Worker {
    Worker { hostname: hostname.to_owned(), seen_at: now, offline_at: None, facts: WorkerFacts::default() }
}

/// Takes the counts of a heartbeat. A heartbeat on request has none; the known counts then stay.
fn note_state(facts: &mut WorkerFacts, state: WorkerState, now: Time) {
    facts.heartbeat_at = Some(now.0);
    if state.active.is_some() || facts.freq.is_none() {
        facts.freq = state.freq.or(facts.freq);
    }
    facts.active = state.active.or(facts.active);
    facts.processed = state.processed.or(facts.processed);
    facts.load = state.loadavg.or(facts.load);
    facts.memory_kib = state.memory_kib.or(facts.memory_kib);
    if let (Some(ident), Some(version)) = (state.sw_ident, state.sw_ver) {
        let system = state.sw_sys.map_or_else(String::new, |system| format!(" ({system})"));
        facts.software = Some(format!("{ident} {version}{system}"));
    }
}

/// Takes the reply to `stats`: the pool and its load.
fn note_stats(facts: &mut WorkerFacts, reply: &RawValue, now: Time) {
    let Ok(stats) = Fields::parse(reply.get()) else { return };
    if let Some(pool) = stats.get("pool").and_then(|pool| Fields::parse(pool.get()).ok()) {
        facts.concurrency = pool.integer("max-concurrency").or(facts.concurrency);
        facts.pool = pool.text("implementation").map(|class| pool_name(&class)).or_else(|| facts.pool.take());
    }
    facts.prefetch = stats.integer("prefetch_count").or(facts.prefetch);
    let usage = stats.get("rusage").and_then(|usage| Fields::parse(usage.get()).ok());
    facts.peak_kib = usage.and_then(|usage| usage.integer("maxrss")).or(facts.peak_kib);
    let uptime = stats.integer("uptime").and_then(|secs| u64::try_from(secs).ok()).map(Duration::from_secs);
    process::hear_uptime(facts, stats.integer("pid"), uptime, now);
    if let Some(total) = stats.get("total").and_then(|total| Fields::parse(total.get()).ok()) {
        let sum: i64 = total.iter().filter_map(|(_, count)| json::integer(count)).sum();
        // Heartbeats contain counts too, which are compared with each other.
        if facts.heard_at.is_none() {
            facts.processed = Some(sum);
        }
    }
}

/// Celery's short name of a pool class, as in `-P`; the class itself if it is not Celery's.
fn pool_name(class: &str) -> String {
    let module = class.split(':').next().unwrap_or(class);
    match module.strip_prefix("celery.concurrency.").map(|rest| rest.split('.').next().unwrap_or(rest)) {
        Some("thread") => "threads".to_owned(),
        Some(name) => name.to_owned(),
        None => class.to_owned(),
    }
}

/// Whether the reply to `enable_events` is `{"ok": …}`; a worker that cannot send events answers with an error.
fn will_tell(reply: &RawValue) -> bool {
    Fields::parse(reply.get()).is_ok_and(|fields| fields.get("ok").is_some())
}

/// The names in a reply to `active_queues`.
pub fn queue_names(reply: &RawValue) -> Vec<String> {
    let queues = json::elements(reply).unwrap_or_default();
    queues.into_iter().filter_map(|queue| Fields::parse(queue.get()).ok()?.text("name")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_online_for_twice_its_period_and_a_little() {
        let mut worker = stranger("w1@h", Time(0));
        worker.facts.freq = Some(2.0);
        assert!(is_online(&worker, Time(6_000_000)));
        assert!(!is_online(&worker, Time(6_000_001)));
        worker.facts.freq = None;
        assert!(is_online(&worker, Time(90_000_000)));
        worker.offline_at = Some(Time(1));
        assert!(!is_online(&worker, Time(2)));
    }

    #[test]
    fn the_pool_is_called_as_on_the_command_line() {
        assert_eq!(pool_name("celery.concurrency.prefork:TaskPool"), "prefork");
        assert_eq!(pool_name("celery.concurrency.thread.TaskPool"), "threads");
        assert_eq!(pool_name("celery.concurrency.solo.TaskPool"), "solo");
        assert_eq!(pool_name("mine:Pool"), "mine:Pool");
    }

    #[test]
    fn a_worker_that_cannot_send_events_says_so() {
        let tells = |reply: &str| will_tell(&json::written(reply.to_owned()));
        assert!(tells(r#"{"ok": "task events enabled"}"#) && tells(r#"{"ok": "task events already enabled"}"#));
        assert!(!tells(r#"{"error": "event dispatcher unavailable"}"#) && !tells("null"));
    }

    #[test]
    fn stats_and_queues_are_read_as_celery_writes_them() {
        let stats = r#"{"total": {"a": 2, "b": 3}, "pid": 7, "prefetch_count": 8, "pool": {"implementation": "celery.concurrency.prefork:TaskPool", "max-concurrency": 2}}"#;
        let mut facts = WorkerFacts::default();
        note_stats(&mut facts, &json::written(stats.to_owned()), Time(0));
        assert_eq!(
            (facts.concurrency, facts.processed, facts.prefetch, facts.pid),
            (Some(2), Some(5), Some(8), Some(7))
        );
        assert_eq!(facts.pool.as_deref(), Some("prefork"));
        let queues = json::written(r#"[{"name": "celery", "exchange": {}}, {"name": "crawl"}]"#.to_owned());
        assert_eq!(queue_names(&queues), ["celery", "crawl"]);
    }
}
