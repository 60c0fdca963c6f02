//! The most that the machine can do: an axum handler that only answers, `redis-benchmark`, and `pgbench` with the task's row.

use std::process::Command;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;

use super::harness::process::{Process, folder};
use super::harness::{celery, gateway, ports, postgres, wait};
use super::load::{self, Load, Rate, Target};
use super::usage::Servers;
use super::{Bench, SPAN};

/// The row that a submission writes, in its own transaction: the difference to the gateway's rate is what group commit saves.
const INSERT: &str = r#"insert into bench_task (task_no, submitted_at, id, kind_no, priority, ignore_result, adopted, body)
  values (nextval('bench_no'), 1700000000000000, gen_random_uuid(), 1, 0, false, false, '[[2, 3], {}, {}]');
"#;
const TABLE: &str = "create table bench_task (like taskgate.task including all); create sequence bench_no";

/// `--floor=PORT`: runs this program as a server whose handler only answers.
pub fn serve(port: u16) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let body = r#"{"task_id":"019ab000-0000-7000-8000-000000000000","status":"PENDING","phase":"accepted"}"#;
        let app = Router::new().route("/v1/tasks", post(move |_: String| async move { (StatusCode::ACCEPTED, body) }));
        axum::serve(listener, app).await.expect("serving does not end");
    });
}

pub async fn measure(bench: &mut Bench) {
    let empty = empty_handler().await;
    bench.table.row("floor: an axum handler that only answers, 32 connections", &empty, &[]);
    let pushes = pushes(bench);
    bench.table.row("floor: redis-benchmark, LPUSH, 32 connections", &pushes, &[]);
    let inserts = inserts(bench);
    bench.table.row("floor: pgbench, the same row, a transaction each, 32 connections", &inserts, &[]);
}

pub async fn empty_handler() -> Rate {
    let port = ports::free();
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg(format!("--floor={port}"));
    let server = Process::start("floor", command);
    wait::blocking(SPAN, "the floor answers", || gateway::probe(port, "/"));
    let target = Target::of(&format!("http://127.0.0.1:{port}"));
    let load = Load::post(&target, "/v1/tasks", r#"{"task": "demo.add", "args": [2, 3], "queue": "bench"}"#, 32);
    load::run(&load, SPAN, &Servers::of(&[server.id()])).await
}

fn pushes(bench: &Bench) -> Rate {
    let mut command = Command::new("redis-benchmark");
    command.args([
        "-p",
        &bench.redis.port.to_string(),
        "-c",
        "32",
        "-n",
        "300000",
        "-d",
        "1000",
        "-t",
        "lpush",
        "--csv",
    ]);
    let told = run(command);
    bench.redis.command::<()>(0, &["DEL", "mylist"]);
    // "test","rps",… then "LPUSH…","123.4",…
    let rate = told.lines().last().and_then(|line| line.split(',').nth(1)?.trim_matches('"').parse().ok());
    Rate::told(rate.unwrap_or_else(|| panic!("redis-benchmark said {told}")))
}

fn inserts(bench: &Bench) -> Rate {
    postgres::query(&bench.database, TABLE);
    let script = folder("pgbench").join("insert.sql");
    std::fs::write(&script, INSERT.replace('\n', " ").replace("; ", ";\n")).expect("the folder is ours");
    let mut command = Command::new(postgres::program("pgbench"));
    command.args(["-n", "-c", "32", "-j", "1", "-M", "prepared", "-T", &SPAN.as_secs().to_string(), "-f"]);
    let told = run({
        command.arg(script).arg(&bench.database);
        command
    });
    postgres::query(&bench.database, "drop table bench_task; drop sequence bench_no");
    let rate = told.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    Rate::told(rate.unwrap_or_else(|| panic!("pgbench said {told}")))
}

fn run(mut command: Command) -> String {
    let done = command.current_dir(celery::root()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}
