//! Webhooks: turns the feed into deliveries, and deliveries into signed requests.
//!
//! Two loops share only the ledger. The first reads the feed from a mark that moves in the same transaction as the new deliveries,
//! so each recorded event becomes a delivery exactly once, even after a crash. The second takes due deliveries under a lease that
//! expires by itself, and sends them at least once, always with the same `webhook-id`. Neither touches a task, and concurrency per
//! host is bounded, so a slow or unreachable receiver delays only itself.

mod guard;
mod notice;
mod payload;
mod send;
mod sign;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::catalog::Catalog;
use crate::config;
use crate::live::hub::Hub;
use celery::task::webhook::secret_of;
use ledger::{CATALOG_ENDPOINT, Claim, Delivery, Endpoint, Error, SUBMISSIONS_ENDPOINT, SharedLedger};
use runtime::clock::{self, Time};
use runtime::lifecycle::Backoff;

pub use guard::{Refused, check_literal, judge};
pub(super) use send::{client, refusal, valid_secrets};
pub use sign::signature;

/// How often the feed is read without a signal from the hub (such as a missed commit of another replica).
const PERIOD: Duration = Duration::from_secs(1);
/// Shortest pause between two reads of the feed, so that a burst of commits causes only a few.
const BREATH: Duration = Duration::from_millis(100);
const LEDGER_PAUSE: Duration = Duration::from_secs(5);
/// Time for an attempt beyond its timeout: to read the endpoint and write the outcome.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// How long a shutdown waits for running attempts. An interrupted attempt is repeated when its lease expires.
const GRACE: Duration = Duration::from_secs(3);
const FORGET_EVERY: Duration = Duration::from_secs(600);
const FORGET_BATCH: i64 = 1_000;
/// Length of a secret in bytes.
const SECRET_BYTES: usize = 24;

/// Makes a new secret.
pub fn new_secret() -> String {
    secret_of(&rand::random::<[u8; SECRET_BYTES]>())
}

/// Wakes the sender because a delivery became due. A lost nudge costs one period.
#[derive(Clone, Default)]
pub struct Handle(Arc<Notify>);

impl Handle {
    pub fn nudge(&self) {
        self.0.notify_one();
    }
}

pub struct Webhooks {
    ledger: SharedLedger,
    hub: Hub,
    catalog: Arc<Catalog>,
    config: config::Webhooks,
    sender: Arc<send::Sender>,
    wake: Handle,
}

impl Webhooks {
    pub fn new(ledger: SharedLedger, hub: Hub, catalog: Arc<Catalog>, config: config::Webhooks) -> (Self, Handle) {
        let wake = Handle::default();
        let sender = Arc::new(send::Sender::new(ledger.clone(), Arc::clone(&catalog), config.clone()));
        (Self { ledger, hub, catalog, config, sender, wake: wake.clone() }, wake)
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        self.ensure_own_endpoints(&stop).await;
        tokio::join!(self.notice(stop.clone()), self.dispatch(stop.clone()), self.forget(stop));
    }

    /// Creates the rows whose secrets sign the webhooks of the catalog and of submissions.
    async fn ensure_own_endpoints(&self, stop: &CancellationToken) {
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        for id in [CATALOG_ENDPOINT, SUBMISSIONS_ENDPOINT] {
            while !stop.is_cancelled() {
                match self.ledger.create_endpoint(&own_endpoint(id, clock::now())).await {
                    Ok(_) => break,
                    Err(error) => {
                        warn_once(&backoff, &error);
                        pause(stop, backoff.pause()).await;
                    }
                }
            }
        }
    }

    /// Turns the feed into deliveries.
    async fn notice(&self, stop: CancellationToken) {
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        let mut commits = self.hub.watch_all();
        while !stop.is_cancelled() {
            match notice::run_once(&self.ledger, &self.catalog, &self.config).await {
                Ok(done) => {
                    backoff.reset();
                    if done.written > 0 {
                        self.wake.nudge();
                    }
                    if done.more {
                        continue;
                    }
                    pause(&stop, BREATH).await;
                    // A lagging receiver is woken too.
                    tokio::select! { () = stop.cancelled() => {} _ = commits.recv() => {} () = tokio::time::sleep(PERIOD) => {} }
                    while commits.try_recv().is_ok() {}
                }
                Err(error) => {
                    warn_once(&backoff, &error);
                    pause(&stop, backoff.pause()).await;
                }
            }
        }
    }

