//! Every kind of worker that people run: a task of every kind runs exactly once, its end is right or `ignored`, and the fleet's own
//! `inspect` is answered as if no gateway were attached. Here other serializers are those of results; events and replies in them are tried
//! in `fleets::serializers`: a worker that writes YAML cannot answer `inspect stats`, because Celery's own reply has a `Counter` in it.

use serde_json::{Value, json};

use super::Counted;
use crate::harness::celery::client_with;
use crate::harness::{CeleryOptions, Version};

/// Kinds of repairs, none of which may happen here.
const UNFOUNDED: [&str; 5] = ["repeated_delivery", "repair-suspended", "undecided", "wrong_key", "other_options"];

/// A worker as people run it, with the gateway's configuration.
struct Kind {
    worker: CeleryOptions,
    config: &'static str,
    /// It answers questions.
    answers: bool,
    /// Whether the values that its tasks return can be read, not only that they ended.
    readable: bool,
}

impl Kind {
    fn of(worker: CeleryOptions) -> Self {
        Self { worker, config: "", answers: true, readable: true }
    }

    fn with(settings: Value) -> Self {
        Self::of(CeleryOptions { settings, ..CeleryOptions::default() })
    }

    fn results_in(serializer: &str) -> Self {
        let settings = json!({"result_serializer": serializer, "accept_content": ["json", serializer]});
        let worker = CeleryOptions { settings, ..CeleryOptions::default() }.with_packages();
        Self { readable: serializer != "pickle", ..Self::of(worker) }
    }

    fn pool(pool: &'static str) -> Self {
        Self::of(CeleryOptions { pool, ..CeleryOptions::default() }.with_packages())
    }

    /// # Panics
    /// When a task runs twice or not at all, ends wrongly, or a worker is no longer heard.
    async fn holds(self) {
        let tells = self.answers && self.worker.awaits_events;
        let (version, settings) = (self.worker.version, self.worker.settings.clone());
        let mut world = Counted::start_deaf(self.worker, self.config);
        if self.answers {
            world.worker_is_known().await;
        }
        if tells {
            world.env.celery.as_mut().expect("a worker").wait_for_events();
        }
        let sent = Sent::send(&world).await;
        sent.end(&world, self.readable).await;
        let answered = pings(&world, version, &settings, if self.answers { 5 } else { 1 }).await;
        assert!(answered.iter().all(|count| *count == usize::from(self.answers)), "{answered:?}");
        world.surveys(3).await;
        sent.ran_once(&world);
        let incidents = world.env.http.get("/v1/incidents").await.expect(200);
        let all = incidents["incidents"].as_array().expect("a list");
        let unfounded = all.iter().filter(|one| UNFOUNDED.iter().any(|kind| one["kind"] == *kind));
        assert_eq!(unfounded.count(), 0, "{incidents}");
    }
}

/// Tasks of every kind.
struct Sent {
    /// Each with the ends that are correct.
    tasks: Vec<(String, &'static [&'static str])>,
    /// Tasks that record that they ran.
    journalled: Vec<String>,
    retried: String,
}

const SUCCEEDS: &[&str] = &["SUCCESS"];
/// The end of a task without a result is unknown if no event reports it.
const UNHEARD: &[&str] = &["SUCCESS", "IGNORED"];
const IGNORED: &[&str] = &["IGNORED"];
const FAILS: &[&str] = &["FAILURE"];

impl Sent {
    async fn send(world: &Counted) -> Self {
        let mut this = Self { tasks: Vec::new(), journalled: Vec::new(), retried: String::new() };
        for (signature, ends) in [
            (json!({"task": "demo.work"}), SUCCEEDS),
            (json!({"task": "demo.work", "priority": 5}), SUCCEEDS),
            (json!({"task": "demo.work", "countdown": 1}), SUCCEEDS),
            (json!({"task": "demo.work_late", "kwargs": {"seconds": 0.5}}), SUCCEEDS),
            (json!({"task": "demo.unrecorded"}), UNHEARD),
            (json!({"task": "demo.end_ignored"}), IGNORED),
            (json!({"task": "demo.end_ignored_late"}), IGNORED),
            (json!({"task": "demo.replace_brief"}), SUCCEEDS),
        ] {
            let id = world.env.submit_signature(signature).await;
            this.journalled.push(id.clone());
            this.tasks.push((id, ends));
        }
        this.send_canvases(world).await;
        this.tasks.push((world.env.submit("demo.fail", json!([])).await, FAILS));
        this.retried = world.env.submit("demo.retry", json!([1, 0.2])).await;
        this.tasks.push((this.retried.clone(), SUCCEEDS));
        this
    }

