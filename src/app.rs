//! The composition root: builds the roles of one process from a configuration and concrete adapters.

#[cfg(feature = "worker")]
mod commands;
mod fit;
mod inboxes;
mod ledger_url;
#[cfg(feature = "worker")]
mod offload;
mod pauses;
mod results;
mod starter;
mod timetables;
pub(crate) mod topology;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::catalog::Catalog;
use crate::config::{self, Config};
use crate::edge::Behind;
use crate::guard::audit;
use crate::guard::throttle::Throttle;
use crate::guard::tokens::Authority;
use crate::live::commit::Committer;
use crate::live::hub::Hub;
use crate::live::inboxes::Inboxes;
use crate::live::learned::Learned;
use crate::live::news;
use crate::live::pauses::Pauses;
use crate::live::reads::Reader;
use crate::live::windows::Windows;
use crate::reconcile::adopter::Adopter;
use crate::reconcile::canvas::Canvases;
use crate::reconcile::deliveries::Deliveries;
use crate::reconcile::departed::Departed;
use crate::reconcile::details::Details;
use crate::reconcile::exchanges::Exchanges;
use crate::reconcile::expiry::Expiry;
use crate::reconcile::fleet::Fleet;
use crate::reconcile::fleet_options::FleetOptions;
use crate::reconcile::learner::Learner;
use crate::reconcile::recorder::Recorder;
use crate::reconcile::relay::Relay;
use crate::reconcile::removal::Removal;
use crate::reconcile::retention::Retention;
use crate::reconcile::sweeper::{self, Sweeper};
use crate::reconcile::task_logs::LogWriter;
use crate::reconcile::uploads::Uploads;
use crate::reconcile::workers::{self, WorkerRegistry};
use crate::roles::beat::{self, service::Beat};
use crate::roles::bulk::BulkWorker;
use crate::roles::dags::Dags;
use crate::roles::expander::Expander;
use crate::roles::hand_over::HandOver;
use crate::roles::inboxes::Drain;
use crate::roles::retrier::Retrier;
use crate::stores::Stores;
use crate::tell::health::Health;
use crate::tell::incidents::{Lookout, troubles};
use crate::tell::notify::{self, Notifier};
use crate::tell::samples::Sampler;
use crate::tell::stats::Folder;
use crate::tell::traces::Traces;
use crate::tell::webhooks::Webhooks;
use crate::usecase::waits::SigningKey;
use crate::usecase::{Gateway, Nudge, SharedGateway, Watcher};
use broker::amqp::{self, Address, RabbitMq};
use broker::{Broker, BrokerConfig, LinkConfig, Lists};
use ledger::SharedLedger;
pub use results::open_backend;
use results::{open_management, open_records, uncounted};
use runtime::clock;
use runtime::lifecycle::{OnExit, Tasks};
use starter::Starter;
#[cfg(feature = "worker")]
use taskgate_worker::Registry;

pub use fit::fits;
pub use ledger_url::{claim_file, claim_ledger, hostname, open_ledger};
pub use timetables::foreign_schedules;

/// The gateway and all its background services.
pub struct App {
    pub gateway: SharedGateway,
    pub tasks: Tasks,
    /// What the HTTP edge needs from it.
    pub behind: Behind,
}

