//! Webhooks: turns the feed into deliveries, and deliveries into signed requests.
//!
//! Two loops that share nothing but the ledger. The first reads the feed from a mark that moves in the transaction that writes the
//! deliveries, so each recorded event becomes a delivery once, whatever dies. The second takes what is due, under a lease that
//! ends by itself, and sends it: at least once, with the same `webhook-id` every time. Neither touches a task, so a receiver that
//! is slow or away delays nobody but itself: what is sent to one host at the same time is bounded.

mod guard;
mod notice;
mod payload;
mod send;
mod sign;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
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
pub use sign::signature;

/// Without a sign from the hub (another replica's commit that was missed) the feed is looked at this often.
const PERIOD: Duration = Duration::from_secs(1);
/// A burst of commits causes only a few reads of the feed.
const BREATH: Duration = Duration::from_millis(100);
const LEDGER_PAUSE: Duration = Duration::from_secs(5);
/// Time for an attempt beyond its timeout: to read the endpoint and write the outcome.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// How long running attempts get at shutdown. An interrupted one is repeated when its lease ends.
const GRACE: Duration = Duration::from_secs(3);
const FORGET_EVERY: Duration = Duration::from_secs(600);
const FORGET_BATCH: i64 = 1_000;
/// Bytes of a secret.
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

    /// The rows whose secrets sign what the catalog and submissions ask for.
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
        let mut flights: FuturesUnordered<BoxFuture<'static, String>> = FuturesUnordered::new();
        let mut targets: HashMap<String, usize> = HashMap::new();
        while !stop.is_cancelled() {
            let wait = match self.claim(&targets, flights.len()).await {
                Ok(claimed) => {
                    backoff.reset();
                    let wait = if claimed.is_empty() { self.until_due().await } else { Duration::ZERO };
                    for delivery in claimed {
                        *targets.entry(delivery.target.clone()).or_default() += 1;
                        flights.push(Box::pin(fly(Arc::clone(&self.sender), delivery)));
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
                Some(target) = flights.next(), if !flights.is_empty() => landed(&mut targets, &target),
                () = self.wake.0.notified(), if !is_full => {}
                () = tokio::time::sleep(wait), if !is_full => {}
            }
        }
        let _ = tokio::time::timeout(GRACE, async { while flights.next().await.is_some() {} }).await;
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
        // What is due and was not taken waits for its target: its flight's end wakes this too.
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
