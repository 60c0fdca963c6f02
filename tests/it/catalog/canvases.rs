//! Canvas entries: one call is a chain, a group or a chord, and each step keeps the rules of its own entry.

use serde_json::json;

use crate::harness::environment::{Harness, Options};
use crate::harness::{Gateway, eventually};

const PIPELINES: &str = r#"
[[tasks]]
name = "run_etl_pipeline"
summary = "Extract, transform and load one source"
endpoint = "POST /etl/{source}"
message = "Loading {source}"
labels = { source = "{source}" }
unique = { key = "etl:{source}", on_conflict = "reject" }
response = { status = "started", pipeline = "{task_id}" }
canvas.chain = [
    { task = "demo.etl_extract", args = ["{source}"], kwargs = { rows = "{rows}" } },
    { task = "demo.etl_transform" },
    { task = "demo.etl_load" },
]
[tasks.body]
type = "object"
properties.rows = { type = "integer", default = 3, maximum = 1000 }

[[tasks]]
name = "sum_of_parts"
endpoint = "POST /sum"
[tasks.canvas.chord]
header = [
    { task = "demo.add", args = ["{start}", "{end}"], split = { range = { start = "start", end = "end", size = 10 } } },
    { task = "demo.identity", args = [1000] },
]
body = { task = "demo.identity", countdown = "{later}" }
[tasks.body]
type = "object"
required = ["start", "end"]
properties.start = { type = "integer" }
properties.end = { type = "integer" }
properties.later = { type = "number", default = 0 }

[[tasks]]
name = "demo.identity"
args = ["{value}"]
[tasks.body]
type = "object"
properties.value = { not = { const = "forbidden" } }

[[tasks]]
name = "breaks_a_rule"
endpoint = "POST /breaks"
canvas.group = [{ task = "demo.identity", args = ["{value}"] }]
[tasks.body]
type = "object"
properties.value = { type = "string" }

[[tasks]]
name = "demo.sleep"
endpoint = "POST /followed/{name}"
args = [0, "{name}"]
link = [{ task = "demo.echo", args = ["{name}"], immutable = true }]
link_error = [{ task = "demo.on_error" }]

[[tasks]]
name = "demo.fail"
endpoint = "POST /fails"
args = ["{kind}"]
retry = { max = 1, delay = 0.1, on = ["ValueError"] }
on_failure = { task = "demo.echo", queue = "celery" }
[tasks.body]
type = "object"
properties.kind = { type = "string" }

[[tasks]]
name = "demo.mul"
args = ["{value}"]
endpoint = "POST /fails/{value}"
on_failure = { task = "demo.identity", args = ["forbidden"] }
"#;

fn environment() -> crate::harness::environment::Lent<Box<Harness>> {
    Harness::start(&Options { config: PIPELINES.into(), ..Options::default() })
}

#[tokio::test]
async fn one_call_is_a_chain_a_chord_with_parts_and_each_step_keeps_its_rules() {
    let env = environment();
    let accepted = env.http.post("/etl/notices", &json!({"rows": 4})).await.expect(202);
    assert_eq!(
        (&accepted["status"], &accepted["message"]),
        (&json!("started"), &json!("Loading notices")),
        "{accepted}"
    );
    assert_eq!((&accepted["pipeline"], &accepted["source"]), (&accepted["task_id"], &json!("notices")), "{accepted}");
    assert_eq!(accepted["children"].as_array().map(Vec::len), Some(3), "{accepted}");
    let done = env.finished(accepted["task_id"].as_str().expect("an id")).await;
    assert_eq!(done["result"], json!({"loaded": 4, "sum": 60}), "{done}");
    let labelled = env.http.get("/v1/tasks?label=source:notices").await.expect(200);
    assert_eq!(labelled["tasks"].as_array().map(Vec::len), Some(3), "every step has the label: {labelled}");

    let parts = json!({"start": 0, "end": 25});
    let answer = env.http.post_with("/sum", &[("prefer", "wait=60")], &parts).await.expect(200);
    assert_eq!(answer["result"], json!([10, 30, 45, 1000]), "three parts and one more: {answer}");

    env.http.post("/etl/notices", &json!({"rows": 5000})).await.problem(422, "invalid-request");
    let wrong = json!({"start": 0, "end": 25, "later": -1});
    let problem = env.http.post("/sum", &wrong).await.problem(422, "invalid-request");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("countdown")), "{problem}");
    let problem = env.http.post("/breaks", &json!({"value": "forbidden"})).await.problem(422, "invalid-request");
    assert!(problem.to_string().contains("/group/0/args/0"), "the step's own entry refuses it: {problem}");
    env.http.post("/v1/tasks", &json!({"task": "run_etl_pipeline"})).await.problem(403, "task-not-allowed");
}

