//! Large arguments and results of taskgate's own worker are kept in a store.

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::gateway::config;
use crate::harness::{Celery, CeleryOptions, Gateway, eventually};

const ENTRY: &str = r#"
[[tasks]]
name = "tasks.request_info"
endpoint = "POST /large"
args = ["{text}", "small"]
kwargs = { more = "{text}" }
queue = "celery"
offload = "256 KiB"
[tasks.body]
type = "object"
required = ["text"]
properties.text = { type = "string" }
"#;

fn environment(more: &str) -> (Lent<Box<Harness>>, String) {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let store = format!("[stores.default]\nurl = 'file://{}'\norphan_after = '1s'\nsweep = '1s'\n", folder.display());
    let all = format!("{store}{more}{ENTRY}");
    (Harness::start(&Options { config: all.clone(), without_worker: true, ..Options::default() }), all)
}

/// taskgate's own worker, with the same configuration.
async fn worker(env: &Lent<Box<Harness>>, extra: &str) -> Gateway {
    let all = config(0, &env.database, &env.redis.url(0), &env.redis.url(1), extra);
    let worker = Gateway::start(&["worker", "-Q", "celery"], 0, Some(&all), &[]);
    eventually("the worker is known", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        let served = workers["workers"].as_array()?.iter().any(|worker| worker["queues"] == json!(["celery"]));
        served.then_some(())
    })
    .await;
    worker
}

fn is_reference(value: &Value) -> bool {
    value["taskgate.offloaded"]["bytes"].as_u64().is_some_and(|bytes| bytes > 256 << 10)
}

#[tokio::test]
async fn large_arguments_and_results_of_our_worker_lie_in_the_store() {
    let (env, extra) = environment("[ledger]\nkeep_payload = '15s'\n");
    let _worker = worker(&env, &extra).await;
    let text = "x".repeat(1 << 20);
    let accepted = env.http.post("/large", &json!({"text": text})).await.expect(202);
    let id = accepted["task_id"].as_str().expect("an id");
    let done = env.finished(id).await;
    assert_eq!(done["status"], "SUCCESS", "{}", done["error"]);
    assert_eq!(
        done["result"]["args"],
        json!([text, "small"]),
        "the task got the whole, and so does who asks for its result"
    );
    assert_eq!(done["result"]["kwargs"], json!({"more": text}));
    let listed = env.http.get(&format!("/v1/tasks?label=taskgate.upload:{}", label(&env, id).await)).await.expect(200);
    assert_eq!(listed["tasks"].as_array().map(Vec::len), Some(1), "a label keeps its files");
    eventually("a pruned payload takes its files along", async || {
        let result = env.http.get(&format!("/result/{id}")).await.expect(200)["result"].clone();
        (is_reference(&result) || result.is_null()).then_some(())
    })
    .await;
}

async fn label(env: &Lent<Box<Harness>>, id: &str) -> String {
    let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
    task["labels"]["taskgate.upload"].as_str().unwrap_or_else(|| panic!("no label: {}", task["labels"])).to_owned()
}

/// Batches, canvases with all that follows in them, and schedules.
#[tokio::test]
async fn large_arguments_lie_in_the_store_however_the_task_is_submitted() {
    let (env, extra) = environment("");
    let _worker = worker(&env, &extra).await;
    let text = "z".repeat(300 << 10);
    // As the endpoint would call it.
    let call = json!({"task": "tasks.request_info", "args": [text, "small"], "kwargs": {"more": text}});
    let next =
        json!({"task": "tasks.request_info", "args": [text, "small"], "kwargs": {"more": text}, "immutable": true});
    let batch = env.http.post("/v1/tasks/batch", &json!([call, call])).await.expect(202);
    let atomic = env.http.post("/v1/tasks/batch?atomic=true", &json!([call, call])).await.expect(202);
    let ids = [&batch, &atomic].into_iter().flat_map(|answer| answer["items"].as_array().expect("a list"));
    let mut ids: Vec<String> = ids.map(|item| item["task_id"].as_str().expect("an id").to_owned()).collect();
    let members = json!([next, next]);
    let body = json!({"chord": {"header": members, "body": next}});
    let chain = env.http.post("/v1/tasks", &json!({"chain": [call, body, next]})).await.expect(202);
    let of_chain =
        env.http.get(&format!("/v1/tasks/{}/graph", chain["task_id"].as_str().expect("an id"))).await.expect(200);
    let nodes = of_chain["nodes"].as_array().expect("a list").iter();
    ids.extend(nodes.filter_map(|node| node["task_id"].as_str()).map(str::to_owned));
    let mut schedule = call.clone();
    (schedule["name"], schedule["every"]) = (json!("large"), json!(86_400));
    env.http.post("/v1/schedules", &schedule).await.expect(201);
    let run = env.http.post("/v1/schedules/large/run", &json!({})).await.expect(202);
    ids.push(run["task_id"].as_str().expect("an id").to_owned());
    assert_eq!(ids.len(), 4 + 5 + 1, "{ids:?} of {of_chain}");
    for id in &ids {
        let done = env.finished(id).await;
        assert_eq!(done["status"], "SUCCESS", "{}", done["error"]);
        assert_eq!(
            (&done["result"]["args"], &done["result"]["kwargs"]["more"]),
            (&json!([text, "small"]), &json!(text)),
            "{id}"
        );
        let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
        assert!(is_reference(&task["args"][0]) && is_reference(&task["kwargs"]["more"]), "{id}: {}", task["args"]);
        let message = env.http.get(&format!("/v1/tasks/{id}/message")).await;
        assert!(message.status != 200 || message.text().len() < 64 << 10, "{id}: {} bytes", message.text().len());
    }
}

#[tokio::test]
async fn where_a_python_worker_reads_the_queue_arguments_stay_in_the_message() {
    let (env, _) = environment("");
    let mut python = Celery::launch(&env.redis.url(0), &env.redis.url(1), CeleryOptions::default());
    python.wait_until_ready();
    let text = "y".repeat(400 << 10);
    let accepted = env.http.post("/large", &json!({"text": text})).await.expect(202);
    let done = env.finished(accepted["task_id"].as_str().expect("an id")).await;
    assert_eq!(done["result"]["args"][0], json!(text), "it got what was said");
}
