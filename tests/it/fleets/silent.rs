//! Workers that send no events, as many production units start them.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::harness::celery::client;
use crate::harness::environment::{Harness, Options, Shared};
use crate::harness::{CeleryOptions, Version, eventually};

/// One gateway with a worker that sends nothing by itself.
fn silent() -> Shared {
    static ENVIRONMENT: OnceLock<Harness> = OnceLock::new();
    let arguments = ["--without-heartbeat", "--without-gossip", "--without-mingle"].map(str::to_owned).to_vec();
    // The test does not wait until it reports that events are on.
    let celery = CeleryOptions { arguments, awaits_events: false, ..CeleryOptions::default() };
    Shared::over(&ENVIRONMENT, &Options { celery, ..Options::default() })
}

async fn is_named(env: &Shared) -> Value {
    eventually("an incident names the worker", async || {
        let incidents = env.http.get("/v1/incidents").await.expect(200);
        let all = incidents["incidents"].as_array().expect("a list").clone();
        all.into_iter().find(|one| one["kind"] == "mute_worker" && one["subject"] == "w1@test")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_events_is_named_with_what_to_change() {
    let env = silent();
    let incident = is_named(&env).await;
    assert!(incident["detail"].as_str().is_some_and(|text| text.contains("--without-heartbeat")), "{incident}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_the_fleet_s_own_code_are_adopted_without_events() {
    let env = silent();
    // A task that waits, and a task that ends during the search.
    let (broker, backend) = (env.redis.url(0), env.redis.url(1));
    let program = "ids = [app.send_task('demo.add', (n, n)).id for n in range(3)]\n\
        ids.append(app.send_task('demo.add', (1, 1), queue='celery', countdown=600, priority=6).id)\nprint(*ids)";
    let printed =
        tokio::task::spawn_blocking(move || client(Version::Latest, &broker, &backend, program)).await.expect("it ran");
    let ids: Vec<String> = printed.split_whitespace().map(str::to_owned).collect();
    for id in &ids[..3] {
        eventually(&format!("{id} is adopted"), async || {
            let answer = env.http.get(&format!("/v1/tasks/{id}")).await;
            (answer.status == 200 && answer.json()["phase"] == "succeeded").then_some(())
        })
        .await;
    }
    let waiting = eventually("the one that waits is adopted", async || {
        let answer = env.http.get(&format!("/v1/tasks/{}", ids[3])).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(
        (&waiting["task"], &waiting["queue"], &waiting["priority"]),
        (&json!("demo.add"), &json!("celery"), &json!(6))
    );
}
