//! Asks Redis, the ledger and the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::stores::{self, StoreState};
use crate::config;
use crate::reconcile::exchanges::Topology;
use crate::tell::sizes::{self, Advice};
use broker::Broker;
use broker::backend::ResultBackend;
use broker::{Heard, Replies, Request};
use celery::conf::Conf;
use celery::task::QueueName;
use ledger::Ledger;
use runtime::clock;

const LATE: &str = "no answer in time";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long workers may take to answer: busy ones answer late.
const WORKER_PATIENCE: Duration = Duration::from_secs(2);

/// A little more than two heartbeat intervals of a Celery worker.
const LISTEN: Duration = Duration::from_millis(4_500);

/// What was found. An `Err` says why something could not be found out.
#[derive(Debug)]
pub struct Facts {
    /// `None` when the configuration names no ledger.
    pub ledger: Option<Result<&'static str, String>>,
    /// Whether the ledger takes writes, if it answers.
    pub ledger_writes: Result<(), String>,
    /// Whether a replica is notified at once of what another one commits; true for a ledger that cannot be asked.
    pub ledger_hears: bool,
    pub broker: Result<(), String>,
    pub backend: Result<(), String>,
    /// Whether the broker takes writes and keeps them, if it answers.
    pub broker_writes: Writes,
    pub backend_writes: Writes,
    /// By node name.
    pub workers: BTreeMap<String, WorkerFacts>,
    /// The workers that sent events meanwhile; `None` when the event channel could not be read.
    pub heard: Option<Heard>,
    /// Each `global_keyprefix` under which kombu has keys in the broker's database.
    pub prefixes: BTreeSet<String>,
    /// Each prefix under which results are stored in the backend's database.
    pub result_prefixes: BTreeSet<String>,
    /// Queues and exchanges that the broker has otherwise than the configuration says.
    pub differing: Vec<Differing>,
    /// Each store of files, and whether it can be used.
    pub stores: Vec<(config::Store, StoreState)>,
    /// What the ledger says of sizes.
    pub sizes: Vec<Advice>,
}

/// A queue or an exchange that the broker has otherwise than the configuration says.
#[derive(Debug)]
pub struct Differing {
    /// `queue` or `exchange`.
    pub kind: &'static str,
    pub name: String,
    /// The broker's words.
    pub said: String,
}

/// Whether a Redis takes writes, and whether it may evict them.
#[derive(Debug)]
pub struct Writes {
    pub taken: Result<(), String>,
    /// `None` when Redis does not report it.
    pub memory: Option<broker::Memory>,
}

impl Writes {
    fn of(
        taken: Result<Result<(), broker::Error>, Elapsed>,
        memory: Result<Option<broker::Memory>, broker::Error>,
    ) -> Self {
        let taken = taken.map_or_else(|_| Err(LATE.to_owned()), |taken| taken.map_err(|error| error.told()));
        Self { taken, memory: memory.ok().flatten() }
    }
}

/// What one worker reports about itself.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct WorkerFacts {
    pub registered: BTreeSet<String>,
    pub queues: BTreeSet<String>,
    /// Its settings.
    pub conf: Conf,
}

impl Facts {
    /// Asks Redis, the ledger and the workers at the same time. `queue` is a queue that tasks go to.
    pub async fn gather(
        ledger: Option<&dyn Ledger>,
        broker: &Broker,
        backend: &ResultBackend,
        topology: &Topology,
        queue: &QueueName,
        stores: &[config::Store],
    ) -> Self {
        let (
            (ledger, ledger_writes, ledger_hears),
            broker_state,
            backend_state,
            broker_writes,
            backend_writes,
            workers,
            heard,
            prefixes,
            result_prefixes,
            differing,
            stores,
            sizes,
        ) = tokio::join!(
            async { (asked(ledger).await, written(ledger).await, hears(ledger).await) },
            in_time(broker.ping()),
            in_time(backend.ping()),
            written_to(broker, queue),
            async { Writes::of(timeout(PATIENCE, backend.writable()).await, backend.memory().await) },
            workers(broker),
            overheard(broker),
            prefixes(broker),
            in_time(backend.prefixes()),
            differing(broker, topology),
            stores::states(stores),
            sizes(ledger)
        );
        // Without a broker no worker could be asked, and the broker's finding says that already.
        Self {
            ledger,
            ledger_writes,
            ledger_hears,
            broker: broker_state,
            backend: backend_state,
            broker_writes,
            backend_writes,
            workers: workers.unwrap_or_default(),
            heard,
            prefixes: prefixes.unwrap_or_default(),
            result_prefixes: result_prefixes.unwrap_or_default(),
            differing: differing.unwrap_or_default(),
            stores,
            sizes,
        }
    }
}

async fn sizes(ledger: Option<&dyn Ledger>) -> Vec<Advice> {
    let Some(ledger) = ledger else { return Vec::new() };
    let found = timeout(PATIENCE, sizes::look(ledger, clock::now())).await;
    found.ok().and_then(Result::ok).unwrap_or_default()
}

async fn asked(ledger: Option<&dyn Ledger>) -> Option<Result<&'static str, String>> {
    let ledger = ledger?;
    Some(in_time(ledger.ping()).await.map(|()| ledger.kind()))
}

