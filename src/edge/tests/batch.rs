use serde_json::{Value, json};

use super::{Answer, Bench};

const LINES: &[(&str, &str)] = &[("content-type", "application/x-ndjson")];

async fn lines(bench: &Bench, query: &str, headers: &[(&str, &str)], text: &str) -> Answer {
    let all: Vec<_> = LINES.iter().chain(headers).copied().collect();
    bench.send(super::request("POST", &format!("/v1/tasks/batch{query}"), &all, text.into())).await
}

async fn known(bench: &Bench) -> usize {
    bench.get("/v1/tasks?limit=500").await.json(200)["tasks"].as_array().unwrap().len()
}

#[tokio::test]
async fn every_item_of_a_batch_gets_its_own_verdict() {
    let bench = Bench::start("").await;
    let body = json!([{"task": "tasks.add", "args": [1, 2]}, {"task": "tasks.add", "priority": 77}, {"task": "os.system"},
        {"group": [{"task": "tasks.add", "args": [1, 1]}]}]);
    let answer = bench.post("/v1/tasks/batch", body.to_string()).await.json(202);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(2)), "{answer}");
    let id = answer["items"][0]["task_id"].as_str().expect("an id");
    assert_eq!(bench.get(&format!("/v1/tasks/{id}")).await.json(200)["task"], "tasks.add");
    assert_eq!(answer["items"][1]["problem"]["errors"][0]["pointer"], "/priority", "{answer}");
    assert_eq!(answer["items"][2]["problem"]["type"], "/problems/task-not-allowed", "{answer}");
    assert!(answer["items"][3]["group_id"].is_string(), "{answer}");
    assert_eq!(known(&bench).await, 2);
}

#[tokio::test]
async fn lines_are_read_one_by_one_and_bad_ones_stand_alone() {
    let bench = Bench::start("limits.body = \"1KiB\"").await;
    let good = json!({"task": "tasks.add", "args": [1, 2]});
    let long = "x".repeat(5_000);
    let text = format!("{good}\n\n{{\"task\"\n{long}\n{good}\r\n[[\n{good}");
    let answer = lines(&bench, "", &[], &text).await.json(202);
    let kinds: Vec<&Value> = answer["items"].as_array().unwrap().iter().map(|item| &item["problem"]["type"]).collect();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(3), &json!(3)), "{answer}");
    assert_eq!(kinds[2], "/problems/payload-too-large", "{answer}");
    assert_eq!(answer["items"][5]["index"], 5);
    assert_eq!(lines(&bench, "", &[], "").await.json(202)["items"], json!([]));
}

/// More than the spool keeps in memory, more than one chunk, in the order of the lines.
#[tokio::test]
async fn a_long_stream_of_lines_is_answered_whole_and_in_order() {
    let bench = Bench::start("").await;
    let count = 25_000;
    let text: String = (0..count)
        .map(|n| {
            if n % 10 == 0 {
                format!("{{\"task\": \"tasks.add\", \"args\": [{n}, 1]}}\n")
            } else {
                "{\"task\": 5}\n".to_owned()
            }
        })
        .collect();
    let answer = lines(&bench, "", &[], &text).await.json(202);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(count / 10), &json!(count - count / 10)));
    for (place, item) in answer["items"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&item["index"], item["task_id"].is_string()), (&json!(place), place % 10 == 0), "{item}");
    }
}

#[tokio::test]
async fn an_atomic_batch_is_accepted_whole_or_not_at_all() {
    let bench = Bench::start("").await;
    let taken = "5b0b5a0e-6b0c-4d4e-9b55-111111111111";
    let good = json!({"task": "tasks.add", "args": [1, 2]});
    let wrong = json!([good, {"task": "tasks.add", "queue": ""}]).to_string();
    let problem = bench.post("/v1/tasks/batch?atomic=true", wrong).await.problem("invalid-request");
    assert_eq!(problem["errors"][0]["pointer"], "/1/queue", "{problem}");
    let strange = json!([good, {"task": "os.system"}]).to_string();
    bench.post("/v1/tasks/batch?atomic=true", strange).await.problem("task-not-allowed");
    let twice = format!("{{\"task\": \"tasks.add\", \"task_id\": \"{taken}\"}}\n").repeat(2);
    assert!(lines(&bench, "?atomic=true", &[], &twice).await.status.is_client_error());
    assert_eq!(known(&bench).await, 0);
    let chain = json!({"chain": [{"task": "tasks.add", "args": [1, 2]}, {"task": "tasks.add", "args": [3]}]});
    let answer = bench.post("/v1/tasks/batch?atomic=true", json!([chain, good, chain]).to_string()).await.json(202);
    assert_eq!((&answer["accepted"], answer["items"].as_array().unwrap().len()), (&json!(3), 3), "{answer}");
    assert_eq!(known(&bench).await, 5);
}

#[tokio::test]
async fn a_repeated_batch_gets_the_first_answer() {
    let bench = Bench::start("").await;
    let body = json!([{"task": "tasks.add", "args": [1, 2]}, {"task": "tasks.add", "args": [3, 4]}]).to_string();
    for (query, key) in [("", "one"), ("?atomic=true", "two")] {
        let path = format!("/v1/tasks/batch{query}");
        let first = bench.post_with(&path, &[("idempotency-key", key)], body.clone()).await.json(202);
        let again = bench.post_with(&path, &[("idempotency-key", key)], body.clone()).await.json(202);
        assert_eq!(first, again, "{path}");
    }
    assert_eq!(known(&bench).await, 4);
}

#[tokio::test]
async fn a_body_that_is_no_batch_is_refused() {
    let bench = Bench::start("").await;
    bench.post("/v1/tasks/batch", "{}").await.problem("invalid-request");
    bench.post("/v1/tasks/batch", "").await.problem("invalid-request");
    bench.post("/v1/tasks/batch?atomic=maybe", "[]").await.problem("invalid-query");
}
