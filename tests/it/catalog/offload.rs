//! Large arguments and results of taskgate's own worker are kept in a store.

use std::fs;
use std::path::Path;

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
    environment_in(&tempfile::tempdir().expect("a folder").keep(), more)
}

fn environment_in(folder: &Path, more: &str) -> (Lent<Box<Harness>>, String) {
    let store = format!("[stores.default]\nurl = 'file://{}'\norphan_after = '1s'\nsweep = '1s'\n", folder.display());
    let all = format!("{store}{more}{ENTRY}");
    (Harness::start(&Options { config: all.clone(), without_worker: true, ..Options::default() }), all)
}

/// taskgate's own worker, with the same configuration.
async fn worker(env: &Lent<Box<Harness>>, extra: &str) -> Gateway {
    worker_of(env, extra, &["celery"]).await
}

async fn worker_of(env: &Lent<Box<Harness>>, extra: &str, queues: &[&str]) -> Gateway {
    let all = config(0, &env.database, &env.redis.url(0), &env.redis.url(1), extra);
    let worker = Gateway::start(&["worker", "-Q", &queues.join(",")], 0, Some(&all), &[]);
    eventually("the worker is known", async || {
        let workers = env.http.get("/v1/workers").await.expect(200);
        let served = workers["workers"].as_array()?.iter().any(|worker| worker["queues"] == json!(queues));
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

/// A part of a DAG reads a large result while the store is away: it is sent when the store is back.
#[tokio::test]
async fn a_part_of_a_dag_waits_for_a_store_that_is_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let (env, extra) = environment_in(folder.path(), "");
    let _worker = worker_of(&env, &extra, &["celery", "later"]).await;
    env.http.post("/v1/queues/later/pause", &json!({})).await.expect(200);
    let text = "d".repeat(300 << 10);
    let call = |args: Value, queue: &str, after: &[&str]| json!({"task": "tasks.request_info", "args": args, "queue": queue, "after": after});
    let nodes = json!({
        "large": call(json!([text]), "celery", &[]),
        "gate": call(json!([]), "later", &[]),
        "last": call(json!(["{large.args.0}", "{gate.args}"]), "celery", &["large", "gate"]),
    });
    let accepted = env.http.post("/v1/tasks", &json!({"dag": {"nodes": nodes}})).await.expect(202);
    let (results, away) = (folder.path().join("results"), folder.path().join("away"));
    eventually("the large result is in the store", async || {
        fs::read_dir(&results).is_ok_and(|mut tasks| tasks.next().is_some()).then_some(())
    })
    .await;
    let root = accepted["task_id"].as_str().or(accepted["group_id"].as_str()).expect("an id");
    let graph = async || env.http.get(&format!("/v1/tasks/{root}/graph")).await.expect(200);
    let ended = async |count: usize| {
        let graph = graph().await;
        let nodes = graph["nodes"].as_array().expect("nodes");
        (nodes.iter().filter(|node| node["phase"] == "succeeded").count() == count).then_some(())
    };
    eventually("the large one has ended", async || ended(1).await).await;
    fs::rename(&results, &away).expect("the folder is ours");
    // Neither readable nor missing.
    fs::write(&results, "").expect("the folder is ours");
    env.http.post("/v1/queues/later/resume", &json!({})).await.expect(200);
    eventually("the gate has ended", async || ended(2).await).await;
    let log = "waits for the result of";
    eventually("the part waits", async || env.gateway.log().contains(log).then_some(())).await;
    fs::remove_file(&results).expect("the file is ours");
    fs::rename(&away, &results).expect("the folder is ours");
    eventually("the last one has ended", async || ended(3).await).await;
    let graph = graph().await;
    let nodes = graph["nodes"].as_array().expect("nodes").iter();
    let ids = nodes.filter_map(|node| node["task_id"].as_str());
    let mut whole = 0;
    for id in ids {
        let result = env.http.get(&format!("/result/{id}")).await.expect(200)["result"].clone();
        whole += usize::from(result["args"] == json!([text, []]));
    }
    assert_eq!(whole, 1, "the last one got the whole: {graph}");
}