impl App {
    /// Builds and starts all services of a gateway. Waits for no connection: Redis and the ledger may be down.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn build(config: &Config, ledger: SharedLedger, tasks: Tasks) -> anyhow::Result<Self> {
        Self::assemble(config, ledger, tasks, false)
    }

    /// A gateway that only reads, on a replica of the ledger: it publishes nothing and records nothing.
    ///
    /// # Errors
    /// As [`App::build`].
    pub fn reading(config: &Config, ledger: SharedLedger, tasks: Tasks) -> anyhow::Result<Self> {
        Self::assemble(config, ledger, tasks, true)
    }

    fn assemble(config: &Config, ledger: SharedLedger, tasks: Tasks, reads_only: bool) -> anyhow::Result<Self> {
        let catalog = Arc::new(Catalog::compile(config)?);
        let limits = config.limits.of_signatures();
        beat::seed::check(&config.schedules, limits)?;
        notify::check(&config.notify)?;
        let (broker, backend) = (open_broker(config)?, open_backend(config)?);
        let records = open_records(config).ok();
        let options = broker.lists().cloned().map(FleetOptions::new);
        let hub = Hub::default();
        let windows = windows(config, &catalog);
        let holder = format!("{}:{}", origin(), clock::random_id());
        let (relay, relay_handle) =
            Relay::new(ledger.clone(), broker.clone(), backend.clone(), hub.clone(), catalog.paces(), windows.clone());
        let (committer, commit) = Committer::new(ledger.clone(), relay_handle.clone(), hub.clone());
        let (reader, reads) = Reader::new(ledger.clone());
        let (worker_sink, worker_events) = mpsc::channel(workers::CAPACITY);
        let (recorder, recorder_handle) = Recorder::new(
            ledger.clone(),
            broker.clone(),
            backend.clone(),
            hub.clone(),
            holder.clone(),
            Some(worker_sink),
        );
        let fleet = Fleet::default();
        let registry =
            WorkerRegistry::new(ledger.clone(), broker.clone(), recorder_handle.clone(), fleet.clone(), worker_events);
        let (log_writer, logs) = LogWriter::new(ledger.clone(), hub.clone(), config.logs.clone());
        let (details, adopted) = Details::new(ledger.clone(), broker.clone());
        let recorder = recorder.with_logs(logs).with_details(adopted);
        // Only Redis lists and channels can be inspected without consuming the messages.
        let adopter =
            broker.lists().cloned().zip(records.clone()).map(|(lists, records)| {
                Adopter::new(ledger.clone(), lists, records, hub.clone(), recorder_handle.clone())
            });
        let (pauses, stores) = (Pauses::default(), Stores::open(&config.stores)?);
        let canvases = Canvases::new(ledger.clone(), broker.clone(), hub.clone(), config.recovery.settle_after);
        let departed = Departed::new(
            ledger.clone(),
            broker.clone(),
            backend.clone(),
            hub.clone(),
            relay_handle.clone(),
            holder.clone(),
            (config.sweeper.clone(), config.recovery),
        );
        // A broker whose messages cannot be inspected redelivers them by itself, and the sweeper looks after the rest only.
        let sweeper = broker.lists().cloned().zip(records).map(|(lists, records)| {
            Sweeper::new(
                ledger.clone(),
                lists,
                records,
                hub.clone(),
                relay_handle.clone(),
                holder.clone(),
                sweeper::Settings {
                    config: config.sweeper.clone(),
                    recovery: config.recovery,
                    visibility_timeout: config.broker.visibility_timeout,
                },
            )
        });
        let deliveries = Deliveries::new(ledger.clone(), broker.clone(), hub.clone(), config.recovery);
        let retention = Retention::new(ledger.clone(), config.ledger.clone(), holder.clone());
        let learned = Learned::new(&config.learn);
        let learner = Learner::new(broker.clone(), Arc::clone(&catalog), learned.clone());
        let (lookout, incidents) =
            Lookout::new(ledger.clone(), broker.clone(), config.incidents.clone(), Arc::clone(&catalog));
        let lookout = lookout.with_learned(learned.clone());
        let sampler = Sampler::new(ledger.clone(), broker.clone(), Arc::clone(&catalog), holder.clone());
        let queue = config.broker.default_queue.clone();
        let (health, health_handle) = Health::new(ledger.clone(), broker.clone(), backend.clone(), queue);
        let health = if reads_only { health.reading() } else { health };
        let removal = Removal::new(ledger.clone(), broker.clone());
        let expiry = Expiry::new(ledger.clone(), removal, hub.clone());
        let exchanges = Exchanges::new(broker.clone(), topology::of(config));
        let beat_handle = Nudge::default();
        let authority = Authority::new(ledger.clone());
        let (webhooks, webhooks_handle) =
            Webhooks::new(ledger.clone(), hub.clone(), Arc::clone(&catalog), config.webhooks.clone());
        let throttle = Throttle::new(broker.clone());
        let (waits, wake) = pauses::service(config, &ledger, &broker, &hub, &holder);
        let gateway = Arc::new(Gateway {
            watcher: Watcher::new(ledger.clone(), hub.clone()),
            ledger: ledger.clone(),
            broker,
            catalog: Arc::clone(&catalog),
            hub: hub.clone(),
            commit,
            relay: relay_handle,
            reads,
            recorder: recorder_handle,
            health: health_handle.clone(),
            pauses: pauses.clone(),
            learned: learned.clone(),
            inboxes: Inboxes::new(inboxes::sources(config, ledger.kind())?),
            fleet: fleet.clone(),
            stores: stores.clone(),
            windows,
            management: open_management(config)?,
            beat: beat_handle.clone(),
            expander: Nudge::default(),
            bulks: Nudge::default(),
            dags: Nudge::default(),
            waits: wake,
            wait_key: SigningKey::default(),
            keep: config.ledger.keep,
            limits: config.limits.clone(),
            keep_idempotency: config.ledger.keep_idempotency,
            webhooks: webhooks_handle,
            hooks: config.webhooks.clone(),
            reply_to: config.backend.reply_queue().map(str::to_owned),
            uncounted: uncounted(&config.backend),
            origin: origin(),
        });
        let starter = Starter { tasks: tasks.clone(), prepared: CancellationToken::new() };
        starter.prepare(ledger.clone(), config.database.migrate, health_handle.clone());
        let prepared = starter.prepared.clone();
        tasks.spawn("health", OnExit::StopProcess, move |stop| health.run(prepared, stop));
        starter.service("reader", move |stop| reader.run(stop));
        if config.auth != config::Auth::None {
            let authority = authority.clone();
            starter.service("tokens", move |stop| authority.run(stop));
        }
        if reads_only {
            starter.service("news", move |stop| news::run(ledger, hub, stop));
            let (health, traces) = (health_handle, Traces::default());
            let behind = Behind {
                gateway: gateway.clone(),
                authority,
                throttle,
                health,
                incidents,
                catalog,
                traces,
                reads_only,
            };
            return Ok(Self { gateway, tasks, behind });
        }
        let (told, known) = (incidents.clone(), health_handle.clone());
        tasks.spawn("troubles", OnExit::StopProcess, move |stop| troubles(told, known, stop));
        // The fleet's options must be known before anything is published.
        let first = options.clone();
        starter.service("relay", move |stop| async move {
            if let Some(options) = first {
                options.check().await;
            }
            relay.run(stop).await;
        });
        if let Some(options) = options {
            starter.service("fleet-options", move |stop| options.run(stop));
        }
        if let Some(adopter) = adopter {
            starter.service("adopter", move |stop| adopter.run(stop));
        }
        starter.service("details", move |stop| details.run(stop));
        starter.service("exchanges", move |stop| exchanges.run(stop));
        starter.service("committer", move |stop| committer.run(stop));
        starter.service("recorder", move |stop| recorder.run(stop));
        if learned.is_wanted() || config.said.has("catalogs") {
            starter.service("learner", move |stop| learner.run(stop));
        }
        starter.service("task-logs", move |stop| log_writer.run(stop));
        starter.service("canvases", move |stop| canvases.run(stop));
        starter.service("expiry", move |stop| expiry.run(stop));
        starter.service("workers", move |stop| registry.run(stop));
        let paused = ledger.clone();
        starter.service("pauses", move |stop| pauses.run(paused, stop));
        let pictured = ledger.clone();
        starter.service("fleet", move |stop| fleet.run(pictured, stop));
        let beat = Beat::new(gateway.clone(), tasks.clone(), beat_handle, config.schedules.clone(), config.ledger.keep);
        starter.service("beat", move |stop| beat.run(stop));
        for drain in Drain::all(&gateway) {
            starter.service("inbox", move |stop| drain.run(stop));
        }
        let uploads = Uploads::new(ledger.clone(), stores);
        starter.service("uploads", move |stop| uploads.run(stop));
        let expander = Expander::new(gateway.clone(), holder.clone());
        let bulks = BulkWorker::new(gateway.clone(), holder.clone());
        starter.service("bulk", move |stop| bulks.run(stop));
        let audited = ledger.clone();
        starter.service("audit", move |stop| audit::run(audited, stop));
        let retrier = Retrier::new(gateway.clone());
        starter.service("retrier", move |stop| retrier.run(stop));
        let hand_over = HandOver::new(gateway.clone());
        starter.service("failures", move |stop| hand_over.run(stop));
        starter.service("waits", move |stop| waits.run(stop));
        let dags = Dags::new(gateway.clone());
        starter.service("dags", move |stop| dags.run(stop));
        starter.service("fan-out", move |stop| expander.run(stop));
        starter.service("retention", move |stop| retention.run(stop));
        let notifier =
            Notifier::new(ledger.clone(), incidents.clone(), config.notify.clone(), &config.webhooks, holder.clone());
        starter.service("notifier", move |stop| notifier.run(stop));
        starter.service("incidents", move |stop| lookout.run(stop));
        match sweeper {
            Some(sweeper) => starter.service("sweeper", move |stop| sweeper.run(stop)),
            None => starter.service("departed", move |stop| departed.run(stop)),
        }
        starter.service("deliveries", move |stop| deliveries.run(stop));
        let folder = Folder::new(ledger.clone(), config.ledger.keep);
        starter.service("webhooks", move |stop| webhooks.run(stop));
        starter.service("stats", move |stop| folder.run(stop));
        starter.service("samples", move |stop| sampler.run(stop));
        let traces = starter.trace(&config.telemetry, &ledger, holder);
        starter.service("news", move |stop| news::run(ledger, hub, stop));
        let health = health_handle;
        let behind =
            Behind { gateway: gateway.clone(), authority, throttle, health, incidents, catalog, traces, reads_only };
        Ok(Self { gateway, tasks, behind })
    }
}

