//! Decides what runs when. One task owns all state, so nothing here needs a lock and remote control sees one truth.
//!
//! A message is admitted (or settled at once: revoked, expired, unknown), waits for its time, for a slot and for its rate limit,
//! runs, and is settled: its end written down, its message acknowledged. A slot is free as soon as the handler ended; what is being
//! written down is bounded separately.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::cancellation::Cancellation;
use super::consumer::Places;
use super::context::{Context, Host};
use super::events::timestamp;
use super::execute::{Execution, Kill};
use super::finish::{Finish, Revocation};
use super::rate::{Rate, RateLimiter};
use super::recent::Recent;
use super::registry::Task;
use super::request::{Limits, Origin, Request};
use super::revoked::Revoked;
use super::settings::{Autoscale, UnknownTask};
use super::shared::SharedRef;
use crate::broker::Return;
use crate::celery::event::{Call, TaskNews};
use crate::celery::{DecodeError, Message};
use crate::task::{QueueName, TaskName};

/// One admitted message.
pub(crate) type Key = u64;

/// What the dispatcher reacts to.
pub(crate) enum Input {
    Taken(Vec<(Origin, Result<Message, DecodeError>)>),
    /// The handler ended: its slot is free.
    Ran(Key),
    /// The end is written down; `done`: the message is dealt with and must not run again.
    Settled { key: Key, done: bool },
    /// Remote control looks and changes.
    Ask(Box<dyn FnOnce(&mut Dispatcher) + Send>),
    /// Start nothing more; what has not started goes back.
    Stop,
    /// Nothing more will be taken.
    Drained,
}

/// Ends being written down at once. A Redis that cannot keep up stops the starts, not the memory.
const SETTLING: usize = 512;
/// The wall clock is looked at this often at least: somebody may set it.
const LONGEST_NAP: Duration = Duration::from_secs(30);
/// Tasks that wait for their time do not count as prefetched, up to this many (kombu's own bound).
const HELD: usize = 65_535;

pub(crate) struct Entry {
    pub request: Arc<Request>,
    pub stage: Stage,
    /// Whether it counts as prefetched.
    place: bool,
}

pub(crate) enum Stage {
    /// Waits for its `eta`.
    Scheduled(Timestamp),
    /// Waits for a slot or its rate limit.
    Reserved,
    Active {
        started: Timestamp,
        kill: watch::Sender<Option<Kill>>,
        acknowledged: bool,
    },
    Settling,
}

pub(crate) struct Dispatcher {
    pub shared: SharedRef,
    pub tasks: HashMap<TaskName, Arc<Task>>,
    pub entries: HashMap<Key, Entry>,
    pub slots: usize,
    pub autoscale: Option<Autoscale>,
    pub running: usize,
    pub started: Instant,
    pub revoked: Revoked,
    rates: RateLimiter,
    /// What `rate_limit` said last, for `registered`.
    pub rate_texts: BTreeMap<TaskName, String>,
    /// Limits that remote control changed.
    pub limits: HashMap<TaskName, Limits>,
    pub totals: BTreeMap<TaskName, u64>,
    pub queues: watch::Sender<Vec<QueueName>>,
    pub places: Arc<Places>,
    host: Arc<dyn Host>,
    recent: Recent,
    ready: VecDeque<Key>,
    scheduled: BinaryHeap<Reverse<(Timestamp, Key)>>,
    limited: BinaryHeap<Reverse<(Instant, Key)>>,
    held: usize,
    settling: usize,
    next_key: Key,
    stopping: bool,
    drained: bool,
    sink: mpsc::Sender<Input>,
    tracker: TaskTracker,
}

/// What a dispatcher is made of.
pub(crate) struct Parts {
    pub shared: SharedRef,
    pub tasks: HashMap<TaskName, Arc<Task>>,
    pub queues: watch::Sender<Vec<QueueName>>,
    pub places: Arc<Places>,
    pub host: Arc<dyn Host>,
    pub sink: mpsc::Sender<Input>,
    pub tracker: TaskTracker,
    pub slots: usize,
}

impl Dispatcher {
    pub fn new(parts: Parts) -> Self {
        let mut rates = RateLimiter::default();
        let mut rate_texts = BTreeMap::new();
        for (name, task) in &parts.tasks {
            if let Some(rate) = &task.options.rate_limit {
                rates.set(name.clone(), Some(rate.clone()));
                rate_texts.insert(name.clone(), rate.to_string());
            }
        }
        Self {
            autoscale: parts.shared.settings.autoscale,
            started: Instant::now(),
            shared: parts.shared,
            tasks: parts.tasks,
            entries: HashMap::new(),
            slots: parts.slots,
            running: 0,
            revoked: Revoked::default(),
            rates,
            rate_texts,
            limits: HashMap::new(),
            totals: BTreeMap::new(),
            queues: parts.queues,
            places: parts.places,
            host: parts.host,
            recent: Recent::default(),
            ready: VecDeque::new(),
            scheduled: BinaryHeap::new(),
            limited: BinaryHeap::new(),
            held: 0,
            settling: 0,
            next_key: 0,
            stopping: false,
            drained: false,
            sink: parts.sink,
            tracker: parts.tracker,
        }
    }