    /// Sends due deliveries.
    async fn dispatch(&self, stop: CancellationToken) {
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        // Tasks of their own: a flight that waits for a connection of the ledger must go on while this loop waits for one itself.
        let mut flights: JoinSet<String> = JoinSet::new();
        let mut targets: HashMap<String, usize> = HashMap::new();
        while !stop.is_cancelled() {
            let wait = match self.claim(&targets, flights.len()).await {
                Ok(claimed) => {
                    backoff.reset();
                    let wait = if claimed.is_empty() { self.until_due().await } else { Duration::ZERO };
                    for delivery in claimed {
                        *targets.entry(delivery.target.clone()).or_default() += 1;
                        flights.spawn(fly(Arc::clone(&self.sender), delivery));
                    }
                    wait
                }
                Err(error) => {
                    warn_once(&backoff, &error);
                    backoff.pause()
                }
            };
            let is_full = flights.len() >= self.config.concurrency;
            tokio::select! {
                () = stop.cancelled() => {}
                Some(flown) = flights.join_next() => landed(&mut targets, &flown.expect("a delivery does not panic")),
                () = self.wake.0.notified(), if !is_full => {}
                () = tokio::time::sleep(wait), if !is_full => {}
            }
        }
        let _ = tokio::time::timeout(GRACE, async { while flights.join_next().await.is_some() {} }).await;
    }

    async fn claim(&self, targets: &HashMap<String, usize>, flying: usize) -> Result<Vec<Delivery>, Error> {
        let most = self.config.per_target;
        let busy: Vec<String> =
            targets.iter().filter(|(_, count)| **count >= most).map(|(target, _)| target.clone()).collect();
        let highest = targets.values().filter(|count| **count < most).max().copied().unwrap_or(0);
        let free = self.config.concurrency.saturating_sub(flying);
        if free == 0 {
            return Ok(Vec::new());
        }
        let now = clock::now();
        let claim = Claim {
            now,
            until: now.plus(self.config.timeout + LEASE_MARGIN),
            busy: &busy,
            per_target: i64::try_from(most - highest).unwrap_or(1),
            limit: i64::try_from(free).unwrap_or(i64::MAX),
        };
        self.ledger.claim_deliveries(&claim).await
    }

    async fn until_due(&self) -> Duration {
        let next = self.ledger.next_delivery().await.ok().flatten();
        // A due delivery that was not taken waits for its target; the end of a running attempt wakes this loop too.
        next.map_or(PERIOD, |at| at.since(clock::now()).clamp(BREATH, PERIOD))
    }

    /// Removes old settled deliveries now and then.
    async fn forget(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let before = clock::now().minus(self.config.keep);
            let gone = self.ledger.prune_deliveries(before, FORGET_BATCH).await.unwrap_or(0);
            pause(&stop, if gone > 0 { BREATH } else { FORGET_EVERY }).await;
        }
    }
}

async fn fly(sender: Arc<send::Sender>, delivery: Delivery) -> String {
    sender.deliver(&delivery).await;
    delivery.target
}

fn landed(targets: &mut HashMap<String, usize>, target: &str) {
    if let Some(count) = targets.get_mut(target) {
        *count -= 1;
        if *count == 0 {
            targets.remove(target);
        }
    }
}

fn own_endpoint(id: &str, now: Time) -> Endpoint {
    Endpoint {
        id: id.to_owned(),
        version: 1,
        enabled: true,
        disabled_reason: None,
        secret: new_secret(),
        old_secret: None,
        created_at: now,
        updated_at: now,
        document: ledger::EndpointDocument::default(),
    }
}

fn warn_once(backoff: &Backoff, error: &Error) {
    if backoff.is_fresh() {
        warn!(error = %error, "webhooks are late: the ledger does not answer");
    }
}

async fn pause(stop: &CancellationToken, length: Duration) {
    tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(length) => {} }
}
