//! DAGs on unmodified Celery workers: the parts that workers send, the parts that the gateway sends, and runs of the rest.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::{CeleryOptions, Http, eventually, postgres};

type Own = Lent<Box<Harness>>;

fn dag(nodes: &Value) -> Value {
    json!({"dag": {"nodes": nodes}})
}

fn id_of(accepted: &Value) -> &str {
    accepted["task_id"]
        .as_str()
        .or_else(|| accepted["group_id"].as_str())
        .unwrap_or_else(|| panic!("an id in {accepted}"))
}

async fn ended(http: &Http, id: &str) -> Value {
    eventually(&format!("{id} is finished"), async || {
        let answer = http.get(&format!("/result/{id}")).await;
        (answer.status != 202).then(|| answer.expect(200))
    })
    .await
}

/// Phases by the first argument of `demo.echo` and friends: the label `node` says which node a task is.
async fn phases(http: &Http, id: &str) -> BTreeMap<String, String> {
    let graph = http.get(&format!("/v1/tasks/{id}/graph")).await.expect(200);
    let mut phases = BTreeMap::new();
    for node in graph["nodes"].as_array().expect("nodes") {
        let id = node["task_id"].as_str().expect("an id");
        let task = http.get(&format!("/v1/tasks/{id}")).await.expect(200);
        let name = task["labels"]["node"].as_str().unwrap_or_else(|| panic!("no label in {task}"));
        phases.insert(name.to_owned(), node["phase"].as_str().expect("a phase").to_owned());
    }
    phases
}

fn node(name: &str, task: &str, args: Value, after: &[&str]) -> (String, Value) {
    (name.to_owned(), json!({"task": task, "args": args, "after": after, "labels": {"node": name}}))
}

fn nodes(list: Vec<(String, Value)>) -> Value {
    Value::Object(list.into_iter().collect())
}

/// How often the worker took the task.
fn runs(env: &Own, id: &str) -> usize {
    env.celery.as_ref().expect("a worker").log().matches(&format!("[{id}] received")).count()
}

fn places(accepted: &Value) -> Vec<String> {
    let id = |child: &Value| child["task_id"].as_str().expect("an id").to_owned();
    accepted["children"].as_array().expect("children").iter().map(id).collect()
}

