//! Steps of canvases that are hard to rebuild: bodies of nested headers, steps after a result that is stored nowhere, and what the
//! gateway reports about steps that no worker sends (P1, P4).

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions};

const QUICK: &str = "[sweeper]\nperiod = '1s'\ngrace = '500ms'\nworker_lost_after = '3s'\n";
const PATIENCE: Duration = Duration::from_secs(120);

type Env = Lent<Box<Harness>>;

async fn waits_in_later(env: &Env, count: usize, what: &str) {
    within(PATIENCE, what, async || (env.redis.command::<usize>(0, &["LLEN", "later"]) == count).then_some(())).await;
}

/// The ids of all its tasks, the canvas's own last.
async fn submit(env: &Env, canvas: &Value) -> Vec<String> {
    let accepted = env.http.post("/v1/tasks", canvas).await.expect(202);
    let text = |id: &Value| id.as_str().unwrap_or_else(|| panic!("an id in {accepted}")).to_owned();
    let mut ids: Vec<String> =
        accepted["children"].as_array().expect("children").iter().map(|child| text(&child["task_id"])).collect();
    let own = text(&accepted["task_id"]);
    ids.retain(|id| *id != own);
    ids.push(own);
    ids
}

async fn ends(env: &Env, id: &str) -> Value {
    within(PATIENCE, &format!("{id} ends"), async || {
        let answer = env.http.get(&format!("/result/{id}")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await
}

/// A chord whose header's first member ends in a group; the body returns its argument.
fn nested(queue: &str) -> Value {
    let add = |number: i64| json!({"task": "demo.add", "args": [number]});
    let group = json!({"group": [add(1), add(2)]});
    let first = json!({"chain": [{"task": "demo.identity", "args": [1], "immutable": true}, group]});
    let header = json!([first, {"task": "demo.identity", "args": [5], "immutable": true}]);
    json!({"chord": {"header": header, "body": {"task": "demo.echo", "queue": queue}}})
}

#[tokio::test]
async fn a_body_gets_its_header_s_results_in_their_shape_after_a_loss() {
    let env = Harness::start(&Options { config: QUICK.into(), ..Options::default() });
    // The gateway sends the header of the first chord, a worker that of the second.
    let chain = |queue| json!({"chain": [{"task": "demo.identity", "args": [0]}, nested(queue)]});
    let whole = submit(&env, &nested("celery")).await;
    let undisturbed = ends(&env, whole.last().expect("ids")).await;
    assert_eq!(undisturbed["result"]["args"], json!([[[2, 3], 5]]), "{undisturbed}");
    let lost = [submit(&env, &nested("later")).await, submit(&env, &chain("later")).await];
    let takes = json!({"chain": [{"task": "demo.identity", "args": [3], "ignore_result": true},
        {"task": "demo.add", "args": [10], "queue": "later"}]});
    let ignores = json!({"chain": [{"task": "demo.identity", "args": [3], "ignore_result": true},
        {"task": "demo.identity", "args": [7], "queue": "later", "immutable": true}]});
    let (takes, ignores) = (submit(&env, &takes).await, submit(&env, &ignores).await);
    waits_in_later(&env, 4, "what workers sent stands in its queue").await;
    for canvas in [&lost[0], &lost[1], &takes, &ignores] {
        for id in &canvas[..canvas.len() - 1] {
            env.in_phase(id, "succeeded").await;
        }
    }
    env.redis.command::<String>(0, &["FLUSHALL"]);
    waits_in_later(&env, 3, "all but one stand there again").await;
    let result = ends(&env, &takes[1]).await;
    assert_eq!(result["error"]["type"], "TaskLost", "{result}");
    let why = result["error"]["message"].as_str().unwrap_or_default();
    assert!(why.contains("takes a result that is stored nowhere"), "{result}");
    let options = CeleryOptions { hostname: "w2@test".into(), queues: "later".into(), ..CeleryOptions::default() };
    let second = Celery::start(&env.redis, options);
    for canvas in &lost {
        let done = ends(&env, canvas.last().expect("ids")).await;
        assert_eq!(done["result"], undisturbed["result"], "{done}\n{}", env.gateway.log());
    }
    assert_eq!(ends(&env, &ignores[1]).await["result"], 7);
    assert_eq!(second.log().matches("received").count(), 3, "{}", second.log());
}

#[tokio::test]
async fn a_step_that_nobody_sends_is_an_incident_until_it_is_made_again() {
    // While a worker may be about to send it, the gateway does not.
    let config =
        "[sweeper]\nperiod = '1s'\ngrace = '500ms'\nworker_lost_after = '10m'\n[incidents]\nstuck_after = '2s'\n";
    let env = Harness::start(&Options { config: config.into(), ..Options::default() });
    let step = json!({"task": "demo.add", "args": [10], "queue": "later"});
    let ids = submit(&env, &json!({"chain": [{"task": "demo.identity", "args": [1]}, step]})).await;
    waits_in_later(&env, 1, "the worker has sent the step").await;
    env.redis.command::<i64>(0, &["DEL", "later"]);
    // This shows the loss of data; a deleted list alone proves nothing.
    env.redis.command::<String>(0, &["SET", "taskgate.epoch", "an hour ago"]);
    env.in_phase(&ids[0], "succeeded").await;
    let worker = env.celery.as_ref().expect("a worker");
    worker.pause();
    let stuck = async || {
        let all = env.http.get("/v1/incidents").await.expect(200);
        let all = all["incidents"].as_array().expect("a list").clone();
        all.into_iter().find(|one| one["kind"] == "canvas_stuck" && one["subject"] == ids[1])
    };
    let said = within(PATIENCE, "the step is said to be stuck", stuck).await;
    assert!(said["detail"].as_str().is_some_and(|detail| detail.contains("no worker has sent it")), "{said}");
    let metrics = env.http.get("/metrics").await.text();
    assert!(metrics.contains("taskgate_incidents{kind=\"canvas_stuck\"} 1"), "{metrics}");
    worker.resume();
    waits_in_later(&env, 1, "it is made again").await;
    within(PATIENCE, "the incident is over", async || stuck().await.is_none().then_some(())).await;
    let options = CeleryOptions { hostname: "w2@test".into(), queues: "later".into(), ..CeleryOptions::default() };
    let _second = Celery::start(&env.redis, options);
    assert_eq!(ends(&env, &ids[1]).await["result"], 11);
}