fn windows(config: &Config, catalog: &Catalog) -> Windows {
    let said = config.queues.iter().map(|queue| (queue.name.as_str(), queue.window));
    Windows::new(said, catalog.shared_queues().into_iter(), config.broker.redis.is_rabbitmq())
}

/// A worker on the configured broker, for the default queue and every queue that the catalog names, with the catalog's commands
/// beside the tasks of `registry`.
///
/// # Errors
/// When the configuration is invalid.
#[cfg(feature = "worker")]
pub fn worker(config: &Config, mut registry: Registry) -> anyhow::Result<taskgate_worker::Builder> {
    let catalog = Catalog::compile(config)?;
    commands::register(&catalog, &mut registry)?;
    offload::register(config, &catalog, &mut registry)?;
    let queues = match &config.worker.queues {
        Some(names) => taskgate_worker::queue_names(names)?,
        None => catalog.queues(),
    };
    Ok(worker_on_broker(config)?
        .registry(registry)
        .queues(queues)
        .default_queue(config.broker.default_queue.clone())
        .concurrency(config.worker.concurrency)
        .pool(pool(config.worker.pool))
        .child_limits(config.worker.max_tasks_per_child, config.worker.max_memory_per_child)
        .hostname(config.worker.hostname.as_deref().unwrap_or("taskgate@%h"))
        .visibility_timeout(config.broker.visibility_timeout)
        .queue_order(config.broker.queue_order)
        .log_bytes(config.logs.max_bytes as u64)
        .max_deliveries(config.recovery.enabled.then_some(config.recovery.max_deliveries))
        .result_expires(config.backend.result_expires))
}