    /// Works until it was stopped and everything is settled, or nothing can reach it any more.
    pub async fn run(mut self, mut source: mpsc::Receiver<Input>) {
        let mut inputs = Vec::with_capacity(256);
        while !(self.drained && self.stopping && self.entries.is_empty()) {
            let nap = self.nap();
            tokio::select! {
                biased;
                received = source.recv_many(&mut inputs, 256) => if received == 0 { return },
                () = tokio::time::sleep(nap), if nap < Duration::MAX => self.wake(),
            }
            inputs.drain(..).for_each(|input| self.react(input));
            self.start_what_may();
            self.shared.active.store(self.running, Ordering::Relaxed);
        }
    }

    fn react(&mut self, input: Input) {
        match input {
            Input::Taken(batch) => batch.into_iter().for_each(|(origin, read)| self.admit(origin, read)),
            Input::Ran(key) => self.ran(key),
            Input::Settled { key, done } => self.settled(key, done),
            Input::Ask(ask) => ask(self),
            Input::Stop => self.stop(),
            Input::Drained => self.drained = true,
        }
    }

    fn admit(&mut self, origin: Origin, read: Result<Message, DecodeError>) {
        let message = match read {
            Ok(message) => message,
            Err(error) => return self.refuse(origin, &error),
        };
        let known = origin.tag.as_deref().is_some_and(|tag| self.recent.knows(tag, &message));
        if known {
            info!(task.id = %message.id, "{} was dealt with before, its message is dropped", message.id);
            return self.drop_message(origin);
        }
        let Some(task) = self.tasks.get(&message.task).cloned() else { return self.unknown(origin, message) };
        let request = Arc::new(Request { message, task, origin });
        if self.stopping {
            return self.give_back(&request, Return::Next);
        }
        if let Some(revocation) = self.revocation(&request) {
            let key = self.insert(request, Stage::Settling);
            return self.settle_revoked(key, revocation);
        }
        self.received(&request);
        match request.message.eta.filter(|eta| *eta > timestamp()) {
            Some(eta) => self.hold(request, eta),
            None => {
                let key = self.insert(request, Stage::Reserved);
                self.ready.push_back(key);
            }
        }
    }

    /// A message that no worker could run: it is dropped as Celery drops it, but said so.
    fn refuse(&mut self, origin: Origin, error: &DecodeError) {
        warn!(queue.name = %origin.queue, bytes = origin.raw.len(), error = %error, "a message from {} {error}: dropped", origin.queue);
        metrics::counter!("taskgate_worker_messages_refused_total").increment(1);
        if let Some(id) = Finish::readable_id(&origin.raw) {
            self.shared.events.task(&id, || TaskNews::Rejected { requeue: false });
        }
        self.drop_message(origin);
    }

    fn drop_message(&mut self, origin: Origin) {
        let (shared, places) = (Arc::clone(&self.shared), Arc::clone(&self.places));
        self.tracker.spawn(async move {
            shared.acks.ack(origin.tag.as_deref()).await;
            places.free(1);
        });
    }

    /// A task that nobody registered here.
    fn unknown(&mut self, origin: Origin, message: Message) {
        let task = Arc::new(Task::unknown(message.task.clone()));
        let request = Arc::new(Request { message, task, origin });
        let name = &request.message.task;
        if self.shared.settings.unknown_task == UnknownTask::Requeue && !request.origin.redelivered {
            warn!(task.id = %request.message.id, task.name = %name, "unknown task {name}: back to its queue");
            return self.give_back(&request, Return::Last);
        }
        warn!(task.id = %request.message.id, task.name = %name, "unknown task {name}: it fails");
        let key = self.insert(request, Stage::Settling);
        self.settle(key, |finish| async move { finish.not_registered().await });
    }

    fn received(&self, request: &Request) {
        let message = &request.message;
        self.shared.events.task(&message.id, || {
            TaskNews::Received(Box::new(Call {
                name: Some(message.task.as_str().to_owned()),
                args: Some(request.shown_args()),
                kwargs: Some(request.shown_kwargs()),
                root_id: message.root_id.clone(),
                parent_id: message.parent_id.clone(),
                retries: message.retries.into(),
                eta: message.eta,
                expires: message.expires,
                ..Call::default()
            }))
        });
    }