    async fn send_canvases(&mut self, world: &Counted) {
        let step = json!({"task": "demo.work", "immutable": true});
        for (path, body) in [
            ("/chain", json!({"tasks": [step, step]})),
            ("/group", json!({"tasks": [step, step]})),
            ("/chord", json!({"header": [step, step], "body": step})),
        ] {
            let accepted = world.env.http.post_once(path, &body).await.expect(202);
            let ids = accepted["children"].as_array().into_iter().flatten().map(|child| &child["task_id"]);
            let mut ids: Vec<String> = ids.filter_map(|id| id.as_str().map(str::to_owned)).collect();
            // A group has an id that is no task's.
            ids.extend(accepted["task_id"].as_str().filter(|_| path != "/group").map(str::to_owned));
            ids.sort();
            ids.dedup();
            self.journalled.extend(ids.iter().cloned());
            self.tasks.extend(ids.into_iter().map(|id| (id, SUCCEEDS)));
        }
    }

    async fn end(&self, world: &Counted, readable: bool) {
        for (id, ends) in &self.tasks {
            let result = world.ends(id).await;
            let status = result["status"].as_str().unwrap_or_default();
            assert!(ends.contains(&status), "{result}\n{:#?}", world.env.history(id).await);
        }
        let retried = world.ends(&self.retried).await;
        assert_eq!(retried["result"] == 1, readable, "{retried}");
    }

    fn ran_once(&self, world: &Counted) {
        for id in &self.journalled {
            assert_eq!(world.runs(id), 1, "{id}: {}", std::fs::read_to_string(&world.journal).unwrap_or_default());
        }
    }
}

/// How many workers answered each of so many `inspect ping`s of the fleet's own.
async fn pings(world: &Counted, version: Version, settings: &Value, count: usize) -> Vec<usize> {
    let (broker, backend, settings) = (world.env.redis.url(0), world.env.redis.url(1), settings.clone());
    let program = format!("for _ in range({count}): print(len(app.control.inspect(timeout=30, limit=1).ping() or []))");
    let printed = tokio::task::spawn_blocking(move || client_with(version, &broker, &backend, &settings, &program));
    printed.await.expect("it ran").lines().map(|line| line.parse().expect("a number")).collect()
}

#[tokio::test]
async fn a_worker_with_default_flags_runs_each_task_once() {
    Kind::of(CeleryOptions::default()).holds().await;
}

#[tokio::test]
async fn a_worker_of_the_older_celery_runs_each_task_once() {
    Kind::of(CeleryOptions { version: Version::Older, ..CeleryOptions::default() }).holds().await;
}

#[tokio::test]
async fn a_worker_without_heartbeat_gossip_and_mingle_runs_each_task_once() {
    Kind::of(CeleryOptions { awaits_events: false, ..super::eventless() }).holds().await;
}

#[tokio::test]
async fn a_worker_that_sends_events_by_itself_runs_each_task_once() {
    Kind::of(CeleryOptions { events: true, ..CeleryOptions::default() }).holds().await;
}

#[tokio::test]
async fn a_worker_without_remote_control_runs_each_task_once() {
    let kind = Kind::with(json!({"worker_enable_remote_control": false}));
    Kind { answers: false, ..kind }.holds().await;
}

#[tokio::test]
async fn a_fleet_with_ten_priorities_runs_each_task_once() {
    let steps: Vec<u8> = (0..10).collect();
    let options = json!({"priority_steps": steps, "sep": ":", "queue_order_strategy": "priority"});
    let config =
        "[broker]\npriority_steps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\nsep = ':'\nqueue_order_strategy = 'priority'\n";
    Kind { config, ..Kind::with(json!({"broker_transport_options": options})) }.holds().await;
}

#[tokio::test]
async fn a_fleet_with_a_prefix_for_its_keys_runs_each_task_once() {
    let settings = json!({"broker_transport_options": {"global_keyprefix": "app:"},
        "result_backend_transport_options": {"global_keyprefix": "res"}});
    let config = "[broker]\nglobal_keyprefix = 'app:'\n[backend]\nglobal_keyprefix = 'res'\n";
    Kind { config, ..Kind::with(settings) }.holds().await;
}

#[tokio::test]
async fn a_fleet_that_acknowledges_late_runs_each_task_once() {
    Kind::with(json!({"task_acks_late": true, "task_reject_on_worker_lost": true})).holds().await;
}

#[tokio::test]
async fn a_fleet_with_results_in_yaml_runs_each_task_once() {
    Kind::results_in("yaml").holds().await;
}

#[tokio::test]
async fn a_fleet_with_results_in_msgpack_runs_each_task_once() {
    Kind::results_in("msgpack").holds().await;
}

#[tokio::test]
async fn a_fleet_with_pickled_results_runs_each_task_once() {
    Kind::results_in("pickle").holds().await;
}

#[tokio::test]
async fn a_pool_of_threads_runs_each_task_once() {
    Kind::pool("threads").holds().await;
}

#[tokio::test]
async fn a_solo_pool_runs_each_task_once() {
    Kind::pool("solo").holds().await;
}

#[tokio::test]
async fn a_pool_of_gevent_runs_each_task_once() {
    Kind::pool("gevent").holds().await;
}

#[tokio::test]
async fn a_pool_of_eventlet_runs_each_task_once() {
    Kind::pool("eventlet").holds().await;
}
