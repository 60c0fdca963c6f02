//! Tokens: created, used, refused, limited, revoked; and tickets in place of tokens.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Guarded, create};
use crate::harness::gateway::run;
use crate::harness::postgres::cluster;
use crate::harness::{Gateway, Stopwatch, eventually, ports};

fn listed(database: &str, name: &str) -> Value {
    let done = run(&["token", "list", "--json"], &[("DATABASE_URL", database)]);
    let tokens: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let found = tokens["tokens"].as_array().expect("a list").iter().find(|token| token["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("no {name} in {tokens}"))
}

fn ids(answer: &Value) -> Vec<String> {
    let tasks = answer["tasks"].as_array().unwrap_or_else(|| panic!("no tasks in {answer}"));
    tasks.iter().map(|task| task["task_id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn a_caller_without_a_valid_token_is_sent_away_with_a_challenge() {
    let guarded = Guarded::shared();
    let http = guarded.gateways[0].http();
    for path in ["/v1/tasks", "/result/x", "/v1/events", "/v1/workers", "/metrics"] {
        let answer = http.get(path).await;
        answer.problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"taskgate\""), "{path}");
    }
    http.post("/v1/tasks", &json!({"task": "demo.add"})).await.problem(401, "unauthorized");
    http.post("/add", &json!({"x": 1, "y": 2})).await.problem(401, "unauthorized");
    let never = format!("tg_{}", "A".repeat(43));
    for (header, told) in [
        (format!("Bearer {never}"), "error=\"invalid_token\""),
        ("Bearer nonsense".to_owned(), "error=\"invalid_token\""),
        ("Basic eDp5".to_owned(), "realm="),
    ] {
        let answer = http.get_with("/v1/tasks", &[("authorization", &header)]).await;
        answer.problem(401, "unauthorized");
        assert!(answer.header("www-authenticate").is_some_and(|challenge| challenge.contains(told)), "{header}");
    }
    // Health, the list of problems and the contract need no token.
    for path in ["/livez", "/readyz", "/openapi.json", "/problems/unauthorized", "/dashboard/", "/swagger-ui/"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
    http.get("/nothing/here").await.problem(404, "route-not-found");
}

#[tokio::test]
async fn a_token_is_shown_once_and_kept_as_a_hash() {
    let guarded = Guarded::shared();
    let token = guarded.token(&["--name", "once", "--scope", "submit,read", "--expires", "90d"]);
    assert!(token.starts_with("tg_") && token.len() == 46, "{token}");
    let shown = listed(&guarded.database, "once");
    assert_eq!(shown["scopes"], json!(["submit", "read"]));
    assert!(!shown.to_string().contains(&token));
    let pool = sqlx::PgPool::connect(&guarded.database).await.expect("the cluster runs");
    let rows: Vec<String> = sqlx::query_scalar("select row_to_json(t)::text from taskgate.token t")
        .fetch_all(&pool)
        .await
        .expect("a query");
    assert!(rows.iter().all(|row| !row.contains(&token[3..])));
    let again = run(&["token", "create", "--name", "once", "--scope", "read"], &[("DATABASE_URL", &guarded.database)]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("once"));
    // It works at once, on every replica.
    for replica in [0, 1] {
        guarded.caller(replica, &token).get("/v1/tasks").await.expect(200);
    }
    eventually("the last use is recorded", async || {
        listed(&guarded.database, "once")["last_used_at"].is_string().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_missing_scope_is_named() {
    let guarded = Guarded::shared();
    let reader = guarded.caller(0, &guarded.token(&["--name", "reader", "--scope", "read"]));
    let submitter = guarded.caller(1, &guarded.token(&["--name", "submitter", "--scope", "submit"]));
    let refused = reader.post("/v1/tasks", &json!({"task": "demo.add"})).await;
    assert!(refused.problem(403, "insufficient-scope")["detail"].as_str().is_some_and(|text| text.contains("submit")));
    assert!(refused.header("www-authenticate").is_some_and(|challenge| challenge.contains("scope=\"submit\"")));
    let id = submitter.post("/v1/tasks", &json!({"task": "demo.add"})).await.expect(202)["task_id"].clone();
    let id = id.as_str().expect("an id");
    submitter.get(&format!("/result/{id}")).await.problem(403, "insufficient-scope");
    reader.get(&format!("/result/{id}")).await.expect(202);
    let revoke = format!("/v1/tasks/{id}/revoke");
    assert!(
        reader.post(&revoke, &json!({})).await.problem(403, "insufficient-scope")["detail"]
            .as_str()
            .is_some_and(|text| text.contains("control"))
    );
    guarded.caller(0, &guarded.admin).post(&revoke, &json!({})).await.expect(200);
}

#[tokio::test]
async fn a_revoked_token_is_refused_by_every_replica_within_a_second_and_its_streams_end() {
    let guarded = Guarded::shared();
    let token = guarded.token(&["--name", "leaver", "--scope", "read"]);
    let callers = [guarded.caller(0, &token), guarded.caller(1, &token)];
    for caller in &callers {
        caller.get("/v1/tasks").await.expect(200);
    }
    let header = format!("Bearer {token}");
    let mut stream = callers[1].http.events("/v1/events", &[("authorization", &header)]).await;
    let done = run(&["token", "revoke", "leaver"], &[("DATABASE_URL", &guarded.database)]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let revoked = Stopwatch::start();
    for caller in &callers {
        let refused = eventually("the token is refused", async || {
            let answer = caller.get("/v1/tasks").await;
            (answer.status == 401).then_some(answer)
        })
        .await;
        refused.problem(401, "unauthorized");
    }
    // One second is promised; the rest is for a machine that is busy with other tests.
    assert!(revoked.elapsed() < Duration::from_secs(3), "{:?}", revoked.elapsed());
    while stream.next().await.is_some() {}
    let again = run(&["token", "revoke", "leaver"], &[("DATABASE_URL", &guarded.database)]);
    assert_eq!(again.status.code(), Some(1));
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let guarded = Guarded::shared();
    let token = guarded.token(&["--name", "brief", "--scope", "read", "--expires", "2s"]);
    let caller = guarded.caller(0, &token);
    eventually("the token has expired", async || (caller.get("/v1/tasks").await.status == 401).then_some(())).await;
}

#[tokio::test]
async fn a_limited_token_submits_and_sees_its_own_tasks_only() {
    let guarded = Guarded::shared();
    let admin = guarded.caller(0, &guarded.admin);
    let limited = guarded.token(&["--name", "limited", "--scope", "submit:demo.mine.*", "--scope", "read,control"]);
    let limited = guarded.caller(1, &limited);
    let own = limited.post("/v1/tasks", &json!({"task": "demo.mine.a"})).await.expect(202);
    let own = own["task_id"].as_str().expect("an id");
    let others = admin.post("/v1/tasks", &json!({"task": "demo.theirs", "labels": {"a": "b"}})).await.expect(202);
    let others = others["task_id"].as_str().expect("an id");
    // Submitting: the limit applies to every name in the call.
    for call in [
        json!({"task": "demo.theirs"}),
        json!({"task": "demo.mine.a", "link": [{"task": "demo.theirs"}]}),
        json!({"chain": [{"task": "demo.mine.a"}, {"task": "demo.theirs"}]}),
    ] {
        limited.post("/v1/tasks", &call).await.problem(403, "task-not-allowed");
    }
    limited.post("/add", &json!({"x": 1, "y": 2})).await.problem(403, "task-not-allowed");
    let batch = limited.post("/v1/tasks/batch", &json!([{"task": "demo.mine.b"}, {"task": "demo.theirs"}])).await;
    let batch = batch.expect(202);
    assert_eq!((&batch["accepted"], &batch["rejected"]), (&json!(1), &json!(1)), "{batch}");
    limited
        .post("/v1/tasks/batch?atomic=true", &json!([{"task": "demo.mine.b"}, {"task": "demo.theirs"}]))
        .await
        .problem(403, "task-not-allowed");
    // Reading: tasks outside of the limit do not exist for it.
    for path in ["/result/{}", "/v1/tasks/{}", "/v1/tasks/{}/events", "/v1/tasks/{}/graph", "/v1/tasks/{}/explain"] {
        limited.get(&path.replace("{}", others)).await.problem(404, "task-not-found");
        if !path.ends_with("events") {
            assert!(limited.get(&path.replace("{}", own)).await.status < 300, "{path}");
        }
    }
    for path in ["/v1/tasks/{}/revoke", "/v1/tasks/{}/retry", "/v1/dead-letters/{}/requeue"] {
        limited.post(&path.replace("{}", others), &json!({})).await.problem(404, "task-not-found");
    }
    let seen = ids(&limited.get("/v1/tasks?limit=500").await.expect(200));
    assert!(seen.contains(&own.to_owned()) && !seen.contains(&others.to_owned()));
    assert!(ids(&admin.get("/v1/tasks?limit=500").await.expect(200)).contains(&others.to_owned()));
    assert!(ids(&limited.get(&format!("/v1/tasks?q={others}")).await.expect(200)).is_empty());
    assert!(ids(&limited.get("/v1/tasks?task=demo.theirs").await.expect(200)).is_empty());
    // A group is visible if all its members are.
    let mixed = json!({"tasks": [{"task": "demo.mine.a"}, {"task": "demo.theirs"}]});
    let mixed = admin.post("/group", &mixed).await.expect(202)["group_id"].clone();
    limited.get(&format!("/result/{}", mixed.as_str().expect("an id"))).await.problem(404, "task-not-found");
    let whole = limited.post("/group", &json!({"tasks": [{"task": "demo.mine.a"}]})).await.expect(202);
    limited.get(&format!("/result/{}", whole["group_id"].as_str().expect("an id"))).await.expect(202);
    // Operations on the whole fleet are closed.
    for path in ["/v1/queues", "/v1/workers", "/v1/incidents", "/v1/inspect/active", "/metrics"] {
        limited.get(path).await.problem(403, "token-limited");
    }
    limited.post("/v1/control/shutdown", &json!({})).await.problem(403, "token-limited");
    // Statistics cover only its tasks.
    let accepted = |answer: Value| {
        let points = answer["points"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        points.iter().filter_map(|point| point["accepted"].as_i64()).sum::<i64>()
    };
    eventually("figures of both are counted", async || {
        let all = accepted(admin.get("/v1/stats/throughput").await.expect(200));
        let own = accepted(limited.get("/v1/stats/throughput").await.expect(200));
        (own >= 3 && all > own).then_some(())
    })
    .await;
    assert_eq!(accepted(limited.get("/v1/stats/throughput?task=demo.theirs").await.expect(200)), 0);
}

#[tokio::test]
async fn a_limited_token_keeps_to_its_own_schedules() {
    let guarded = Guarded::shared();
    let admin = guarded.caller(0, &guarded.admin);
    let limited =
        guarded.token(&["--name", "planner", "--scope", "submit,read,control", "--tasks", "demo.plan.*,demo.other"]);
    let limited = guarded.caller(0, &limited);
    let schedule = |name: &str, task: &str| json!({"name": name, "task": task, "every": 3600, "paused": true});
    admin.post("/v1/schedules", &schedule("theirs", "demo.add")).await.expect(201);
    limited.post("/v1/schedules", &schedule("mine", "demo.plan.a")).await.expect(201);
    limited.post("/v1/schedules", &schedule("wished", "demo.add")).await.problem(403, "task-not-allowed");
    let patched = limited.send(Method::PATCH, "/v1/schedules/mine", Some(&json!({"task": "demo.add"}))).await;
    patched.problem(403, "task-not-allowed");
    for (method, path) in [
        (Method::GET, "/v1/schedules/theirs"),
        (Method::GET, "/v1/schedules/theirs/runs"),
        (Method::GET, "/v1/schedules/theirs/preview"),
        (Method::DELETE, "/v1/schedules/theirs"),
        (Method::POST, "/v1/schedules/theirs/run"),
        (Method::POST, "/v1/schedules/theirs/resume"),
    ] {
        limited.send(method, path, None).await.problem(404, "schedule-not-found");
    }
    let listed = limited.get("/v1/schedules?limit=500").await.expect(200);
    let names: Vec<&Value> = listed["schedules"].as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["mine"]);
    limited.send(Method::POST, "/v1/schedules/mine/run", None).await.expect(202);
}

#[tokio::test]
async fn the_same_idempotency_key_of_two_tokens_is_two_keys() {
    let guarded = Guarded::shared();
    let one = guarded.token(&["--name", "key-one", "--scope", "submit"]);
    let other = guarded.token(&["--name", "key-other", "--scope", "submit"]);
    let http = guarded.gateways[0].http();
    let mut ids = Vec::new();
    for token in [&one, &other, &one] {
        let header = format!("Bearer {token}");
        let headers = [("authorization", header.as_str()), ("idempotency-key", "the-same")];
        let accepted = http.post_with("/v1/tasks", &headers, &json!({"task": "demo.add"})).await.expect(202);
        ids.push(accepted["task_id"].clone());
    }
    assert!(ids[0] != ids[1] && ids[0] == ids[2], "{ids:?}");
}

#[tokio::test]
async fn a_ticket_opens_one_stream_at_any_replica() {
    let guarded = Guarded::shared();
    let reader = guarded.token(&["--name", "viewer", "--scope", "read", "--tasks", "demo.seen"]);
    let reader = guarded.caller(0, &reader);
    let admin = guarded.caller(0, &guarded.admin);
    let id = admin.post("/v1/tasks", &json!({"task": "demo.seen"})).await.expect(202)["task_id"].clone();
    let id = id.as_str().expect("an id");
    let ticket = async || {
        let answer = reader.post("/v1/stream-tickets", &json!({})).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer.expect(201)["ticket"].as_str().expect("a ticket").to_owned()
    };
    let stranger = guarded.gateways[1].http();
    let first = ticket().await;
    let path = format!("/v1/tasks/{id}/events");
    let mut stream = stranger.events(&format!("{path}?ticket={first}"), &[]).await;
    assert_eq!(stream.next().await.expect("a snapshot").event, "snapshot");
    stranger.get(&format!("{path}?ticket={first}")).await.problem(401, "unauthorized");
    stranger.get(&format!("{path}?ticket=tgt_{}", "A".repeat(43))).await.problem(401, "unauthorized");
    // The cursor is in the address too; the filters and the token's limit stay.
    let mut replay = stranger.events(&format!("{path}?last_event_id=0&ticket={}", ticket().await), &[]).await;
    assert_eq!(replay.next().await.expect("the first event").event, "state");
    let feed = format!("/v1/events?last_event_id=0&task=demo.seen,demo.unseen&ticket={}", ticket().await);
    let mut feed = stranger.events(&feed, &[]).await;
    admin.post("/v1/tasks", &json!({"task": "demo.unseen"})).await.expect(202);
    let second = admin.post("/v1/tasks", &json!({"task": "demo.seen"})).await.expect(202);
    loop {
        let event = feed.next().await.expect("the feed goes on").json();
        assert_ne!(event["task"], "demo.unseen", "{event}");
        if event["task_id"] == second["task_id"] {
            break;
        }
    }
    // Only streams accept tickets.
    let answer = stranger.get(&format!("/v1/tasks/{id}?ticket={}", ticket().await)).await;
    answer.problem(401, "unauthorized");
}

#[tokio::test]
async fn serve_starts_when_there_is_a_token_and_says_how_to_make_one() {
    let database = cluster().migrated_database();
    let nobody = format!("redis://127.0.0.1:{}/0", ports::free());
    let mut first = Gateway::launch(&database, &nobody, &nobody, "auth = 'token'");
    assert_eq!(first.wait(Duration::from_secs(15)), Some(1));
    assert!(first.log().contains("taskgate token create"), "{}", first.log());
    let token = create(&database, &["--name", "first", "--scope", "submit,read"]);
    let gateway = Gateway::serve(&database, &nobody, &nobody, "auth = 'token'");
    let header = format!("Bearer {token}");
    gateway.http().get_with("/v1/tasks", &[("authorization", &header)]).await.expect(200);
}

#[tokio::test]
async fn a_fan_out_of_a_foreign_name_is_refused_however_large() {
    let guarded = Guarded::shared();
    let token = guarded.token(&["--name", "adder", "--scope", "submit", "--tasks", "tasks.add"]);
    let adder = guarded.caller(0, &token);
    for end in [10, 100_000] {
        let body = json!({"start": 0, "end": end, "size": 10});
        assert_eq!(adder.post("/reindex-notices", &body).await.status, 403);
    }
}