    fn hold(&mut self, request: Arc<Request>, eta: Timestamp) {
        let key = self.insert(request, Stage::Scheduled(eta));
        self.scheduled.push(Reverse((eta, key)));
        if self.held < HELD {
            self.held += 1;
            self.free_place(key);
        }
    }

    fn insert(&mut self, request: Arc<Request>, stage: Stage) -> Key {
        self.next_key += 1;
        self.settling += usize::from(matches!(stage, Stage::Settling));
        self.entries.insert(self.next_key, Entry { request, stage, place: true });
        self.next_key
    }

    /// Why a message must not run, if so.
    fn revocation(&self, request: &Request) -> Option<Revocation> {
        if self.revoked.contains(&request.message) {
            return Some(Revocation::Revoked);
        }
        request.is_expired(timestamp()).then_some(Revocation::Expired)
    }

    /// How long nothing happens by itself.
    fn nap(&self) -> Duration {
        let eta = self.scheduled.peek().map(|Reverse((eta, _))| {
            let until = eta.duration_since(timestamp());
            Duration::try_from(until).unwrap_or_default().min(LONGEST_NAP)
        });
        let rate = self.limited.peek().map(|Reverse((at, _))| at.saturating_duration_since(Instant::now()));
        eta.into_iter().chain(rate).min().unwrap_or(Duration::MAX)
    }

    /// Makes ready what waited for this moment.
    fn wake(&mut self) {
        let (now, instant) = (timestamp(), Instant::now());
        while let Some(Reverse((eta, key))) = self.scheduled.peek().copied()
            && eta <= now
        {
            self.scheduled.pop();
            self.held = self.held.saturating_sub(1);
            if let Some(entry) = self.entries.get_mut(&key)
                && matches!(entry.stage, Stage::Scheduled(_))
            {
                entry.stage = Stage::Reserved;
                self.ready.push_back(key);
            }
        }
        while let Some(Reverse((at, key))) = self.limited.peek().copied()
            && at <= instant
        {
            self.limited.pop();
            self.ready.push_back(key);
        }
    }

    fn start_what_may(&mut self) {
        while !self.stopping && self.running < self.slots && self.settling < SETTLING {
            let Some(key) = self.ready.pop_front() else { return };
            let Some(entry) = self.entries.get(&key).filter(|entry| matches!(entry.stage, Stage::Reserved)) else {
                continue;
            };
            let request = Arc::clone(&entry.request);
            if let Some(revocation) = self.revocation(&request) {
                self.settle_revoked(key, revocation);
            } else if let Err(at) = self.rates.take(&request.message.task, Instant::now()) {
                self.limited.push(Reverse((at, key)));
            } else {
                self.start(key, request);
            }
        }
    }

    fn start(&mut self, key: Key, request: Arc<Request>) {
        let (kill, killed) = watch::channel(None);
        let late = request.acks_late(&self.shared.settings);
        let stage = Stage::Active { started: timestamp(), kill, acknowledged: !late };
        self.entries.get_mut(&key).expect("it was ready").stage = stage;
        if !late {
            self.recent.remember(&request);
            self.free_place(key);
        }
        self.running += 1;
        self.shared.processed.fetch_add(1, Ordering::Relaxed);
        match self.totals.get_mut(&request.message.task) {
            Some(total) => *total += 1,
            None => drop(self.totals.insert(request.message.task.clone(), 1)),
        }
        let limits = request.limits(self.limits_of(&request.task));
        let cancellation = Cancellation::default();
        let context = Context::new(request, cancellation.clone(), Arc::clone(&self.host));
        let execution = Execution { context, cancellation, limits, kill: killed };
        self.tracker.spawn(carry_out(Arc::clone(&self.shared), self.sink.clone(), key, late, execution));
    }

    /// The limits of a task: remote control's, its own, the worker's.
    pub fn limits_of(&self, task: &Task) -> Limits {
        let settings = &self.shared.settings;
        self.limits.get(&task.name).copied().unwrap_or(Limits {
            soft: task.options.soft_time_limit.or(settings.soft_time_limit),
            hard: task.options.time_limit.or(settings.time_limit),
        })
    }