async fn written_to(broker: &Broker, queue: &QueueName) -> Writes {
    match broker.lists() {
        Some(lists) => Writes::of(timeout(PATIENCE, lists.writable(queue.as_str())).await, lists.memory().await),
        None => Writes { taken: Ok(()), memory: None },
    }
}

async fn written(ledger: Option<&dyn Ledger>) -> Result<(), String> {
    let Some(ledger) = ledger else { return Ok(()) };
    match timeout(PATIENCE, ledger.writable()).await {
        Ok(taken) => taken.map_err(|error| error.told()),
        Err(_) => Err(LATE.to_owned()),
    }
}

async fn hears(ledger: Option<&dyn Ledger>) -> bool {
    let Some(ledger) = ledger else { return true };
    !matches!(timeout(PATIENCE, ledger.hears_others()).await, Ok(Ok(false)))
}

/// Listens to worker events. Only a broker with channels allows that without consuming messages.
async fn overheard(broker: &Broker) -> Option<Heard> {
    broker.lists()?.overhear(LISTEN).await.ok()
}

async fn prefixes(broker: &Broker) -> Option<BTreeSet<String>> {
    in_time(broker.lists()?.prefixes()).await.ok()
}

/// Compares queues and exchanges that exist; creates none.
async fn differing(broker: &Broker, topology: &Topology) -> Result<Vec<Differing>, broker::Error> {
    let names: Vec<String> = topology.queues.iter().map(|(queue, _)| queue.to_string()).collect();
    let depths = broker.depths(&names).await?;
    let mut found = Vec::new();
    for ((queue, arguments), _) in topology.queues.iter().zip(depths).filter(|(_, depth)| depth.trouble.is_none()) {
        match broker.declare_queue(queue, arguments).await {
            Err(broker::Error::Refused { text: said, .. }) => {
                found.push(Differing { kind: "queue", name: queue.to_string(), said });
            }
            other => other?,
        }
    }
    for exchange in &topology.exchanges {
        let said = broker.differs(exchange).await?;
        found.extend(said.map(|said| Differing { kind: "exchange", name: exchange.name.clone(), said }));
    }
    Ok(found)
}

async fn in_time<T, E: std::error::Error>(work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        }),
        Err(_) => Err(LATE.to_owned()),
    }
}

async fn workers(broker: &Broker) -> Result<BTreeMap<String, WorkerFacts>, broker::Error> {
    let (registered, queues, conf) = (
        Request::to_all("registered", "{}"),
        Request::to_all("active_queues", "{}"),
        Request::to_all("conf", r#"{"with_defaults": false}"#),
    );
    let (registered, queues, conf) = tokio::try_join!(
        broker.ask(&registered, WORKER_PATIENCE),
        broker.ask(&queues, WORKER_PATIENCE),
        broker.ask(&conf, WORKER_PATIENCE),
    )?;
    Ok(assemble(&registered, &queues, &conf))
}

/// One record for each worker that answered anything.
fn assemble(registered: &Replies, queues: &Replies, conf: &Replies) -> BTreeMap<String, WorkerFacts> {
    let mut workers: BTreeMap<String, WorkerFacts> = BTreeMap::new();
    for (node, names) in values(registered) {
        // "tasks.add [rate_limit=100/m]": attributes follow the name.
        let names = texts(&names).into_iter().map(|name| name.split(' ').next().unwrap_or_default().to_owned());
        workers.entry(node).or_default().registered = names.collect();
    }
    for (node, list) in values(queues) {
        let names = list.as_array().into_iter().flatten().filter_map(|queue| queue["name"].as_str());
        workers.entry(node).or_default().queues = names.map(str::to_owned).collect();
    }
    for (node, settings) in values(conf) {
        workers.entry(node).or_default().conf = Conf::read(&settings);
    }
    workers
}

fn values(replies: &Replies) -> impl Iterator<Item = (String, Value)> {
    replies.iter().filter_map(|(node, json)| Some((node.clone(), serde_json::from_str(json.get()).ok()?)))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn replies(value: &Value) -> Replies {
        let members = value.as_object().unwrap().iter();
        members.map(|(node, reply)| (node.clone(), celery::task::json::written(reply.to_string()))).collect()
    }

    #[test]
    fn what_workers_say_is_put_together_by_node() {
        let registered = replies(&json!({"a@h": ["tasks.add [rate_limit=1/s]", "tasks.mul"]}));
        let queues = replies(&json!({"a@h": [{"name": "celery"}], "b@h": [{"name": "crawl"}]}));
        let conf = replies(
            &json!({"a@h": {"result_expires": 60, "broker_transport_options": {"visibility_timeout": 7200},
            "result_backend": "redis://:********@h/1", "result_backend_transport_options": {"global_keyprefix": "x"}}}),
        );
        let workers = assemble(&registered, &queues, &conf);
        let worker = &workers["a@h"];
        assert!(worker.registered.contains("tasks.add") && worker.queues.contains("celery"));
        assert_eq!((worker.conf.visibility_timeout, worker.conf.result_expires), (Some(7_200.0), Some(60.0)));
        assert_eq!(worker.conf.backend_prefix, celery::conf::Hidden::Shown("x".to_owned()));
        assert!(workers["b@h"].registered.is_empty());
    }
}
