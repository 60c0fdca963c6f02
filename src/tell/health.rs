//! Whether the ledger and Redis answer, asked once a second: what `/readyz` says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use metrics::gauge;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use broker::Broker;
use broker::backend::ResultBackend;
use ledger::SharedLedger;

const PERIOD: Duration = Duration::from_secs(1);
/// A later answer counts as none.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the first readiness check waits for the first attempt to reach Redis.
const FIRST_TRY: Duration = Duration::from_secs(3);

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

#[derive(Default)]
struct Shared {
    ledger: AtomicU8,
    redis: AtomicU8,
    tried: Notify,
}

/// The latest answers. Cheap to clone.
#[derive(Clone, Default)]
pub struct Handle(Arc<Shared>);

impl Handle {
    pub fn ledger_is_up(&self) -> bool {
        self.0.ledger.load(Ordering::Relaxed) == UP
    }

    pub fn redis_is_up(&self) -> bool {
        self.0.redis.load(Ordering::Relaxed) == UP
    }

    /// Waits until both were tried once, at most [`FIRST_TRY`].
    pub async fn first_try(&self) {
        let deadline = Instant::now() + FIRST_TRY;
        loop {
            let tried = self.0.tried.notified();
            let known = |state: &AtomicU8| state.load(Ordering::Relaxed) != UNKNOWN;
            if known(&self.0.ledger) && known(&self.0.redis) {
                return;
            }
            if tokio::time::timeout_at(deadline, tried).await.is_err() {
                return;
            }
        }
    }
}

/// Asks.
pub struct Health {
    ledger: SharedLedger,
    broker: Broker,
    backend: ResultBackend,
    handle: Handle,
}

impl Health {
    pub fn new(ledger: SharedLedger, broker: Broker, backend: ResultBackend) -> (Self, Handle) {
        let handle = Handle::default();
        (Self { ledger, broker, backend, handle: handle.clone() }, handle)
    }

    /// Runs until `stop`. `prepared` resolves when the ledger's schema is there; before that the ledger is down.
    pub async fn run(self, prepared: CancellationToken, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let (ledger, redis) = tokio::join!(self.ask_ledger(&prepared), self.ask_redis());
            self.note("ledger", &self.handle.0.ledger, ledger);
            self.note("redis", &self.handle.0.redis, redis);
            self.handle.0.tried.notify_waiters();
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PERIOD) => {}
                () = prepared.cancelled(), if !prepared.is_cancelled() => {}
            }
        }
    }

    async fn ask_ledger(&self, prepared: &CancellationToken) -> bool {
        prepared.is_cancelled() && matches!(tokio::time::timeout(PATIENCE, self.ledger.ping()).await, Ok(Ok(())))
    }

    async fn ask_redis(&self) -> bool {
        let both = async { self.broker.ping().await.is_ok() && self.backend.ping().await.is_ok() };
        tokio::time::timeout(PATIENCE, both).await.unwrap_or(false)
    }

    fn note(&self, what: &'static str, state: &AtomicU8, is_up: bool) {
        let before = state.swap(if is_up { UP } else { DOWN }, Ordering::Relaxed);
        gauge!("taskgate_dependency_up", "dependency" => what).set(f64::from(u8::from(is_up)));
        match (before, is_up) {
            (UNKNOWN | UP, false) => warn!(dependency = what, "{what} does not answer"),
            (DOWN, true) => info!(dependency = what, "{what} answers again"),
            _ => {}
        }
    }
}