    fn ran(&mut self, key: Key) {
        self.running -= 1;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.stage = Stage::Settling;
            self.settling += 1;
        }
    }

    fn settled(&mut self, key: Key, done: bool) {
        self.free_place(key);
        if let Some(entry) = self.entries.remove(&key) {
            self.settling -= usize::from(matches!(entry.stage, Stage::Settling));
            if done {
                self.recent.remember(&entry.request);
            }
        }
    }

    fn free_place(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key)
            && std::mem::take(&mut entry.place)
        {
            self.places.free(1);
        }
    }

    fn settle_revoked(&mut self, key: Key, revocation: Revocation) {
        if let Some(entry) = self.entries.get_mut(&key)
            && !matches!(entry.stage, Stage::Settling)
        {
            entry.stage = Stage::Settling;
            self.settling += 1;
        }
        self.settle(key, move |finish| async move { finish.revoked(revocation).await });
    }

    /// Settles a message that does not run.
    fn settle<F, W>(&mut self, key: Key, how: F)
    where
        F: FnOnce(Finish) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let Some(entry) = self.entries.get(&key) else { return };
        let finish = Finish::new(Arc::clone(&self.shared), Arc::clone(&entry.request));
        let (request, shared, sink) = (Arc::clone(&entry.request), Arc::clone(&self.shared), self.sink.clone());
        self.tracker.spawn(async move {
            how(finish).await;
            shared.acks.ack(request.origin.tag.as_deref()).await;
            let _ = sink.send(Input::Settled { key, done: true }).await;
        });
    }

    /// Puts a message back that did not start.
    fn give_back(&self, request: &Arc<Request>, place: Return) {
        let (shared, places, request) = (Arc::clone(&self.shared), Arc::clone(&self.places), Arc::clone(request));
        self.tracker.spawn(async move {
            shared.give_back(&request.origin, place).await;
            places.free(1);
        });
    }

    /// From here on nothing starts. What waits goes back, the newest first, so that the oldest is the next to be taken.
    fn stop(&mut self) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        let waits = |entry: &Entry| matches!(entry.stage, Stage::Scheduled(_) | Stage::Reserved);
        let mut waiting: Vec<Key> =
            self.entries.iter().filter(|(_, entry)| waits(entry)).map(|(key, _)| *key).collect();
        waiting.sort_unstable_by_key(|key| Reverse(*key));
        let origins: Vec<_> =
            waiting.iter().filter_map(|key| self.entries.remove(key)).map(|entry| entry.request).collect();
        info!(
            returned = origins.len(),
            running = self.running,
            "stopping: {} messages go back, {} tasks run on",
            origins.len(),
            self.running
        );
        let shared = Arc::clone(&self.shared);
        self.tracker.spawn(async move {
            for request in origins {
                shared.give_back(&request.origin, Return::Next).await;
            }
        });
    }

    /// Ends every running task that `which` names. Returns their ids.
    pub fn kill(&self, how: Kill, which: impl Fn(&Request) -> bool) -> Vec<String> {
        let mut killed = Vec::new();
        for entry in self.entries.values().filter(|entry| which(&entry.request)) {
            if let Stage::Active { kill, .. } = &entry.stage {
                kill.send_replace(Some(how));
                killed.push(entry.request.id().to_owned());
            }
        }
        killed
    }

    /// Settles what waits and was revoked meanwhile; what runs goes on.
    pub fn settle_waiting_revoked(&mut self) {
        let waits = |entry: &Entry| matches!(entry.stage, Stage::Scheduled(_) | Stage::Reserved);
        let found =
            self.entries.iter().filter(|(_, entry)| waits(entry) && self.revoked.contains(&entry.request.message));
        let found: Vec<Key> = found.map(|(key, _)| *key).collect();
        found.into_iter().for_each(|key| self.settle_revoked(key, Revocation::Revoked));
    }

    /// A new limit holds for what waits for the old one, too.
    pub fn set_rate(&mut self, task: TaskName, rate: Option<Rate>) {
        self.rates.set(task, rate);
        self.ready.extend(self.limited.drain().map(|Reverse((_, key))| key));
    }

    /// Runs `work` to its end before the worker stops.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(work);
    }

    /// Waiting for a slot: what an autoscaler looks at.
    pub fn backlog(&self) -> usize {
        self.ready.len()
    }

    pub fn set_slots(&mut self, slots: usize) {
        self.slots = slots;
        self.places.set_limit(self.shared.settings.prefetch(slots));
    }

    /// Tags of all reservations that this worker holds.
    pub fn reserved_tags(&self) -> Vec<String> {
        let unacknowledged = |entry: &&Entry| !matches!(entry.stage, Stage::Active { acknowledged: true, .. });
        self.entries.values().filter(unacknowledged).filter_map(|entry| entry.request.origin.tag.clone()).collect()
    }
}

/// One run from its start to its end.
async fn carry_out(shared: SharedRef, sink: mpsc::Sender<Input>, key: Key, late: bool, execution: Execution) {
    let context = execution.context.clone();
    let request = Arc::clone(&context.run().request);
    if !late {
        shared.acks.ack(request.origin.tag.as_deref()).await;
    }
    shared.events.task(&request.message.id, || TaskNews::Started);
    let finish = Finish::new(Arc::clone(&shared), request);
    finish.started().await;
    let clock = Instant::now();
    let outcome = execution.run().await;
    let runtime = clock.elapsed();
    let _ = sink.send(Input::Ran(key)).await;
    let done = finish.ended(&context, outcome, runtime, late).await;
    let _ = sink.send(Input::Settled { key, done }).await;
}
