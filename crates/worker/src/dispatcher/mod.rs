//! Decides when each task runs. One async task owns all state, so nothing here needs a lock and remote control sees a consistent state.
//!
//! A message is admitted (or settled at once: revoked, expired, unknown), waits for its time, for a slot and for its rate limit,
//! runs, and is settled: its end is stored, its message acknowledged. A slot is free as soon as the handler has ended; the number of
//! ends being stored is bounded separately.

mod admit;
mod end;
mod running;
mod schedule;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::cancellation::Cancellation;
use super::consumer::Places;
use super::context::{Context, Host};
use super::events::timestamp;
use super::execute::{Execution, Kill};
use super::rate::{Rate, RateLimiter};
use super::recent::Recent;
use super::registry::Task;
use super::request::{Limits, Origin, Request};
use super::revoked::Revoked;
use super::settings::Autoscale;
use super::shared::SharedRef;
use celery::task::{QueueName, TaskName};
use celery::{DecodeError, Message};
use running::Running;
use schedule::Schedule;

/// One admitted message.
pub(crate) type Key = u64;

/// An event that the dispatcher handles.
pub(crate) enum Input {
    Taken(Vec<(Origin, Result<Message, DecodeError>)>),
    /// The broker took these messages back.
    Lost(Vec<String>),
    /// The handler ended: its slot is free.
    Ran(Key),
    /// The end is stored; `done`: the message must not run again.
    Settled {
        key: Key,
        done: bool,
    },
    /// Remote control reads or changes the state.
    Ask(Box<dyn FnOnce(&mut Dispatcher) + Send>),
    /// Start no more tasks.
    Stop,
    /// The intake has ended: messages that have not started go back.
    Drained,
}

/// Most ends being stored at once. When Redis cannot keep up, no more tasks start, so that memory stays bounded.
const SETTLING: usize = 512;
/// The wall clock is checked at least this often, because it may be set.
const LONGEST_NAP: Duration = Duration::from_secs(30);

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
        /// The id of the process that runs it.
        pid: Arc<AtomicU32>,
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
    /// The rate limits as last given to `rate_limit`, for `registered`.
    pub rate_texts: BTreeMap<TaskName, String>,
    /// Limits that remote control changed.
    pub limits: HashMap<TaskName, Limits>,
    pub totals: BTreeMap<TaskName, u64>,
    pub queues: watch::Sender<Vec<QueueName>>,
    pub places: Arc<Places>,
    host: Arc<dyn Host>,
    recent: Recent,
    ready: VecDeque<Key>,
    scheduled: Schedule,
    limited: BinaryHeap<Reverse<(Instant, Key)>>,
    settling: usize,
    next_key: Key,
    stopping: bool,
    drained: bool,
    sink: mpsc::Sender<Input>,
    tracker: TaskTracker,
}

/// The parts of a dispatcher.
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
            scheduled: Schedule::default(),
            limited: BinaryHeap::new(),
            settling: 0,
            next_key: 0,
            stopping: false,
            drained: false,
            sink: parts.sink,
            tracker: parts.tracker,
        }
    }

    /// Runs until it was stopped and everything is settled, or all senders are gone.
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
            Input::Lost(tags) => self.lose(&tags),
            Input::Ran(key) => self.ran(key),
            Input::Settled { key, done } => self.settled(key, done),
            Input::Ask(ask) => ask(self),
            Input::Stop => self.stopping = true,
            Input::Drained => self.drain(),
        }
    }

    /// The time until something is due.
    fn nap(&self) -> Duration {
        let eta = self.scheduled.next().map(|eta| {
            let until = eta.duration_since(timestamp());
            Duration::try_from(until).unwrap_or_default().min(LONGEST_NAP)
        });
        let rate = self.limited.peek().map(|Reverse((at, _))| at.saturating_duration_since(Instant::now()));
        eta.into_iter().chain(rate).min().unwrap_or(Duration::MAX)
    }

    /// Moves tasks whose time has come to the ready list.
    fn wake(&mut self) {
        let (now, instant) = (timestamp(), Instant::now());
        while let Some(key) = self.scheduled.due(now) {
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
        let pid = Arc::new(AtomicU32::new(std::process::id()));
        let stage = Stage::Active { started: timestamp(), kill, acknowledged: !late, pid: Arc::clone(&pid) };
        self.entries.get_mut(&key).expect("it was ready").stage = stage;
        if !late {
            self.recent.remember(self.shared.transport.tags(), &request);
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
        let run = Running { shared: Arc::clone(&self.shared), sink: self.sink.clone(), key, late, pid };
        self.tracker.spawn(run.carry_out(execution));
    }

    /// The limits of a task: set by remote control, else its own, else the worker's.
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
                self.recent.remember(self.shared.transport.tags(), &entry.request);
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

    /// Sets a rate limit, which also applies to tasks that wait for the old one.
    pub fn set_rate(&mut self, task: TaskName, rate: Option<Rate>) {
        self.rates.set(task, rate);
        self.ready.extend(self.limited.drain().map(|Reverse((_, key))| key));
    }

    /// Runs `work` to its end before the worker stops.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(work);
    }

    /// The number of tasks that wait for a slot, for the autoscaler.
    pub fn backlog(&self) -> usize {
        self.ready.len()
    }

    pub fn set_slots(&mut self, slots: usize) {
        self.slots = slots;
        self.shared.children.resize(slots);
        self.places.set_limit(self.shared.settings.prefetch(slots));
    }

    /// Tags of all reservations that this worker holds.
    pub fn reserved_tags(&self) -> Vec<String> {
        let unacknowledged = |entry: &&Entry| !matches!(entry.stage, Stage::Active { acknowledged: true, .. });
        self.entries.values().filter(unacknowledged).filter_map(|entry| entry.request.origin.tag.clone()).collect()
    }
}
