//! A complete environment: database, Redis, Celery worker, gateway; shared where a test does no harm to it.

use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::process::Process;
use super::rabbit::On;
use super::wait::DEADLINE;
use super::{
    Celery, CeleryOptions, Gateway, Http, Rabbit, Redis, RedisOptions, Version, celery, eventually, ports, postgres,
};

/// What a [`Harness`] is made of; the default is one worker of the newest Celery and one gateway.
#[derive(Default)]
pub struct Options {
    pub celery: CeleryOptions,
    pub redis: RedisOptions,
    /// Redis unless said otherwise; results are in Redis anyway,
    pub broker: On,
    /// or come back over RabbitMQ (`rpc://`),
    pub rpc: bool,
    /// or are where this says; the worker is told by its environment.
    pub results: Option<String>,
    /// Nodes that are not there, before the broker's own in the gateway's URL.
    pub before: &'static str,
    /// TOML merged over the tests' configuration. `{management}` stands for the address of RabbitMQ's management API.
    pub config: String,
    /// Without a worker.
    pub without_worker: bool,
    /// Of the gateway.
    pub environment: &'static [(&'static str, &'static str)],
    /// Its ledger, where that is not one of the shared cluster.
    pub database: Option<String>,
}

pub struct Harness {
    // Dropped in this order: processes before those that they depend on.
    pub gateway: Gateway,
    pub celery: Option<Celery>,
    pub redis: Redis,
    /// The broker, where it is not Redis.
    pub rabbit: Option<Rabbit>,
    pub database: String,
}

/// An environment together with a client that belongs to one test.
pub struct Lent<H: Deref<Target = Harness>> {
    environment: H,
    pub http: Http,
}

/// What many tests use at the same time.
pub type Shared = Lent<&'static Harness>;

impl Harness {
    /// An environment that other tests use at the same time: leave it as it is.
    pub fn shared() -> Shared {
        static SHARED: OnceLock<Harness> = OnceLock::new();
        Lent::new(SHARED.get_or_init(|| Self::build(&Options::default())))
    }

    /// As [`Harness::shared`], with the older Celery.
    pub fn shared_older() -> Shared {
        static SHARED: OnceLock<Harness> = OnceLock::new();
        let older = || CeleryOptions { version: Version::Older, ..CeleryOptions::default() };
        Lent::new(SHARED.get_or_init(|| Self::build(&Options { celery: older(), ..Options::default() })))
    }

    /// An environment of the test's own, to be killed, paused and restarted.
    pub fn start(options: &Options) -> Lent<Box<Self>> {
        Lent::new(Box::new(Self::build(options)))
    }

    /// A further gateway on the same ledger and Redis.
    pub fn replica(&self, config: &str) -> Gateway {
        Gateway::serve(&self.database, &self.broker_url(), &self.redis.url(1), config)
    }

    /// Where the fleet's messages go.
    pub fn broker_url(&self) -> String {
        self.rabbit.as_ref().map_or_else(|| self.redis.url(0), Rabbit::url)
    }

    /// Starts a worker in an environment that had none.
    pub fn start_worker(&mut self, options: CeleryOptions) {
        self.celery = Some(Celery::start_at(&self.broker_url(), &self.redis.url(1), options));
    }

    fn build(options: &Options) -> Self {
        let redis = Redis::start(options.redis.clone());
        let rabbit = Rabbit::of(options.broker);
        let broker = rabbit.as_ref().map_or_else(|| redis.url(0), Rabbit::url);
        let backend =
            options.results.clone().unwrap_or_else(|| if options.rpc { "rpc://".into() } else { redis.url(1) });
        let management = rabbit.as_ref().map_or_else(String::new, Rabbit::management_url);
        let config = options.config.replace("{management}", &management);
        let nodes = format!("{}{broker}", options.before);
        let mut worker = options.celery.clone();
        worker.environment.push(("SAMPLE_SITE_URL".into(), sample_site().to_owned()));
        // The worker boots while the database is made.
        let mut celery = (!options.without_worker).then(|| Celery::launch(&broker, &backend, worker));
        let database = options.database.clone().unwrap_or_else(|| postgres::cluster().migrated_database());
        let gateway = Gateway::serve_with(options.environment, &database, &nodes, &backend, &config);
        if let Some(celery) = &mut celery {
            celery.wait_until_ready();
            celery.wait_for_events();
        }
        Self { gateway, celery, redis, rabbit, database }
    }
}

