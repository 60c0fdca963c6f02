//! The registry of workers: who is there, what each does, which queues it serves.
//!
//! Fed by worker events, completed by asking (`stats`, `active_queues`), kept in the ledger so that every replica and every
//! restart knows it. A worker that comes online is greeted: it is asked for task events, told the revokes that still matter,
//! and told to leave paused queues alone. Its control channel opens a moment after its first event, so greetings are repeated
//! until it answers.
//!
//! Only the replica that records hears events; the others read the ledger.

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

/// Events of workers between the recorder and here. A heartbeat that is dropped is followed by the next.
pub const CAPACITY: usize = 1_024;
/// What was heard is written down this often.
const FLUSH: Duration = Duration::from_secs(1);
/// All workers are asked again this often: queues change, and some workers send no heartbeats.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// A greeting that nobody answers is given up after this many tries; the next event begins anew.
const GREETINGS: u32 = 20;
/// How late a heartbeat may be beyond twice its period, and how often a worker without heartbeats must answer.
const SLACK: Duration = Duration::from_secs(2);
const SILENT: Duration = Duration::from_secs(90);
/// Workers that were last seen before this are forgotten.
const MEMORY: Duration = Duration::from_hours(24);
/// Revokes told to a worker that comes online, at most.
const REVOKES: i64 = 10_000;
/// Celery's workers forget revokes after three hours; so do we.
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
    /// Whom to greet, with the tries so far.
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

    /// Runs until `stop`; what was heard last is written then.
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

    /// What the ledger knew before this process began.
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

    /// It tells of its tasks: the recorder passes the first event on.
    fn hear_of_a_task(&mut self, hostname: &str, pid: Option<i64>) {
        let now = clock::now();
        let worker = self.known.entry(hostname.to_owned()).or_insert_with(|| stranger(hostname, now));
        if pid != worker.facts.pid.or(pid) {
            return;
        }
        worker.facts.tells = Some(true);
        self.dirty.insert(hostname.to_owned());
    }

    /// Writes what changed. What cannot be written now is written with the next flush.
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

    /// Those that never answer are no strangers any more after a while.
    fn settle(&self) {
        if self.strangers.is_empty() {
            self.fleet.note_settled();
        }
    }

    /// Starts what is to be asked now, unless an answer is awaited. Returns when everybody is asked again.
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

    /// Who was asked for long and never answered is asked no more.
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

    /// Whom to ask to tell of their tasks.
    fn mute(&self, strangers: &[String], everybody: bool) -> Vec<String> {
        let is_mute = |worker: &&Worker| everybody && worker.facts.tells.is_none();
        let known = self.known.values().filter(is_mute).map(|one| one.hostname.clone());
        known.chain(strangers.to_vec()).collect()
    }

    /// Whom to ask for their tasks: they are the same for the whole life of a process.
    fn untold(&self, strangers: &[String]) -> Vec<String> {
        let now = clock::now();
        let known = self.known.values().filter(|worker| worker.facts.tasks.is_none() && is_online(worker, now));
        let mut names: Vec<String> = known.map(|worker| worker.hostname.clone()).chain(strangers.to_vec()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Forgets what no longer matters.
    async fn tidy(&mut self) {
        let now = clock::now();
        self.known.retain(|_, worker| now.since(worker.seen_at) < MEMORY);
        let forgotten = async {
            self.ledger.forget_workers(now.minus(MEMORY)).await?;
            self.ledger.forget_revocations(now.minus(REVOKE_MEMORY)).await
        };
        if let Err(error) = forgotten.await {
            debug!(error = %error, "old workers and revokes stay for now");
        }
        if let Some(lists) = self.broker.lists()
            && let Err(error) = lists.sweep_replies(now).await
        {
            debug!(error = %error, "late replies stay for now");
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

/// A heartbeat on request lacks the counts: what was known stays.
fn note_state(facts: &mut WorkerFacts, state: WorkerState, now: Time) {
    facts.heartbeat_at = Some(now.0);
    if state.active.is_some() || facts.freq.is_none() {
        facts.freq = state.freq.or(facts.freq);
    }
    facts.active = state.active.or(facts.active);
    facts.processed = state.processed.or(facts.processed);
    facts.load = state.loadavg.or(facts.load);
    if let (Some(ident), Some(version)) = (state.sw_ident, state.sw_ver) {
        let system = state.sw_sys.map_or_else(String::new, |system| format!(" ({system})"));
        facts.software = Some(format!("{ident} {version}{system}"));
    }
}

/// `stats`: the pool and what it does.
fn note_stats(facts: &mut WorkerFacts, reply: &RawValue, now: Time) {
    let Ok(stats) = Fields::parse(reply.get()) else { return };
    if let Some(pool) = stats.get("pool").and_then(|pool| Fields::parse(pool.get()).ok()) {
        facts.concurrency = pool.integer("max-concurrency").or(facts.concurrency);
        facts.pool = pool.text("implementation").map(|class| pool_name(&class)).or_else(|| facts.pool.take());
    }
    facts.prefetch = stats.integer("prefetch_count").or(facts.prefetch);
    let uptime = stats.integer("uptime").and_then(|secs| u64::try_from(secs).ok()).map(Duration::from_secs);
    process::hear_uptime(facts, stats.integer("pid"), uptime, now);
    if let Some(total) = stats.get("total").and_then(|total| Fields::parse(total.get()).ok()) {
        let sum: i64 = total.iter().filter_map(|(_, count)| json::integer(count)).sum();
        // Heartbeats count, too, and are compared with each other.
        if facts.heard_at.is_none() {
            facts.processed = Some(sum);
        }
    }
}

/// Celery's short name of a pool class, as `-P` takes it; the class itself where it is none of Celery's.
fn pool_name(class: &str) -> String {
    let module = class.split(':').next().unwrap_or(class);
    match module.strip_prefix("celery.concurrency.").map(|rest| rest.split('.').next().unwrap_or(rest)) {
        Some("thread") => "threads".to_owned(),
        Some(name) => name.to_owned(),
        None => class.to_owned(),
    }
}

/// `enable_events`: `{"ok": …}`, or an error where there is nothing to send them with.
fn will_tell(reply: &RawValue) -> bool {
    Fields::parse(reply.get()).is_ok_and(|fields| fields.get("ok").is_some())
}

/// `active_queues`: their names.
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
