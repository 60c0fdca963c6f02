//! Redis behind TLS, and behind a Sentinel that fails over.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::postgres::cluster;
use crate::harness::process::{Process, folder};
use crate::harness::wait::{blocking, within};
use crate::harness::{Celery, CeleryOptions, Gateway, Http, Version, ports};

/// A failover takes some seconds, and Celery's reconnect takes some more.
const FAILOVER: Duration = Duration::from_secs(120);

async fn run(http: &Http, deadline: Duration) {
    let accepted = http.post("/v1/tasks", &json!({"task": "demo.add", "args": [1, 2]})).await.expect(202);
    let id = accepted["task_id"].as_str().expect("an id").to_owned();
    within(deadline, "a task runs", async || {
        let answer = http.get(&format!("/result/{id}")).await;
        (answer.status == 200).then(|| assert_eq!(answer.json()["result"], 3))
    })
    .await;
}

fn openssl(directory: &std::path::Path, arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .expect("openssl is installed");
    assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A key and a certificate for 127.0.0.1, and the authority that signed it.
pub fn certificates() -> std::path::PathBuf {
    let directory = folder("certificates");
    openssl(&directory, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=tests");
    openssl(&directory, "req -newkey rsa:2048 -nodes -keyout redis.key -out redis.csr -subj /CN=redis");
    std::fs::write(directory.join("san"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("the folder is ours");
    openssl(
        &directory,
        "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out redis.pem -days 2 -extfile san",
    );
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_an_authority_of_one_s_own() {
    let directory = certificates();
    let (port, path) = (ports::free(), |name: &str| directory.join(name).display().to_string());
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", "0", "--tls-port", &port.to_string()]);
    command.args(["--tls-cert-file", &path("redis.pem"), "--tls-key-file", &path("redis.key")]);
    command.args(["--tls-ca-cert-file", &path("ca.pem"), "--tls-auth-clients", "no"]);
    command.arg("--dir").arg(folder("redis-data"));
    let mut redis = Process::start("redis-server", command);
    redis.wait_for_log("Ready to accept connections", FAILOVER);

    let celery_url = |database: u8| {
        format!("rediss://127.0.0.1:{port}/{database}?ssl_cert_reqs=required&ssl_ca_certs={}", path("ca.pem"))
    };
    let _celery = Celery::start_at(&celery_url(0), &celery_url(1), CeleryOptions::default());
    // The broker's URL as Celery writes it, the backend's as we do.
    let backend = format!("rediss://127.0.0.1:{port}/1");
    let config = format!("[backend]\ntls_ca = '{}'\n", path("ca.pem"));
    let gateway = Gateway::serve(&cluster().migrated_database(), &celery_url(0), &backend, &config);
    run(&gateway.http(), FAILOVER).await;

    // A client that does not trust the authority cannot connect.
    let strange = Gateway::serve(&cluster().migrated_database(), &backend, &backend, "");
    let ready = strange.http().get("/readyz").await.json();
    assert_ne!(ready["redis"], "ok", "{ready}");
}

/// A master, a replica and their Sentinel.
struct Deployment {
    master: Process,
    _replica: Process,
    _sentinel: Process,
    sentinel: u16,
    replica_port: u16,
}

fn server(port: u16, more: &[&str]) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0", "--port", &port.to_string()]);
    command.args(more).arg("--dir").arg(folder("redis-data"));
    Process::start("redis-server", command)
}

fn ask<T: redis::FromRedisValue>(port: u16, words: &[&str]) -> Option<T> {
    let mut connection = redis::Client::open(format!("redis://127.0.0.1:{port}/")).ok()?.get_connection().ok()?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query(&mut connection).ok()
}

impl Deployment {
    fn start() -> Self {
        let (master_port, replica_port, sentinel) = (ports::free(), ports::free(), ports::free());
        let master = server(master_port, &[]);
        let replica = server(replica_port, &["--replicaof", "127.0.0.1", &master_port.to_string()]);
        blocking(FAILOVER, "the replica follows", || {
            let info: String = ask(replica_port, &["INFO", "replication"])?;
            info.contains("master_link_status:up").then_some(())
        });
        let directory = folder("sentinel");
        let config = format!(
            "bind 127.0.0.1\nport {sentinel}\ndir {}\nsentinel monitor fleet 127.0.0.1 {master_port} 1\n\
             sentinel down-after-milliseconds fleet 1000\nsentinel failover-timeout fleet 3000\n",
            directory.display()
        );
        std::fs::write(directory.join("sentinel.conf"), config).expect("the folder is ours");
        let mut command = Command::new("redis-server");
        command.arg(directory.join("sentinel.conf")).arg("--sentinel");
        let process = Process::start("redis-sentinel", command);
        blocking(FAILOVER, "the Sentinel knows the replica", || {
            let replicas: Vec<redis::Value> = ask(sentinel, &["SENTINEL", "REPLICAS", "fleet"])?;
            (replicas.len() == 1).then_some(())
        });
        Self { master, _replica: replica, _sentinel: process, sentinel, replica_port }
    }

    fn url(&self, database: u8) -> String {
        format!("sentinel://127.0.0.1:{}/{database}", self.sentinel)
    }
}

async fn a_failover_is_followed(version: Version) {
    let mut redis = Deployment::start();
    let settings = json!({
        "broker_transport_options": {"master_name": "fleet"},
        "result_backend_transport_options": {"master_name": "fleet"},
    });
    let celery = CeleryOptions { version, settings, ..CeleryOptions::default() };
    let _celery = Celery::start_at(&redis.url(0), &redis.url(1), celery);
    let config = "[broker]\nsentinel_master = 'fleet'\n[backend]\nsentinel_master = 'fleet'\n";
    let gateway = Gateway::serve(&cluster().migrated_database(), &redis.url(0), &redis.url(1), config);
    let http = gateway.http();
    run(&http, FAILOVER).await;

    redis.master.kill();
    // Accepted while there is no master.
    let meanwhile = http.post("/v1/tasks", &json!({"task": "demo.add", "args": [2, 2]})).await.expect(202);
    within(FAILOVER, "the replica is promoted", async || {
        let role: Vec<redis::Value> = ask(redis.replica_port, &["ROLE"])?;
        (role.first() == Some(&redis::Value::BulkString(b"master".to_vec()))).then_some(())
    })
    .await;
    run(&http, FAILOVER).await;
    let id = meanwhile["task_id"].as_str().expect("an id");
    within(FAILOVER, "what was accepted meanwhile is done", async || {
        (http.get(&format!("/result/{id}")).await.status == 200).then_some(())
    })
    .await;
    // Events arrive from the new master: only they name the worker.
    let task = within(FAILOVER, "an event said who ran it", async || {
        let task = http.get(&format!("/v1/tasks/{id}")).await.expect(200);
        (!task["worker"].is_null()).then_some(task)
    })
    .await;
    assert_eq!((&task["result"], &task["worker"]), (&json!(4), &json!("w1@test")), "{task}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_followed_with_the_newest_celery() {
    a_failover_is_followed(Version::Latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_followed_with_the_older_celery() {
    a_failover_is_followed(Version::Older).await;
}