impl Lent<&'static Harness> {
    /// An environment that some tests share, started by the first of them.
    pub fn over(shared: &'static OnceLock<Harness>, options: &Options) -> Self {
        Self::new(shared.get_or_init(|| Harness::build(options)))
    }
}

impl<H: Deref<Target = Harness>> Lent<H> {
    fn new(environment: H) -> Self {
        let http = environment.gateway.http();
        Self { environment, http }
    }

    /// Submits `task` with `args` and returns its id.
    #[track_caller]
    pub fn submit(&self, task: &str, args: Value) -> impl Future<Output = String> + '_ {
        self.submit_signature(json!({"task": task, "args": args}))
    }

    /// `POST /v1/tasks`: the id of what was accepted.
    pub async fn submit_signature(&self, signature: Value) -> String {
        let accepted = self.http.post_once("/v1/tasks", &signature).await.expect(202);
        accepted["task_id"].as_str().unwrap_or_else(|| panic!("no task_id in {accepted}")).to_owned()
    }

    /// Events of a task so far, as `GET /v1/tasks/{id}/events` lists them.
    pub async fn history(&self, id: &str) -> Vec<Value> {
        let path = format!("/v1/tasks/{id}/events");
        let listed = self.http.get_with(&path, &[("accept", "application/json")]).await.expect(200);
        listed["events"].as_array().unwrap_or_else(|| panic!("no events in {listed}")).clone()
    }

    /// The body of `GET /result/{id}` once it is finished.
    pub async fn finished(&self, id: &str) -> Value {
        eventually(&format!("{id} is finished"), async || {
            let answer = self.http.get(&format!("/result/{id}")).await;
            (answer.status != 202).then(|| answer.expect(200))
        })
        .await
    }

    /// Waits until a worker reports that it runs the task. Workers with threads may send that event only with the next one, because a
    /// thread may wake the loop that sends events just before that loop begins to wait.
    pub async fn is_active(&self, id: &str) {
        eventually(&format!("a worker runs {id}"), async || {
            let active = self.http.get("/v1/inspect/active?timeout=5").await.expect(200);
            active["replies"].to_string().contains(id).then_some(())
        })
        .await;
    }

    /// The body of `GET /v1/tasks/{id}` once its phase is `phase`.
    pub async fn in_phase(&self, id: &str, phase: &str) -> Value {
        eventually(&format!("{id} is {phase}"), async || {
            let task = self.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
            (task["phase"] == phase).then_some(task)
        })
        .await
    }

    /// Submit, then the finished result.
    pub async fn run(&self, task: &str, args: Value) -> Value {
        let id = self.submit(task, args).await;
        self.finished(&id).await
    }
}

impl<H: Deref<Target = Harness>> Deref for Lent<H> {
    type Target = Harness;
    fn deref(&self) -> &Harness {
        &self.environment
    }
}

impl DerefMut for Lent<Box<Harness>> {
    fn deref_mut(&mut self) -> &mut Harness {
        &mut self.environment
    }
}

impl<H: Deref<Target = Harness>> Drop for Lent<H> {
    /// A shared environment is never dropped, so its logs are shown from here.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.environment.gateway.show_log();
            self.environment.celery.iter().for_each(Celery::show_log);
        }
    }
}

/// The address of the sample notice board. It remembers nothing, so one serves the whole run.
fn sample_site() -> &'static str {
    static SITE: OnceLock<(Process, String)> = OnceLock::new();
    let (_, address) = SITE.get_or_init(|| {
        let port = ports::free();
        let mut command = Command::new(Version::Latest.python());
        command.arg(celery::root().join("examples/celery-python/sample_site.py")).arg(port.to_string());
        command.env("PYTHONUNBUFFERED", "1");
        let mut process = Process::start("sample-site", command);
        process.wait_for_log("/sample-site", DEADLINE);
        (process, format!("http://127.0.0.1:{port}/sample-site"))
    });
    address
}
