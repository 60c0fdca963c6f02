//! The registry of workers: who is there, what each does, which queues it serves.
//!
//! Fed by worker events, completed by asking (`stats`, `active_queues`), kept in the ledger so that every replica and every
//! restart knows it. A worker that comes online is greeted: it is asked for task events, told the revokes that still matter,
//! and told to leave paused queues alone. Its control channel opens a moment after its first event, so greetings are repeated
//! until it answers.
//!
//! Only the replica that records hears events; the others read the ledger.

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
use super::recorder;
use broker::{Broker, Replies, Request};
use celery::commands;
use celery::event::{Event, Kind, WorkerNews, WorkerState};
use celery::json::Fields;
use celery::task::json;
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

/// What workers answered.
struct Heard {
    stats: Replies,
    queues: Replies,
    registered: Replies,
    /// Whom the greeting was for.
    greeted: Vec<String>,
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
        let Kind::Worker { news, state } = event.kind else { return };
        let now = clock::now();
        let is_new = self.known.get(&event.hostname).is_none_or(|worker| !is_online(worker, now));
        let worker = self.known.entry(event.hostname.clone()).or_insert_with(|| stranger(&event.hostname, now));
        worker.seen_at = now;
        worker.offline_at = (news == WorkerNews::Offline).then_some(now);
        note_state(&mut worker.facts, state, now);
        if news == WorkerNews::Online {
            worker.facts.online_at = Some(now.0);
        }
        note_process(&mut worker.facts, event.pid, now);
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
        self.strangers.retain(|_, tries| {
            *tries += 1;
            *tries < GREETINGS
        });
        let untold: Vec<String> = self.untold(&strangers);
        let greeter = Greeter { ledger: self.ledger.clone(), broker: self.broker.clone() };
        self.greeting.spawn(greeter.greet(strangers, untold, everybody));
        if !everybody {
            return ask_at;
        }
        self.tidy().await;
        Instant::now() + ASK_AGAIN
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
        let Some(Heard { stats, queues, registered, greeted }) = heard else { return };
        let now = clock::now();
        self.fleet.note_asked();
        for (name, reply) in &stats {
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
        for name in greeted {
            self.strangers.remove(&name);
        }
    }
}

/// Talks to workers while the registry listens.
struct Greeter {
    ledger: SharedLedger,
    broker: Broker,
}

impl Greeter {
    /// `None` when nobody could be asked.
    async fn greet(self, strangers: Vec<String>, untold: Vec<String>, everybody: bool) -> Option<Heard> {
        let to = if everybody { None } else { Some(strangers.clone()) };
        let ask = |method: &str| Request::to_all(method, "{}").to(to.clone());
        let (stats, queues) = (ask("stats"), ask("active_queues"));
        let registered = Request::to_all("registered", "{}").to(Some(untold.clone()));
        let (stats, queues, registered) =
            tokio::join!(self.broker.ask(&stats, PATIENCE), self.broker.ask(&queues, PATIENCE), async {
                if untold.is_empty() { Ok(Replies::default()) } else { self.broker.ask(&registered, PATIENCE).await }
            },);
        let (stats, queues, registered) = (stats.ok()?, queues.ok()?, registered.ok()?);
        let answered: Vec<String> = strangers.into_iter().filter(|name| stats.contains_key(name)).collect();
        let mut greeted = Vec::new();
        if !answered.is_empty() && self.welcome(&answered, &queues).await {
            greeted = answered;
        }
        Some(Heard { stats, queues, registered, greeted })
    }

    /// Tells workers that came online what they missed. Each of these does no harm when it is repeated.
    async fn welcome(&self, names: &[String], queues: &Replies) -> bool {
        let told = async {
            let events = Request::to_all("enable_events", "{}").to(Some(names.to_vec()));
            self.broker.tell(&events).await.map_err(|error| error.to_string())?;
            self.tell_revokes(names).await?;
            self.tell_pauses(names, queues).await
        };
        told.await.inspect_err(|error| debug!(error, "workers could not be greeted, trying again")).is_ok()
    }

    async fn tell_revokes(&self, names: &[String]) -> Result<(), String> {
        let open = self.ledger.open_revocations(REVOKES).await.map_err(|error| error.to_string())?;
        let mut kinds: BTreeMap<(bool, &str), Vec<&str>> = BTreeMap::new();
        for one in &open {
            kinds.entry((one.terminate, &one.signal)).or_default().push(one.task_id.as_str());
        }
        for ((terminate, signal), ids) in kinds {
            let arguments = commands::revoke_arguments(&ids, terminate, signal);
            let request = Request::to_all("revoke", &arguments).to(Some(names.to_vec()));
            self.broker.tell(&request).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn tell_pauses(&self, names: &[String], queues: &Replies) -> Result<(), String> {
        let paused = self.ledger.paused_queues().await.map_err(|error| error.to_string())?;
        for (queue, _) in paused {
            let serves = |name: &&String| queues.get(*name).is_some_and(|reply| queue_names(reply).contains(&queue));
            let consumers: Vec<String> = names.iter().filter(serves).cloned().collect();
            if consumers.is_empty() {
                continue;
            }
            self.ledger.note_paused_consumers(&queue, &consumers).await.map_err(|error| error.to_string())?;
            let arguments = serde_json::json!({"queue": queue}).to_string();
            let request = Request::to_all("cancel_consumer", &arguments).to(Some(consumers));
            self.broker.tell(&request).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

fn stranger(hostname: &str, now: Time) -> Worker {
    Worker { hostname: hostname.to_owned(), seen_at: now, offline_at: None, facts: WorkerFacts::default() }
}

/// Another number is another process; the first one that is heard of may have begun long ago.
fn note_process(facts: &mut WorkerFacts, pid: Option<i64>, now: Time) {
    let Some(pid) = pid else { return };
    if facts.pid.is_some_and(|before| before != pid) {
        facts.online_at = Some(now.0);
    }
    facts.pid = Some(pid);
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
    note_process(facts, stats.integer("pid"), now);
    // In containers every process has the same number: only the time tells that it is another one.
    if let Some(uptime) = stats.integer("uptime").and_then(|secs| u64::try_from(secs).ok()) {
        let began = now.minus(Duration::from_secs(uptime + 1));
        facts.online_at = Some(facts.online_at.unwrap_or(began.0).max(began.0));
    }
    if let Some(total) = stats.get("total").and_then(|total| Fields::parse(total.get()).ok()) {
        let sum: i64 = total.iter().filter_map(|(_, count)| json::integer(count)).sum();
        facts.processed = Some(facts.processed.unwrap_or(0).max(sum));
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