/// A worker without tasks, on the configured broker and result backend.
#[cfg(feature = "worker")]
fn worker_on_broker(config: &Config) -> anyhow::Result<taskgate_worker::Builder> {
    if !config.broker.redis.is_rabbitmq() {
        return Ok(taskgate_worker::Builder::new(open_lists(config)?, open_records(config)?));
    }
    if config.backend.results.is_some() {
        anyhow::bail!(
            "{}: taskgate's own worker writes results to Redis or over RabbitMQ (rpc://), not to a database; run Celery's worker there",
            config.said.place("backend.url")
        );
    }
    let queues = config.queues.iter().map(|queue| (queue.name.to_string(), queue.arguments.clone())).collect();
    let rabbit = amqp::WorkerSide::new(amqp_link(config)?, queues)?;
    let backend = if config.backend.reply_queue().is_some() { None } else { Some(open_records(config)?) };
    Ok(taskgate_worker::Builder::on_rabbitmq(rabbit, backend))
}

/// The configured pool as the worker library's type.
#[cfg(feature = "worker")]
pub fn pool(pool: config::Pool) -> taskgate_worker::Pool {
    match pool {
        config::Pool::Async => taskgate_worker::Pool::Async,
        config::Pool::Prefork => taskgate_worker::Pool::Prefork,
    }
}

