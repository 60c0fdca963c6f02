//! Looks at queues and workers again and again, and keeps what it saw with the statistics: how much waited and for how long, how many
//! slots were busy, how much memory was in use.
//!
//! One replica at a time looks. Each look adds to sums by minute and by hour, with the number of looks, so a reader divides. A queue in
//! which nothing waits is not written: its sum stays what it is while the number of looks grows. A queue whose age is not known counts
//! with what waits in it. While the broker or the ledger is away there are no looks, and charts have a gap; a look that takes too long is
//! given up before its lease ends, so two replicas never add the same look.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::queue_age::{AgeError, oldest};
use super::stats::COUNT;
use crate::catalog::Catalog;
use crate::reconcile::workers::is_online;
use broker::Broker;
use ledger::{Counted, SharedLedger, Span, Worker};
use runtime::clock::{self, Time};

const LEASE: &str = "samples";
const LEASE_TTL: Duration = Duration::from_secs(45);
/// The most that a look takes, well before another replica may get the lease.
const LONGEST: Duration = Duration::from_secs(30);
const PERIOD: Duration = Duration::from_secs(15);
/// Queues of one look, by name; the ledger's and the catalog's alike.
const QUEUES: usize = 200;
/// Workers of one look, by name.
const WORKERS: usize = 200;
/// Longest name that is kept, in characters, because it is part of an index.
const MAX_NAME: usize = 255;

/// The service that looks.
pub struct Sampler {
    ledger: SharedLedger,
    broker: Broker,
    catalog: Arc<Catalog>,
    holder: String,
}

/// What waits in a queue at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    queue: String,
    waiting: i64,
    /// `None` if it is not known.
    age: Option<Duration>,
}

impl Sampler {
    pub fn new(ledger: SharedLedger, broker: Broker, catalog: Arc<Catalog>, holder: String) -> Self {
        Self { ledger, broker, catalog, holder }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                looked = tokio::time::timeout(LONGEST, self.look()) => match looked {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!(error = %error, "queues and workers could not be looked at, trying again"),
                    Err(_) => debug!("looking at queues and workers took more than {LONGEST:?}, trying again"),
                }
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PERIOD) => {} }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.ledger.release(LEASE, &self.holder)).await;
    }

    async fn look(&self) -> Result<(), AgeError> {
        let now = clock::now();
        if self.ledger.lease(LEASE, &self.holder, now, LEASE_TTL).await?.is_none() {
            return Ok(());
        }
        let workers: Vec<Worker> =
            self.ledger.workers().await?.into_iter().filter(|worker| is_online(worker, now)).take(WORKERS).collect();
        let queues = self.standings(&workers, now).await?;
        Ok(self.ledger.sample(&amounts(now, &queues, &workers)).await?)
    }

    async fn standings(&self, workers: &[Worker], now: Time) -> Result<Vec<Standing>, AgeError> {
        let mut names: BTreeSet<String> = self.catalog.queues().iter().map(ToString::to_string).collect();
        names.extend(workers.iter().flat_map(|worker| worker.facts.queues.iter().cloned()));
        names.extend(self.ledger.queues(i64::try_from(QUEUES).unwrap_or(i64::MAX)).await?);
        let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).take(QUEUES).collect();
        let depths = self.broker.depths(&names).await?;
        let mut standings = Vec::new();
        for (queue, depth) in names.into_iter().zip(depths) {
            let waiting = depth.total();
            if waiting > 0 {
                let age = self.age(&queue, now).await;
                standings.push(Standing { queue, waiting, age });
            }
        }
        Ok(standings)
    }

    /// `None` if it cannot be found out: the other queues are looked at all the same.
    async fn age(&self, queue: &str, now: Time) -> Option<Duration> {
        let found = oldest(&self.broker, self.ledger.as_ref(), queue).await;
        let found = found.inspect_err(|error| debug!(error = %error, "the age of {queue} is unknown"));
        found.ok().flatten().map(|at| now.since(at))
    }
}

/// What a look adds to the statistics.
fn amounts(now: Time, queues: &[Standing], workers: &[Worker]) -> Vec<(Counted, i64)> {
    let mut found: Vec<(&'static str, &str, &str, i64)> = vec![("samples", "", "", 1)];
    for standing in queues {
        found.push(("queue_waiting", "", &standing.queue, standing.waiting));
        if let Some(age) = standing.age {
            found.push(("queue_age_ms", "", &standing.queue, i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
        }
    }
    for worker in workers {
        let facts = &worker.facts;
        let known = [
            ("worker_active", facts.active),
            ("worker_slots", facts.concurrency),
            ("worker_kib", facts.memory_kib.or(facts.peak_kib)),
        ];
        found.push(("worker_samples", &worker.hostname, "", 1));
        found.extend(known.into_iter().filter_map(|(measure, amount)| Some((measure, &*worker.hostname, "", amount?))));
    }
    let short = |name: &str| name.chars().take(MAX_NAME).collect::<String>();
    let counted = |span: Span| {
        found.iter().map(move |(measure, name, queue, amount)| {
            let at = span.start(now);
            (Counted { span, at, measure, bucket: COUNT, name: short(name), queue: short(queue) }, *amount)
        })
    };
    [Span::Minute, Span::Hour].into_iter().flat_map(counted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::WorkerFacts;

    #[test]
    fn a_look_adds_to_the_sums_of_its_minute_and_its_hour() {
        let now = Time(7_261_000_000);
        let queue = Standing { queue: "mail".into(), waiting: 3, age: Some(Duration::from_millis(1_500)) };
        let facts = WorkerFacts { active: Some(2), concurrency: Some(4), peak_kib: Some(9), ..WorkerFacts::default() };
        let worker = Worker { hostname: "w@h".into(), seen_at: now, offline_at: None, facts };
        let all = amounts(now, &[queue], &[worker]);
        let told = |span: Span| -> Vec<(i64, &str, &str, &str, i64)> {
            let of = all.iter().filter(|(counted, _)| counted.span == span);
            of.map(|(one, amount)| (one.at.0, one.measure, &*one.name, &*one.queue, *amount)).collect()
        };
        let minute = 7_260_000_000;
        assert_eq!(
            told(Span::Minute),
            [
                (minute, "samples", "", "", 1),
                (minute, "queue_waiting", "", "mail", 3),
                (minute, "queue_age_ms", "", "mail", 1_500),
                (minute, "worker_samples", "w@h", "", 1),
                (minute, "worker_active", "w@h", "", 2),
                (minute, "worker_slots", "w@h", "", 4),
                (minute, "worker_kib", "w@h", "", 9),
            ]
        );
        assert!(told(Span::Hour).iter().all(|(at, ..)| *at == 7_200_000_000) && told(Span::Ever).is_empty());
    }
}
