//! Health checks: tries once a second whether the ledger and Redis take writes, for `/readyz` and for incidents.
//!
//! A gateway that only reads asks its replica of the ledger how far it lags behind, and does not check Redis.
//!
//! A server that answers may still refuse writes: after a failover it may be a standby, or a Redis may be full. A ledger that is still
//! being migrated is neither up nor down, so it causes no warning.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::gauge;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use broker::Broker;
use broker::backend::ResultBackend;
use celery::task::QueueName;
use ledger::SharedLedger;
use runtime::clock::{self, Time};

const PERIOD: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the first request to `/readyz` waits for the first check of both.
const FIRST_TRY: Duration = Duration::from_secs(3);

/// A dependency that is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub since: Time,
    /// The server's own error, and what helps.
    pub reason: String,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Unknown,
    Up,
    Down(Trouble),
}

/// How an answer has changed the state of a dependency.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Fell,
    Rose,
    Stayed,
}

impl State {
    fn note(&mut self, answer: Result<(), String>, now: Time) -> Turn {
        match (&mut *self, answer) {
            (Self::Down(trouble), Err(reason)) => {
                trouble.reason = reason;
                Turn::Stayed
            }
            (Self::Unknown | Self::Up, Err(reason)) => {
                *self = Self::Down(Trouble { since: now, reason });
                Turn::Fell
            }
            (Self::Down(_), Ok(())) => {
                *self = Self::Up;
                Turn::Rose
            }
            (Self::Unknown | Self::Up, Ok(())) => {
                *self = Self::Up;
                Turn::Stayed
            }
        }
    }
}

#[derive(Default)]
struct Shared {
    ledger: Mutex<State>,
    redis: Mutex<State>,
    /// How many microseconds the ledger lags behind its primary.
    lag: AtomicU64,
    /// Notified after each check of both.
    tried: Notify,
    /// Notified when a dependency went down or up.
    turned: Notify,
}

/// The latest answers. Cheap to clone.
#[derive(Clone, Default)]
pub struct Handle(Arc<Shared>);

impl Handle {
    pub fn ledger_is_up(&self) -> bool {
        matches!(read(&self.0.ledger), State::Up)
    }

    pub fn redis_is_up(&self) -> bool {
        matches!(read(&self.0.redis), State::Up)
    }

    pub fn ledger_trouble(&self) -> Option<Trouble> {
        trouble(&self.0.ledger)
    }

    pub fn redis_trouble(&self) -> Option<Trouble> {
        trouble(&self.0.redis)
    }

    /// How far the ledger lagged behind at the last check. Zero if it is not a replica.
    pub fn lag(&self) -> Duration {
        Duration::from_micros(self.0.lag.load(Ordering::Relaxed))
    }

    /// Records that the ledger's schema could not be migrated or read; the caller has logged the error.
    pub fn ledger_is_not_ready(&self, reason: String) {
        self.0.ledger.lock().expect("nothing panics under this lock").note(Err(reason), clock::now());
        self.0.tried.notify_waiters();
        self.0.turned.notify_one();
    }

    /// Returns when the ledger or Redis went down or up.
    pub async fn turned(&self) {
        self.0.turned.notified().await;
    }

    /// Waits until both were checked once, at most [`FIRST_TRY`].
    pub async fn first_try(&self) {
        let deadline = Instant::now() + FIRST_TRY;
        loop {
            let tried = self.0.tried.notified();
            let known = |state: &Mutex<State>| !matches!(read(state), State::Unknown);
            if known(&self.0.ledger) && known(&self.0.redis) {
                return;
            }
            if tokio::time::timeout_at(deadline, tried).await.is_err() {
                return;
            }
        }
    }
}

fn read(state: &Mutex<State>) -> State {
    state.lock().expect("nothing panics under this lock").clone()
}

fn trouble(state: &Mutex<State>) -> Option<Trouble> {
    match read(state) {
        State::Down(trouble) => Some(trouble),
        State::Unknown | State::Up => None,
    }
}

fn late() -> String {
    format!("no answer within {} s", PATIENCE.as_secs())
}