/// The broker that the configuration names. Connects to nothing yet.
///
/// # Errors
/// When its URL is not understood, or a file of certificates cannot be read.
pub fn open_broker(config: &Config) -> anyhow::Result<Broker> {
    let redis = &config.broker.redis;
    tell_ignored("broker.url", &redis.ignored);
    if !redis.is_rabbitmq() {
        return Ok(Arc::new(open_lists(config)?));
    }
    let reply_to = config.backend.reply_queue().map(str::to_owned);
    Ok(Arc::new(RabbitMq::new(amqp_link(config)?, reply_to)))
}

/// Redis as the broker.
fn open_lists(config: &Config) -> anyhow::Result<Lists> {
    let transport = config.broker.transport.clone();
    Ok(Lists::new(BrokerConfig { link: link(&config.broker.redis)?, transport })?)
}

fn amqp_link(config: &Config) -> anyhow::Result<amqp::LinkConfig> {
    let redis = &config.broker.redis;
    let addresses = Address::parse_all(redis.url.reveal()).with_context(|| config.said.place("broker.url"))?;
    let tls_ca = redis.tls_ca.as_deref().map(certificates).transpose()?.map(String::from_utf8).transpose();
    Ok(amqp::LinkConfig {
        addresses,
        tls_ca: tls_ca.context("broker.tls_ca is not a PEM file")?,
        connect_timeout: redis.connect_timeout,
        response_timeout: redis.response_timeout,
    })
}

fn certificates(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("tls_ca {} cannot be read", path.display()))
}

/// Logs once, at start, which parameters of a URL are ignored.
fn tell_ignored(key: &str, ignored: &[String]) {
    if !ignored.is_empty() {
        info!("{key}: these parameters have no effect here and are ignored: {}", ignored.join(", "));
    }
}

fn link(redis: &config::Redis) -> anyhow::Result<LinkConfig> {
    Ok(LinkConfig {
        url: redis.url.reveal().to_owned(),
        sentinel_master: redis.sentinel_master.clone(),
        sentinel_password: redis.sentinel_password.as_ref().map(|word| word.reveal().to_owned()),
        tls_ca: redis.tls_ca.as_deref().map(certificates).transpose()?,
        connect_timeout: redis.connect_timeout,
        response_timeout: redis.response_timeout,
    })
}

/// This process's `origin` in messages, in the form that Celery's clients use.
fn origin() -> String {
    format!("gen{}@{}", std::process::id(), ledger_url::hostname())
}
