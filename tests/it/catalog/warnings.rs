//! A task that no worker would run is accepted with a warning, or refused if its entry is strict.

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::{CeleryOptions, eventually};

fn codes(accepted: &Value) -> Vec<&str> {
    let warnings = accepted["warnings"].as_array().map_or(&[][..], Vec::as_slice);
    warnings.iter().map(|warning| warning["code"].as_str().expect("a word")).collect()
}

#[tokio::test]
async fn an_accepted_task_that_nobody_would_run_has_a_warning() {
    let env = Harness::start(&Options::default());
    let known = json!({"task": "demo.identity", "args": [1]});
    let stray = json!({"task": "demo.nobody_has_it"});
    let unread = json!({"task": "demo.identity", "args": [1], "queue": "nobody-reads-it"});
    let accepted = eventually("the gateway knows the worker's tasks", async || {
        let accepted = env.http.post("/v1/tasks", &stray).await.expect(202);
        (codes(&accepted) == ["unregistered"]).then_some(accepted)
    })
    .await;
    let detail = accepted["warnings"][0]["detail"].as_str().expect("a sentence");
    assert!(detail.contains("demo.nobody_has_it") && detail.contains("celery"), "{detail}");
    let accepted = env.http.post("/v1/tasks", &known).await.expect(202);
    assert!(accepted.get("warnings").is_none(), "{accepted}");
    let accepted = env.http.post("/v1/tasks", &unread).await.expect(202);
    assert_eq!(codes(&accepted), ["unserved"], "{accepted}");
    let accepted = env.http.post("/group", &json!({"tasks": [known, unread, stray, stray]})).await.expect(202);
    assert_eq!(codes(&accepted), ["unserved", "unregistered"], "each kind of task once: {accepted}");
    for atomic in [false, true] {
        let path = format!("/v1/tasks/batch?atomic={atomic}");
        let accepted = env.http.post(&path, &json!([known, unread])).await.expect(202);
        let codes: Vec<_> = accepted["items"].as_array().expect("a list").iter().map(codes).collect();
        assert_eq!(codes, [&[][..], &["unserved"]], "{accepted}");
    }
}

#[tokio::test]
async fn a_strict_entry_refuses_what_nobody_would_run_and_takes_it_when_somebody_does() {
    let config = r#"
        [[tasks]]
        name = "demo.identity"
        endpoint = "POST /strict"
        args = ["{value}"]
        queue = "strict"
        strict = true
        [tasks.body]
        type = "object"
        properties.value = { type = "integer" }
    "#;
    let mut env = Harness::start(&Options { config: config.into(), without_worker: true, ..Options::default() });
    let body = json!({"value": 7});
    let answer = eventually("the gateway knows that no worker is there", async || {
        let answer = env.http.post("/strict", &body).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    let detail = answer.problem(422, "nobody-runs-it")["detail"].to_string();
    assert!(detail.contains("demo.identity") && detail.contains("strict"), "{detail}");
    let by_name = json!({"task": "demo.identity", "args": [7]});
    env.http.post("/v1/tasks", &by_name).await.problem(422, "nobody-runs-it");
    env.http
        .post("/chain", &json!({"tasks": [by_name, {"task": "demo.identity"}]}))
        .await
        .problem(422, "nobody-runs-it");
    env.start_worker(CeleryOptions { queues: "strict".into(), ..CeleryOptions::default() });
    let done = eventually("it is taken once a worker is there", async || {
        let answer = env.http.post_with("/strict", &[("prefer", "wait=60")], &body).await;
        (answer.status != 422).then_some(answer)
    })
    .await;
    assert_eq!(done.expect(200)["result"], 7);
}

#[tokio::test]
async fn a_filter_that_no_task_can_fit_is_refused_with_what_was_meant() {
    let env = Harness::shared();
    for (query, meant) in [
        ("status=succes", "did you mean SUCCESS?"),
        ("status=failure", "did you mean FAILURE?"),
        ("status=running", "write phase=running"),
        ("phase=run", "none of"),
    ] {
        let problem = env.http.get(&format!("/v1/tasks?{query}")).await.problem(400, "invalid-query");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(meant)), "{query}: {problem}");
    }
    for query in ["status=SUCCESS,FAILURE", "status=PROGRESS", "status=DOWNLOADING", "phase=running"] {
        env.http.get(&format!("/v1/tasks?{query}")).await.expect(200);
    }
}
