//! All peers of one run.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::{Broker, Plan};
use crate::harness::postgres::Cluster;
use crate::harness::process::{Process, folder};
use crate::harness::rabbit::Rabbit;
use crate::harness::wait::{DEADLINE, within};
use crate::harness::{Celery, CeleryOptions, Gateway, Http, Redis, RedisOptions, Version};

/// Settings with which workers count as dead and leases expire within seconds.
const CONFIG: &str = "[sweeper]\nperiod = '1s'\ngrace = '700ms'\nworker_lost_after = '4s'\n\
     [broker]\nvisibility_timeout = '20s'\n[submit]\nallow = ['demo.*', 'rs.*']\n\
     [recovery]\nsettle_after = '4s'\nmax_deliveries = 3\n";

/// The queues of the workers. A gevent pool is one process, so it does not serve `poison`, which would kill it constantly.
pub const QUEUES: [&str; 3] = ["celery", "poison", "rust"];

pub struct World {
    pub gateways: Vec<Gateway>,
    pub celery: Vec<Celery>,
    pub rust: Process,
    pub redis: Redis,
    /// The broker, where it is not Redis.
    pub rabbit: Option<Rabbit>,
    pub cluster: Cluster,
    pub database: String,
    /// The folder in which workers record their executions.
    pub journal: PathBuf,
    pub down: Down,
}

/// The open faults, to be repaired.
#[derive(Default)]
pub struct Down {
    pub gateways: Vec<usize>,
    pub stopped_gateways: Vec<usize>,
    pub celery: Vec<usize>,
    pub stopped_celery: Vec<usize>,
    pub rust: bool,
    pub redis: bool,
    pub stopped_redis: bool,
    pub full_redis: bool,
    pub rabbit: bool,
    pub stopped_rabbit: bool,
    pub full_rabbit: bool,
    pub postgres: bool,
}

impl World {
    pub fn build(plan: Plan) -> Self {
        let cluster = Cluster::start();
        let redis = Redis::start(RedisOptions::default());
        let journal = folder("chaos").join("journal");
        let rabbit = (plan.broker == Broker::RabbitMq).then(|| Rabbit::start(""));
        let at = rabbit.as_ref().map_or_else(|| redis.url(0), Rabbit::url);
        let mut celery: Vec<Celery> =
            (0..plan.workers).map(|index| python(&at, &redis.url(1), &journal, index)).collect();
        let mut rust = rust(&at, &redis.url(1), &journal);
        let database = cluster.empty_database();
        let gateway = || Gateway::serve(&database, &at, &redis.url(1), CONFIG);
        let gateways = (0..plan.gateways).map(|_| gateway()).collect();
        celery.iter_mut().for_each(Celery::wait_until_ready);
        rust.wait_for_log("is ready", DEADLINE);
        Self { gateways, celery, rust, redis, rabbit, cluster, database, journal, down: Down::default() }
    }

    pub fn https(&self) -> Vec<Http> {
        self.gateways.iter().map(Gateway::http).collect()
    }

    /// The silence of a worker with an unknown pool proves nothing for a whole visibility timeout.
    pub async fn wait_until_known(&self) {
        let http = self.gateways[0].http();
        within(DEADLINE, "all workers are known", async || {
            let workers = http.get("/v1/workers").await.expect(200);
            let workers = workers["workers"].as_array().cloned().unwrap_or_default();
            let known = workers.iter().filter(|worker| worker["pool"].is_string()).count();
            (known > self.celery.len()).then_some(())
        })
        .await;
    }

    /// Restarts Celery workers that have ended by themselves, as a supervisor would: Celery gives up when Redis refuses writes.
    /// Returns how many.
    pub fn supervise(&mut self) -> usize {
        let Self { celery, down, .. } = self;
        let ended = celery.iter_mut().enumerate().filter(|(index, _)| !down.celery.contains(index));
        let mut started = 0;
        for (index, worker) in ended.filter_map(|(index, worker)| worker.has_ended().then_some((index, worker))) {
            eprintln!("          the worker w{index} has ended by itself and is started again");
            worker.relaunch();
            started += 1;
        }
        started
    }

    /// Kills and starts all Celery workers.
    pub fn restart_celery(&mut self) {
        eprintln!("          the Celery workers are started again");
        for worker in &mut self.celery {
            worker.kill();
            worker.relaunch();
        }
    }

    pub fn restart_rust(&mut self) {
        let at = self.rabbit.as_ref().map_or_else(|| self.redis.url(0), Rabbit::url);
        self.rust = rust(&at, &self.redis.url(1), &self.journal);
    }

    /// Messages of a queue, those at workers included on RabbitMQ.
    pub fn messages(&self, queue: &str) -> usize {
        match &self.rabbit {
            None => self.redis.command(0, &["LLEN", queue]),
            Some(rabbit) => {
                let known = rabbit.queue(queue).and_then(|queue| queue["messages"].as_u64());
                usize::try_from(known.unwrap_or_default()).expect("not so many")
            }
        }
    }

    /// Tags and messages that are reserved in Redis.
    pub fn reserved(&self) -> Vec<String> {
        if self.rabbit.is_some() { Vec::new() } else { self.redis.command(0, &["HGETALL", "unacked"]) }
    }

    pub fn show_logs(&self) {
        self.gateways.iter().for_each(Gateway::show_log);
        self.celery.iter().for_each(Celery::show_log);
        self.rust.show_log();
    }
}

/// Alternates between the newest Celery, the older one, and the newest with gevent.
fn python(broker: &str, backend: &str, journal: &std::path::Path, index: usize) -> Celery {
    let (version, pool, queues, concurrency) = match index % 3 {
        0 => (Version::Latest, "prefork", "celery,poison", 2),
        1 => (Version::Older, "prefork", "celery,poison", 2),
        _ => (Version::Latest, "gevent", "celery", 8),
    };
    // Without confirmations Celery loses what it sent while the node died.
    let transport = match broker.starts_with("amqp") {
        true => json!({"confirm_publish": true}),
        false => json!({"visibility_timeout": 20}),
    };
    let options = CeleryOptions {
        version,
        pool,
        concurrency,
        hostname: format!("w{index}@test"),
        queues: queues.to_owned(),
        // It sends events from its first message on: until it has heard that it should, what it takes is not told.
        settings: json!({"broker_transport_options": transport, "broker_connection_max_retries": null,
            "worker_send_task_events": true}),
        environment: vec![("DEMO_JOURNAL".to_owned(), journal.display().to_string())],
        ..CeleryOptions::default()
    };
    let options = if pool == "gevent" { options.with_packages() } else { options };
    Celery::launch(broker, backend, options)
}

fn rust(broker: &str, backend: &str, journal: &std::path::Path) -> Process {
    let program = std::env::current_exe().expect("the program has a path");
    let folder = program.ancestors().nth(2).expect("target/debug");
    let mut command = Command::new(folder.join("examples/demo-worker"));
    command.env("BROKER", broker).env("BACKEND", backend).env("RUST_LOG", "info");
    command.env("CONCURRENCY", "4").env("VISIBILITY_TIMEOUT", "20").env("DEMO_JOURNAL", journal);
    Process::start("rust-worker", command)
}
