//! The sweeper repairs differences between what should be in the broker according to the ledger and what is there.
//!
//! Redis may be emptied, restarted empty, or restored from an old copy; a worker may die while it has a task. A task is *absent* when
//! it is in no list, not reserved, with no worker, and has no record: checked in this order, twice, one grace period apart. An absent
//! task that no worker ever had goes back to the outbox as a further delivery. A task that a worker had is run again only if its
//! recovery policy says so; else it ends as `lost`, with the reason ([`decision`]). A message that is still reserved is never published
//! a second time: it is put back into its list in kombu's way.
//!
//! One replica sweeps at a time, the holder of the lease. Five loops run concurrently while it is held, so that none waits for
//! another: the lease itself, the epoch ([`doubt`]), the reservations of live workers ([`leases`]), returned messages ([`front`]) and
//! the surveys ([`survey`]). A decision that is based on an older state of a task is not carried out, so a sweeper that was paused does
//! no harm when it resumes beside its successor. Every repair is an event in the task's history and a metric.

mod absence;
mod bodies;
mod chords;
mod decision;
mod doubt;
mod evidence;
mod fleet;
mod front;
mod leases;
mod redelivered;
mod replacements;
mod resurrected;
mod sentences;
mod settle;
mod steps;
mod survey;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub use self::sentences::{REDIS_LOST_IT, switched_off};

use self::doubt::Doubt;
use self::fleet::Patience;
use self::redelivered::Orphans;
use crate::config;
use crate::live::direct;
use crate::live::hub::Hub;
use broker::Lists;
use broker::backend::Backend;
use ledger::SharedLedger;
use runtime::clock;
use runtime::lifecycle::Backoff;

const LEASE: &str = "sweeper";
const LEASE_TTL: Duration = Duration::from_secs(3);
/// How often the epoch is incremented and the lease renewed.
const TICK: Duration = Duration::from_secs(1);
/// Unfinished tasks read at a time.
const PAGE: i64 = 500;
const PAUSE: Duration = Duration::from_secs(2);

/// Its settings from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    pub config: config::Sweeper,
    pub recovery: config::Recovery,
    pub visibility_timeout: Duration,
}

/// The sweeper of one replica; idle unless it holds the lease.
pub struct Sweeper {
    ledger: SharedLedger,
    broker: Lists,
    backend: Backend,
    hub: Hub,
    relay: direct::Handle,
    holder: String,
    settings: Settings,
    /// Tasks of dead workers, as far as seen while the lease was held.
    orphans: Mutex<Orphans>,
}

/// What goes wrong in a pass; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Redis(#[from] broker::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

impl Sweeper {
    pub fn new(
        ledger: SharedLedger,
        broker: Lists,
        backend: Backend,
        hub: Hub,
        relay: direct::Handle,
        holder: String,
        settings: Settings,
    ) -> Self {
        Self { ledger, broker, backend, hub, relay, holder, settings, orphans: Mutex::default() }
    }

    /// Runs until `stop`: waits for the lease, sweeps while it is held.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.ledger.lease(LEASE, &self.holder, clock::now(), LEASE_TTL).await {
                Ok(Some(_)) => Box::pin(self.hold_and_sweep(&stop)).await,
                Ok(None) => {}
                Err(error) => debug!(error = %error, "the sweeper's lease cannot be read"),
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(TICK) => {} }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ledger.release(LEASE, &self.holder)).await;
    }

    /// # Cancel safety
    /// The loops are dropped wherever they are. The next sweeper sees a half-done repair as what it is: a message in its list, or a task
    /// without a message.
    async fn hold_and_sweep(&self, stop: &CancellationToken) {
        let doubt = Doubt::default();
        *self.orphans() = Orphans::default();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_lease() => {}
            () = self.watch_epoch(&doubt) => {}
            () = self.keep_reservations() => {}
            () = self.watch_fronts() => {}
            () = self.keep_looking(&doubt) => {}
        }
    }

    /// Renews the lease; returns when another replica has it or may have it.
    async fn keep_lease(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(TICK).await;
            match self.ledger.lease(LEASE, &self.holder, clock::now(), LEASE_TTL).await {
                Ok(Some(_)) => renewed = Instant::now(),
                Ok(None) => return,
                Err(error) => debug!(error = %error, "the sweeper's lease was not renewed"),
            }
            if renewed.elapsed() > LEASE_TTL {
                return;
            }
        }
    }

    async fn keep_reservations(&self) {
        let mut backoff = Backoff::new(PAUSE);
        loop {
            let pause = match self.renew_leases().await {
                Ok(()) => {
                    backoff.reset();
                    leases::period(self.settings.visibility_timeout)
                }
                Err(trouble) => {
                    debug!(error = %trouble, "reservations were not renewed");
                    backoff.pause()
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn keep_looking(&self, doubt: &Doubt) {
        let mut state = survey::State::new();
        let mut backoff = Backoff::new(PAUSE);
        loop {
            let next = match self.survey(&mut state, doubt).await {
                Ok(()) => {
                    backoff.reset();
                    let next = state.next_survey();
                    debug!("the next survey of the sweeper is in {:.0} s", (next - Instant::now()).as_secs_f64());
                    next
                }
                Err(trouble) => {
                    if backoff.is_fresh() {
                        info!(error = %trouble, "a pass of the sweeper failed, trying again: {trouble}");
                    }
                    Instant::now() + backoff.pause()
                }
            };
            tokio::select! { () = doubt.raised() => {} () = tokio::time::sleep_until(next) => {} }
        }
    }

    fn orphans(&self) -> MutexGuard<'_, Orphans> {
        self.orphans.lock().expect("nothing panics under this lock")
    }

    fn patience(&self) -> Patience {
        Patience { lost: self.settings.config.worker_lost_after, busy: self.settings.visibility_timeout }
    }
}
