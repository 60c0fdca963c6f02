//! `GET /result/{id}` for finished and unfinished tasks, compared with FastAPI and Celery's `AsyncResult`.

use serde_json::{Value, json};

use super::harness::{Celery, CeleryOptions};
use super::load::{self, Load, Target};
use super::peer::Peer;
use super::{Bench, SPAN};

/// Results that are requested in turn.
const TASKS: usize = 1_000;

pub async fn measure(bench: &mut Bench) {
    bench.table.heading(&format!("GET /result/{{id}} of {TASKS} tasks in turn, 32 connections"));
    let http = bench.http();
    let celery = Celery::start(&bench.redis, CeleryOptions::default());
    let group = json!({"tasks": vec![json!({"task": "demo.add", "args": [1, 1]}); TASKS]});
    let done = http.post_with("/group", &[("Prefer", "wait=60")], &group).await.expect(200);
    drop(celery);
    let waiting = json!({"tasks": vec![json!({"task": "demo.add", "args": [1, 1], "queue": "bench"}); TASKS]});
    let waiting = http.post("/group", &waiting).await.expect(202);
    let (done, waiting) = (paths(bench, &done).await, paths(bench, &waiting).await);
    let theirs = match Peer::fastapi(&bench.redis, &bench.cluster, false) {
        Some(peer) => {
            let load = Load::get(&Target::of(&peer.base), &done, 32);
            Some(load::run(&load, SPAN, &peer.servers()).await)
        }
        None => None,
    };
    let against: Vec<_> = theirs.iter().map(|rate| ("the peer", rate)).collect();
    if let Some(rate) = &theirs {
        bench.table.row("peer: FastAPI + AsyncResult, 2 processes, finished", rate, &[]);
    }
    for (name, paths) in [("finished", &done), ("waiting", &waiting)] {
        let load = Load::get(&bench.target(), paths, 32);
        let rate = load::run(&load, SPAN, &bench.servers()).await;
        bench.table.row(&format!("taskgate: {name}"), &rate, &against);
    }
}

/// The paths of the results of a group's members.
async fn paths(bench: &Bench, group: &Value) -> Vec<String> {
    let id = ["group_id", "task_id"].iter().find_map(|key| group[*key].as_str()).expect("an id");
    let mut found = Vec::with_capacity(TASKS);
    let mut path = format!("/v1/tasks?group_id={id}&limit=200");
    loop {
        let page = bench.http().get(&path).await.expect(200);
        let items = page["tasks"].as_array().expect("a list").iter();
        found.extend(items.map(|item| format!("/result/{}", item["task_id"].as_str().expect("an id"))));
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/tasks?group_id={id}&limit=200&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found.len(), TASKS);
    found
}