#[tokio::test]
async fn what_an_entry_links_follows_its_task_however_it_is_named() {
    let env = environment();
    let by_endpoint = env.http.post("/followed/a", &json!({})).await.expect(202);
    let by_name = env.http.post("/v1/tasks", &json!({"task": "demo.sleep", "args": [0, "b"]})).await.expect(202);
    for (accepted, name) in [(by_endpoint, "a"), (by_name, "b")] {
        let children = accepted["children"].as_array().expect("its followers").clone();
        let id_of = |task: &str| {
            let child = children.iter().find(|child| child["task"] == task).unwrap_or_else(|| panic!("{accepted}"));
            child["task_id"].as_str().expect("an id").to_owned()
        };
        let linked = env.finished(&id_of("demo.echo")).await;
        assert_eq!(linked["result"], json!({"args": [name], "kwargs": {}}), "{linked}");
        let skipped = env.in_phase(&id_of("demo.on_error"), "skipped").await;
        assert_eq!(skipped["status"], "REVOKED", "{skipped}");
    }
}

#[tokio::test]
async fn a_task_that_failed_for_good_is_handed_over_once() {
    let env = environment();
    let accepted = env.http.post("/fails", &json!({"kind": "ValueError"})).await.expect(202);
    let first = accepted["task_id"].as_str().expect("an id").to_owned();
    env.finished(&first).await;
    let last = eventually("it is retried", async || {
        let task = env.http.get(&format!("/v1/tasks/{first}")).await.expect(200);
        task["retried_as"].as_str().map(str::to_owned)
    })
    .await;
    let told = told(&env, &last).await;
    assert_eq!(told.len(), 1, "once, and not of the first attempt: {told:?}");
    let args = &told[0]["result"]["args"];
    assert_eq!((&args[0], &args[2]), (&json!(last), &json!(2)), "id and attempts: {args}");
    assert_eq!(args[1]["type"], "ValueError", "{args}");
    let of_first = env.http.get(&format!("/v1/tasks?task=demo.echo&q={first}")).await.expect(200);
    assert_eq!(of_first["tasks"], json!([]), "the first attempt was retried");
}

#[tokio::test]
async fn what_the_entry_of_an_on_failure_task_refuses_is_not_submitted() {
    let env = environment();
    let accepted = env.http.post("/fails/once", &json!({})).await.expect(202);
    let failed = accepted["task_id"].as_str().expect("an id");
    env.finished(failed).await;
    let refused = format!("the on_failure task of task {failed} does not fit its catalog entry: /args/0");
    eventually("the log says why", async || env.gateway.log().contains(&refused).then_some(())).await;
    assert_eq!(env.http.get("/v1/tasks?task=demo.identity").await.expect(200)["tasks"], json!([]));
}

/// The ended tasks that received this task's id.
async fn told(env: &crate::harness::environment::Lent<Box<Harness>>, failed: &str) -> Vec<serde_json::Value> {
    eventually(&format!("{failed} is handed over"), async || {
        let listed = env.http.get("/v1/tasks?task=demo.echo&status=SUCCESS").await.expect(200);
        let mut found = Vec::new();
        for task in listed["tasks"].as_array().expect("tasks") {
            let id = task["task_id"].as_str().expect("an id");
            let done = env.http.get(&format!("/result/{id}")).await.expect(200);
            if done["result"].to_string().contains(failed) {
                found.push(done);
            }
        }
        (!found.is_empty()).then_some(found)
    })
    .await
}

#[test]
fn a_canvas_that_means_nothing_stops_the_start() {
    let entry = |more: &str| format!("[[tasks]]\nname = 'whole'\nendpoint = 'POST /whole/{{source}}'\n{more}\n");
    for (more, reasons) in [
        ("canvas = { task = 'demo.add' }", vec!["canvas", "must be a chain"]),
        ("canvas = { chain = [{ task = 'a', args = ['{sauce}'] }] }", vec!["{sauce}", "did you mean source"]),
        ("canvas = { chain = [{ task = 'a' }] }\nqueue = 'x'", vec!["canvas", "queue belongs to a step"]),
        ("canvas = { group = [{ task = 'a' }] }\nunique = { key = 'x' }", vec!["unique", "make it a chord"]),
        ("canvas = { chain = [{ task = 'a', countdown = 'soon' }] }", vec!["/chain/0/countdown"]),
        ("on_failure = { task = 'a', args = ['{source}'] }", vec!["on_failure", "{source} is none of"]),
    ] {
        let mut gateway =
            Gateway::launch("sqlite://x.db", "redis://127.0.0.1:1/0", "redis://127.0.0.1:1/1", &entry(more));
        let code = gateway.wait(std::time::Duration::from_secs(60));
        assert!(code.is_some_and(|code| code != 0), "{more}: {code:?}");
        let log = gateway.log();
        for reason in reasons {
            assert!(log.contains(reason), "{more}: {reason:?} in {log}");
        }
    }
}
