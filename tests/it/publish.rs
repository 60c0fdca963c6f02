//! What the gateway puts into Redis, compared with what Celery itself puts there (rows R1, R2, R3, R8, S6).

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::celery::root;
use crate::harness::environment::{Harness, Options};
use crate::harness::{CeleryOptions, eventually};

fn without_worker(config: &str) -> Options {
    Options { without_worker: true, config: config.into(), ..Options::default() }
}

/// The only message of a list, once it is there.
async fn message(env: &Harness, key: &str) -> Value {
    let texts = eventually(&format!("a message in {key:?}"), async || {
        let texts: Vec<String> = env.redis.command(0, &["LRANGE", key, "0", "-1"]);
        (!texts.is_empty()).then_some(texts)
    })
    .await;
    assert_eq!(texts.len(), 1, "{texts:?}");
    serde_json::from_str(&texts[0]).expect("JSON")
}

fn body(envelope: &Value) -> Value {
    let bytes = STANDARD.decode(envelope["body"].as_str().expect("a text")).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Names and JSON kinds of an object's members.
fn shape(object: &Value) -> BTreeSet<(String, &'static str)> {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    object.as_object().expect("an object").iter().map(|(name, value)| (name.clone(), kind(value))).collect()
}

#[tokio::test]
async fn a_plain_task_is_written_as_celery_writes_it() {
    let env = Harness::start(&without_worker(""));
    let id = env.submit("demo.add", json!([2, 3])).await;
    let ours = message(&env, "celery").await;
    let vector = std::fs::read_to_string(root().join("tests/vectors/celery-5.7/task_plain.json")).expect("it is there");
    let vector: Value = serde_json::from_str(&vector).expect("JSON");
    let theirs = vector["commands"][0]["cmd"][2].as_str().expect("a message");
    let theirs: Value = serde_json::from_str(theirs).expect("JSON");
    assert_eq!(shape(&ours), shape(&theirs));
    assert_eq!(shape(&ours["properties"]), shape(&theirs["properties"]));
    let names = |message: &Value| shape(&message["headers"]).into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    let missing: Vec<_> = names(&theirs).difference(&names(&ours)).cloned().collect();
    assert!(missing.is_empty(), "headers that Celery writes and we do not: {missing:?}");
    assert_eq!(body(&ours), body(&theirs));
    let (headers, properties) = (&ours["headers"], &ours["properties"]);
    assert_eq!((&headers["id"], &headers["root_id"]), (&json!(id), &json!(id)));
    assert_eq!(properties["correlation_id"], id.as_str());
    assert_eq!(properties["delivery_info"], json!({"exchange": "", "routing_key": "celery"}));
    assert_eq!(headers["argsrepr"], "(2, 3)");
}

#[tokio::test]
async fn priorities_land_in_kombus_four_lists() {
    let env = Harness::start(&without_worker(""));
    for priority in 0..10 {
        env.submit_signature(json!({"task": "demo.add", "args": [1, 1], "priority": priority})).await;
    }
    for (key, expected) in
        [("celery", 3), ("celery\u{6}\u{16}3", 3), ("celery\u{6}\u{16}6", 3), ("celery\u{6}\u{16}9", 1)]
    {
        eventually(&format!("{expected} messages in {key:?}"), async || {
            (env.redis.command::<u32>(0, &["LLEN", key]) == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn routes_and_explicit_queues_decide_the_list() {
    let env = Harness::start(&without_worker(
        "submit.allow = ['*']\nroutes = { 'heavy_tasks.*' = 'heavy', 'heavy_tasks.light_one' = 'light' }",
    ));
    env.submit("heavy_tasks.anything", json!([])).await;
    env.submit("heavy_tasks.light_one", json!([])).await;
    env.submit_signature(json!({"task": "heavy_tasks.urgent_one", "queue": "urgent"})).await;
    assert_eq!(message(&env, "heavy").await["headers"]["task"], "heavy_tasks.anything");
    assert_eq!(message(&env, "light").await["headers"]["task"], "heavy_tasks.light_one");
    assert_eq!(message(&env, "urgent").await["headers"]["task"], "heavy_tasks.urgent_one");
}

#[tokio::test]
async fn limits_and_expiry_travel_in_the_message() {
    let env = Harness::start(&without_worker(""));
    let signature = json!({
        "task": "demo.add", "args": [1, 1], "soft_time_limit": 5, "time_limit": 10, "expires": 600, "ignore_result": true
    });
    env.submit_signature(signature).await;
    let headers = message(&env, "celery").await["headers"].clone();
    assert_eq!(headers["timelimit"], json!([10, 5]), "hard comes first");
    assert_eq!(headers["ignore_result"], true);
    assert!(headers["expires"].as_str().is_some_and(|time| time.contains('T')), "{headers}");
    assert_eq!(headers["eta"], Value::Null);
}

#[tokio::test]
async fn key_prefixes_keep_two_applications_apart() {
    let celery = CeleryOptions {
        settings: json!({
            "broker_transport_options": {"global_keyprefix": "app1:"},
            "result_backend_transport_options": {"global_keyprefix": "app1:"},
        }),
        // This is about keys; asking for events has its own tests.
        events: true,
        ..CeleryOptions::default()
    };
    let config = "broker.key_prefix = 'app1:'\nbackend.key_prefix = 'app1:'".to_owned();
    let env = Harness::start(&Options { celery, config, ..Options::default() });
    let stranger = env.redis.command::<String>(0, &["SET", "celery-task-meta-x", "not ours"]);
    assert_eq!(stranger, "OK");
    let done = env.run("demo.progress", json!([2, 0.05])).await;
    assert_eq!(done["result"], json!({"steps": 2}), "{done}");
    let keys: Vec<String> = env.redis.command(0, &["KEYS", "*"]);
    let foreign: Vec<_> = keys.iter().filter(|key| !key.starts_with("app1:") && *key != "celery-task-meta-x").collect();
    assert!(foreign.is_empty(), "keys without the prefix: {foreign:?}");
}