async fn results_flow_by_their_places(env: &Lent<impl std::ops::Deref<Target = Harness>>) {
    let body = dag(&nodes(vec![
        node("fetch", "demo.echo", json!([2, {"deep": [1, 39]}]), &[]),
        node("half", "demo.add", json!(["{fetch.args.0}", 1]), &["fetch"]),
        node("note", "demo.identity", json!(["{{raw}} {half} of {fetch.args.1.deep.1}"]), &["half"]),
        // A node that waits for its predecessor and for the one before that.
        node("sum", "demo.add", json!(["{half}", "{fetch.args.1.deep.1}"]), &["fetch", "half"]),
        node("last", "demo.echo", json!(["{note}", "{sum}"]), &["note", "sum"]),
    ]));
    let accepted = env.http.post("/v1/tasks", &body).await.expect(202);
    let result = ended(&env.http, id_of(&accepted)).await;
    assert_eq!(result["result"]["args"], json!(["{raw} 3 of 39", 42]), "{result}");
    let found = phases(&env.http, id_of(&accepted)).await;
    assert_eq!(found.len(), 5);
    assert!(found.values().all(|phase| phase == "succeeded"), "{found:?}");
    let graph = env.http.get(&format!("/v1/tasks/{}/graph", id_of(&accepted))).await.expect(200);
    assert_eq!(graph["edges"].as_array().expect("edges").len(), 6, "{graph}");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_flow_by_their_places_with_the_newest_celery() {
    results_flow_by_their_places(&Harness::shared()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_flow_by_their_places_with_the_older_celery() {
    results_flow_by_their_places(&Harness::shared_older()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_wire_can_carry_runs_without_a_gateway() {
    let mut env = Harness::start(&Options { without_worker: true, ..Options::default() });
    let body = dag(&nodes(vec![
        node("first", "demo.add", json!([1, 2]), &[]),
        node("left", "demo.add", json!([3, 4]), &["first"]),
        node("right", "demo.add", json!([5, 6]), &["first"]),
        node("join", "demo.list", json!([2]), &["left", "right"]),
        node("sum", "demo.xsum", json!(["{join}"]), &["join"]),
    ]));
    let accepted = env.http.post("/v1/tasks", &body).await.expect(202);
    let first = places(&accepted)[0].clone();
    env.in_phase(&first, "queued").await;
    env.gateway.kill();
    env.start_worker(CeleryOptions::default());
    let key = format!("celery-task-meta-{}", id_of(&accepted));
    let record = eventually("the last task has stored its result", async || {
        let stored: Option<String> = env.redis.command(1, &["GET", &key]);
        stored.filter(|record| record.contains("SUCCESS"))
    })
    .await;
    assert!(record.contains("\"result\": 1"), "{record}");
    env.gateway.restart();
    assert_eq!(ended(&env.http, id_of(&accepted)).await["result"], 1);
}

/// The ledger refuses to send the parts with this text.
const TRAP: &str = "create function taskgate.trap() returns trigger language plpgsql as $$ begin raise exception 'a trap'; end $$; \
    create trigger trap before delete on taskgate.dag_part for each row when (old.document like '%held up%') \
    execute function taskgate.trap()";

#[tokio::test(flavor = "multi_thread")]
async fn more_parts_than_a_page_that_the_ledger_refuses_do_not_stop_the_next() {
    let env = Harness::start(&Options::default());
    postgres::query(&env.database, TRAP);
    let of = |text: &str| {
        dag(&nodes(vec![
            node("first", "demo.add", json!([1, 2]), &[]),
            node("last", "demo.identity", json!([format!("{text} {{first}}")]), &["first"]),
        ]))
    };
    let stuck: Vec<Value> = (0..101).map(|_| of("held up")).collect();
    let stuck = env.http.post("/v1/tasks/batch", &json!(stuck)).await.expect(202);
    eventually("every first task has succeeded", async || {
        let listed = env.http.get("/v1/tasks?task=demo.add&status=SUCCESS&limit=500").await.expect(200);
        (listed["tasks"].as_array().expect("tasks").len() == 101).then_some(())
    })
    .await;
    let free = env.http.post("/v1/tasks", &of("free")).await.expect(202);
    assert_eq!(ended(&env.http, id_of(&free)).await["result"], "free 3");
    let waits = postgres::query(&env.database, "select count(*) from taskgate.dag_part");
    assert_eq!(waits, "101", "they are still to be sent");
    postgres::query(&env.database, "drop trigger trap on taskgate.dag_part");
    assert_eq!(ended(&env.http, id_of(&stuck["items"][100])).await["result"], "held up 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_cuts_what_depends_on_it_and_a_resume_runs_that_again_and_nothing_else() {
    let env = Harness::start(&Options::default());
    let flag = std::env::temp_dir().join(format!("taskgate-dag-{}", uuid::Uuid::now_v7()));
    let body = dag(&nodes(vec![
        node("fetch", "demo.add", json!([1, 1]), &[]),
        node("good", "demo.add", json!(["{fetch}", 10]), &["fetch"]),
        node("bad", "demo.needs_file", json!([flag, "{fetch}"]), &["fetch"]),
        node("behind", "demo.add", json!(["{bad}", "{good}"]), &["bad", "good"]),
        node("beside", "demo.add", json!(["{good}", 100]), &["good"]),
        node("end", "demo.echo", json!(["{behind}", "{fetch}"]), &["behind", "fetch"]),
    ]));
    let accepted = env.http.post("/v1/tasks", &body).await.expect(202);
    let old = places(&accepted);
    let root = old[0].clone();
    let all_over = async |id: &str| {
        eventually("all have ended", async || {
            let found = phases(&env.http, id).await;
            let is_over = |phase: &String| ["succeeded", "failed", "skipped"].contains(&phase.as_str());
            found.values().all(is_over).then_some(found)
        })
        .await
    };
    let found = all_over(&root).await;
    for (name, phase) in [
        ("fetch", "succeeded"),
        ("good", "succeeded"),
        ("beside", "succeeded"),
        ("bad", "failed"),
        ("behind", "failed"),
        ("end", "failed"),
    ] {
        assert_eq!(found[name], phase, "{found:?}");
    }
    std::fs::write(&flag, "").expect("a file");
    let resumed = env.http.post(&format!("/v1/tasks/{root}/resume"), &json!({})).await.expect(202);
    let new = places(&resumed);
    assert_eq!(new.len(), 3, "{resumed}");
    let end = ended(&env.http, &new[2]).await;
    assert_eq!(end["result"]["args"], json!([14, 2]), "{end}");
    let found = all_over(&new[0]).await;
    assert_eq!(found.len(), 6, "the graph shows what was kept too: {found:?}");
    for id in old.iter().chain(&new) {
        let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
        let name = task["labels"]["node"].as_str().expect("a label");
        let was_cut = old.contains(id) && ["behind", "end"].contains(&name);
        assert_eq!(runs(&env, id), usize::from(!was_cut), "{task}");
    }
    let again = env.http.post(&format!("/v1/tasks/{root}/resume"), &json!({})).await.problem(409, "not-replayable");
    assert!(again["detail"].as_str().expect("a detail").contains("already"), "{again}");
    env.http.post(&format!("/v1/tasks/{}/resume", new[0]), &json!({})).await.problem(409, "not-replayable");
    let alone = env.submit("demo.add", json!([1, 1])).await;
    env.http.post(&format!("/v1/tasks/{alone}/resume"), &json!({})).await.problem(409, "not-replayable");
    std::fs::remove_file(&flag).expect("it was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_and_three_that_step_run_every_node_once() {
    let mut env = Harness::start(&Options::default());
    let replicas = [env.replica(""), env.replica("")];
    let mut list =
        vec![node("n0", "demo.add", json!([0, 1]), &[]), node("n1", "demo.add", json!(["{n0}", 0]), &["n0"])];
    for index in 2..20 {
        let (one, two) = (format!("n{}", index - 1), format!("n{}", index - 2));
        let args = json!([format!("{{{one}}}"), format!("{{{two}}}")]);
        list.push(node(&format!("n{index}"), "demo.add", args, &[&one, &two]));
    }
    let accepted = env.http.post("/v1/tasks", &dag(&nodes(list))).await.expect(202);
    let (id, ids) = (id_of(&accepted).to_owned(), places(&accepted));
    for round in 1..=3 {
        eventually("some more have run", async || {
            let found = phases(&replicas[0].http(), &id).await;
            let done = found.values().filter(|phase| *phase == "succeeded").count();
            (done >= 4 * round).then_some(())
        })
        .await;
        env.gateway.kill();
        env.gateway.restart();
    }
    let result = ended(&replicas[1].http(), &id).await;
    assert_eq!(result["result"], 6765, "{result}");
    for one in &ids {
        assert_eq!(runs(&env, one), 1, "{one}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_data_loses_no_node() {
    let mut env: Own = Harness::start(&Options {
        config: "[sweeper]\nperiod = '1s'\ngrace = '500ms'\nworker_lost_after = '5s'\n".into(),
        without_worker: true,
        ..Options::default()
    });
    let body = dag(&nodes(vec![
        node("a", "demo.add", json!([1, 1]), &[]),
        node("b", "demo.add", json!([2, 2]), &[]),
        node("c", "demo.add", json!(["{a}", "{b}"]), &["a", "b"]),
        node("d", "demo.add", json!(["{c}", "{a}"]), &["c", "a"]),
    ]));
    let accepted = env.http.post("/v1/tasks", &body).await.expect(202);
    for id in &places(&accepted)[..2] {
        env.in_phase(id, "queued").await;
    }
    let _: () = env.redis.command(0, &["FLUSHALL"]);
    env.start_worker(CeleryOptions::default());
    let result = ended(&env.http, id_of(&accepted)).await;
    assert_eq!(result["result"], 8, "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_its_result_does_not_have_fails_its_node_and_says_so() {
    let env = Harness::shared();
    let body = dag(&nodes(vec![
        node("fetch", "demo.echo", json!([1]), &[]),
        node("read", "demo.identity", json!(["{fetch.total}"]), &["fetch"]),
        node("behind", "demo.echo", json!(["{read}"]), &["read"]),
    ]));
    let accepted = env.http.post("/v1/tasks", &body).await.expect(202);
    let last = ended(&env.http, id_of(&accepted)).await;
    assert_eq!(last["error"]["type"], "TemplateError", "{last}");
    let read = env.http.get(&format!("/v1/tasks/{}", places(&accepted)[1])).await.expect(200);
    assert!(read["error"]["message"].as_str().expect("a message").contains("has no total"), "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_wait_groups_and_chords_are_nodes_like_others() {
    let env = Harness::shared();
    let name = format!("approve-{}", uuid::Uuid::now_v7());
    let body = dag(&json!({
        "rows": {"group": [{"task": "demo.add", "args": [1, 1]}, {"task": "demo.add", "args": [2, 2]}]},
        "approve": {"wait": {"name": name}, "after": ["rows"]},
        "nap": {"sleep": 0.1, "after": ["rows"]},
        "chord": {"chord": {"header": [{"task": "demo.add", "args": ["{rows.0}", "{approve}"]}, {"task": "demo.add", "args": ["{rows.1}", 0]}],
            "body": {"task": "demo.xsum"}}, "after": ["approve", "nap"]},
        "end": {"task": "demo.echo", "args": ["{rows}", "{chord}"], "after": ["chord", "rows"]},
    }));
    let accepted = env.http.post("/v1/tasks", &body).await.expect(202);
    let wait = eventually("it waits", async || {
        let listed = env.http.get("/v1/waits?limit=500").await.expect(200);
        listed["waits"].as_array().expect("waits").iter().find(|wait| wait["name"] == name.as_str()).cloned()
    })
    .await;
    env.http.post(wait["links"]["complete"].as_str().expect("a link"), &json!(36)).await.expect(200);
    let result = ended(&env.http, id_of(&accepted)).await;
    assert_eq!(result["result"]["args"], json!([[2, 4], 42]), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ends_answer_as_a_group() {
    let env = Harness::shared();
    let body = dag(&nodes(vec![
        node("a", "demo.add", json!([1, 1]), &[]),
        node("b", "demo.add", json!(["{a}", 1]), &["a"]),
        node("c", "demo.mul", json!(["{a}", "{a}"]), &["a"]),
    ]));
    let accepted = env.http.post("/v1/tasks", &body).await.expect(202);
    assert!(accepted["group_id"].is_string() && accepted["task_id"].is_null(), "{accepted}");
    let result = eventually("the group is ready", async || {
        let answer = env.http.get(&format!("/result/{}", id_of(&accepted))).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(result["result"], json!([3, 4]), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_the_root_revokes_what_has_not_run() {
    let env = Harness::start(&Options::default());
    let flag = std::env::temp_dir().join(format!("taskgate-dag-{}", uuid::Uuid::now_v7()));
    let body = dag(&nodes(vec![
        node("root", "demo.add", json!([1, 1]), &[]),
        node("runs", "demo.until", json!([flag, "{root}"]), &["root"]),
        node("later", "demo.add", json!(["{runs}", "{root}"]), &["runs", "root"]),
        node("last", "demo.add", json!(["{later}", "{runs}"]), &["later", "runs"]),
    ]));
    let accepted = env.http.post("/v1/tasks", &body).await.expect(202);
    let ids = places(&accepted);
    env.in_phase(&ids[1], "running").await;
    let verdict = env.http.post(&format!("/v1/tasks/{}/revoke", ids[0]), &json!({})).await.expect(200);
    assert_eq!(verdict["verdict"], "too_late", "{verdict}");
    for id in &ids[2..] {
        env.in_phase(id, "revoked").await;
    }
    std::fs::write(&flag, "").expect("a file");
    env.in_phase(&ids[1], "succeeded").await;
    for id in &ids[2..] {
        assert_eq!(runs(&env, id), 0);
        env.in_phase(id, "revoked").await;
    }
    std::fs::remove_file(&flag).expect("it was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_never_run_is_refused_by_its_place() {
    let env = Harness::shared();
    let refused = async |body: Value, pointer: &str| {
        let problem = env.http.post("/v1/tasks", &body).await.problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    };
    let plain = json!({"task": "demo.add"});
    refused(
        dag(&json!({"a": {"task": "demo.add", "after": ["b"]}, "b": {"task": "demo.add", "after": ["a"]}})),
        "/dag/nodes/a/after",
    )
    .await;
    refused(dag(&json!({"a": {"task": "demo.add", "after": ["c"]}, "b": plain})), "/dag/nodes/a/after/0").await;
    refused(dag(&json!({"a": {"task": "demo.add", "args": [1, "{b}"]}, "b": plain})), "/dag/nodes/a/args/1").await;
    refused(
        dag(&json!({"a": {"task": "demo.add", "kwargs": {"x": "{c.y}"}, "after": ["b"]}, "b": plain})),
        "/dag/nodes/a/kwargs/x",
    )
    .await;
    refused(
        dag(&json!({"a": {"task": "demo.add", "retry": {"max": 1}, "after": ["b"]}, "b": plain})),
        "/dag/nodes/a/retry",
    )
    .await;
    refused(dag(&json!({"a": {"wait": {"name": "w", "timeout": 99_999_999}}})), "/dag/nodes/a/wait/timeout").await;
    refused(json!({"chain": [dag(&json!({"a": plain}))]}), "/chain/0/dag").await;
    refused(json!({"dag": {}}), "/dag/nodes").await;
}