/// The service that runs the checks.
pub struct Health {
    ledger: SharedLedger,
    broker: Broker,
    backend: ResultBackend,
    /// The queue whose list is used for the check.
    queue: QueueName,
    /// Whether the ledger is a replica; Redis is then not checked.
    reads_only: bool,
    handle: Handle,
}

impl Health {
    pub fn new(ledger: SharedLedger, broker: Broker, backend: ResultBackend, queue: QueueName) -> (Self, Handle) {
        let handle = Handle::default();
        (Self { ledger, broker, backend, queue, reads_only: false, handle: handle.clone() }, handle)
    }

    /// The checks of a gateway that only reads.
    pub fn reading(mut self) -> Self {
        self.reads_only = true;
        *self.handle.0.redis.lock().expect("nothing panics under this lock") = State::Up;
        self
    }

    /// Runs until `stop`. `prepared` is cancelled when the ledger's schema is ready; before that its state is unknown.
    pub async fn run(self, prepared: CancellationToken, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let (ledger, redis) = tokio::join!(self.ask_ledger(&prepared), self.ask_redis());
            if let Some(answer) = ledger {
                self.note("ledger", &self.handle.0.ledger, answer);
            }
            if let Some(answer) = redis {
                self.note("redis", &self.handle.0.redis, answer);
            }
            self.handle.0.tried.notify_waiters();
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PERIOD) => {}
                () = prepared.cancelled(), if !prepared.is_cancelled() => {}
            }
        }
    }

    async fn ask_ledger(&self, prepared: &CancellationToken) -> Option<Result<(), String>> {
        if !prepared.is_cancelled() {
            return None;
        }
        let asked = async {
            let answer = if self.reads_only { self.ask_replica().await } else { self.ledger.writable().await };
            answer.map_err(|error| error.told())
        };
        Some(tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(late())))
    }

    async fn ask_replica(&self) -> Result<(), ledger::Error> {
        let lag = self.ledger.lag().await?.unwrap_or_default();
        self.handle.0.lag.store(u64::try_from(lag.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        gauge!("taskgate_replica_lag_seconds").set(lag.as_secs_f64());
        Ok(())
    }

    async fn ask_redis(&self) -> Option<Result<(), String>> {
        if self.reads_only {
            return None;
        }
        let both = async {
            let taken = match self.broker.lists() {
                Some(lists) => lists.writable(self.queue.as_str()).await,
                None => self.broker.ping().await,
            };
            taken.map_err(|error| format!("broker: {}", error.told()))?;
            self.backend.writable().await.map_err(|error| format!("result backend: {}", error.told()))
        };
        Some(tokio::time::timeout(PATIENCE, both).await.unwrap_or_else(|_| Err(late())))
    }

    fn note(&self, what: &'static str, state: &Mutex<State>, answer: Result<(), String>) {
        gauge!("taskgate_dependency_up", "dependency" => what).set(f64::from(u8::from(answer.is_ok())));
        let reason = answer.as_ref().err().cloned().unwrap_or_default();
        let turn = state.lock().expect("nothing panics under this lock").note(answer, clock::now());
        match turn {
            Turn::Fell => warn!(dependency = what, reason, "{what} cannot be written: {reason}"),
            Turn::Rose => info!(dependency = what, "{what} can be written again"),
            Turn::Stayed => return,
        }
        self.handle.0.turned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_keeps_its_beginning_and_tells_its_newest_reason() {
        let mut state = State::default();
        assert_eq!(state.note(Ok(()), Time(1)), Turn::Stayed);
        assert_eq!(state.note(Err("away".to_owned()), Time(2)), Turn::Fell);
        assert_eq!(state.note(Err("a standby".to_owned()), Time(3)), Turn::Stayed);
        let State::Down(trouble) = &state else { panic!("{state:?}") };
        assert_eq!(*trouble, Trouble { since: Time(2), reason: "a standby".to_owned() });
        assert_eq!(state.note(Ok(()), Time(4)), Turn::Rose);
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_waits_for_the_first_try_and_not_for_ever() {
        let handle = Handle::default();
        let before = Instant::now();
        handle.first_try().await;
        assert_eq!(before.elapsed(), FIRST_TRY);
        handle.ledger_is_not_ready("away".to_owned());
        assert!(!handle.ledger_is_up());
        assert_eq!(handle.ledger_trouble().unwrap().reason, "away");
    }
}
