//! What `taskgate dev` prints to try out: under each configuration the printed commands are pasted into a shell in another folder, as a
//! person would, and each must do what it says.

use std::process::{Command, Output};

use toml::Table;

use crate::harness::gateway::binary;
use crate::harness::postgres::cluster;
use crate::harness::{Gateway, Redis, RedisOptions, ports};

/// The test's `curl` fails where the gateway refuses; a stream that still runs after two seconds is fine.
const SHELL: &str = r#"set -e
curl() {
  case "$*" in
    *' -N '*|'-N '*) command curl -sS -f -m 2 "$@" || [ $? = 28 ] ;;
    *) command curl -sS -f -m 60 "$@" ;;
  esac
}
"#;

/// A `dev` with this configuration, listening on a free port of `host`.
fn dev(host: &str, config: &str) -> Gateway {
    let port = ports::free();
    let config: Table = config.parse().expect("TOML");
    let listen = format!("{host}:{port}");
    let gateway =
        Gateway::start(&["dev", "--data", "its data"], port, Some(&config), &[("TASKGATE_HTTP__LISTEN", &listen)]);
    ready(gateway)
}

/// The addresses are printed before dev answers; it is ready when its own log says so.
fn ready(mut gateway: Gateway) -> Gateway {
    gateway.wait_for_log("listening");
    gateway
}

/// The indented commands among the printed lines.
fn commands(log: &str) -> Vec<String> {
    let is_command = |line: &&str| line.starts_with("  curl ") || line.starts_with("  export ");
    log.lines().filter(is_command).map(|line| line.trim().to_owned()).collect()
}

/// Pastes all commands into one shell.
async fn pasted(gateway: &Gateway) -> Output {
    let commands = commands(&gateway.log());
    assert!(commands.len() >= 2, "{}", gateway.log());
    let script = format!("{SHELL}{}\n", commands.join("\n"));
    let elsewhere = tempfile::tempdir().expect("a folder");
    let path = format!("{}:{}", binary().parent().expect("a folder").display(), std::env::var("PATH").expect("a path"));
    let run = move || {
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).current_dir(elsewhere.path()).env("PATH", path);
        shell.output().expect("bash is there")
    };
    tokio::task::spawn_blocking(run).await.expect("it does not panic")
}

async fn all_work(gateway: &Gateway) -> String {
    let done = pasted(gateway).await;
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{}\nsaid {out}\n{err}", gateway.log());
    out.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sample_s_commands_run_its_tasks() {
    let said = all_work(&dev("127.0.0.1", "")).await;
    assert!(said.contains("\"result\":5"), "the task was waited for: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tokens_the_first_command_makes_one() {
    let said = all_work(&dev("127.0.0.1", "auth = 'token'")).await;
    assert!(said.contains("\"result\":5"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_in_postgresql_is_the_one_that_gets_the_token() {
    let database = cluster().migrated_database();
    let gateway = dev("127.0.0.1", &format!("auth = 'token'\ndatabase.url = '{database}'"));
    let said = all_work(&gateway).await;
    assert!(said.contains("\"result\":5"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_another_broker_nothing_is_submitted_unasked() {
    let redis = Redis::start(RedisOptions::default());
    let gateway = dev("127.0.0.1", &format!("broker.url = '{}'\nbackend.url = '{}'", redis.url(3), redis.url(4)));
    all_work(&gateway).await;
    let log = gateway.log();
    assert!(log.contains("takes tasks from the queues of that broker") && !log.contains("may join"), "{log}");
    let schedules = gateway.http().get("/v1/schedules").await.expect(200);
    assert_eq!(schedules["schedules"], serde_json::json!([]), "nothing is submitted by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_of_one_s_own_is_what_the_commands_name() {
    let config =
        "submit.allow = []\n[[tasks]]\nname = 'app.send'\nendpoint = 'POST /send'\ncommand = ['echo', '\"sent\"']\n";
    let gateway = dev("127.0.0.1", config);
    let said = all_work(&gateway).await;
    assert!(said.contains("sent") && !gateway.log().contains("tasks.add"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_path_and_another_queue_are_in_the_commands() {
    let gateway = dev("127.0.0.1", "http.base_path = '/gate'\nbroker.default_queue = 'mail'");
    all_work(&gateway).await;
    assert!(gateway.log().contains("celery -A yourapp worker -Q mail"), "{}", gateway.log());
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out() {
    let port = ports::free();
    let listen = format!("127.0.0.1:{port}");
    let taken = std::net::TcpListener::bind(&listen).expect("it is free");
    let done = crate::harness::gateway::run(&["dev", "--listen", &listen], &[]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success());
    assert!(said.contains(&listen) && said.contains("--listen 127.0.0.1:PORT chooses another port"), "{said}");
    drop(taken);
}
