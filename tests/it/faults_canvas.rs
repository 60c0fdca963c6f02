//! Redis loses the messages of steps that workers had sent: the sweeper rebuilds them from the ledger (P4).

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::wait::within;
use crate::harness::{Celery, CeleryOptions};

const QUICK: &str = "[sweeper]\nperiod = '1s'\ngrace = '500ms'\nworker_lost_after = '5s'\n";
const PATIENCE: Duration = Duration::from_secs(120);

type Env = Lent<Box<Harness>>;

async fn waits_in_later(env: &Env, count: usize, what: &str) {
    within(PATIENCE, what, async || (env.redis.command::<usize>(0, &["LLEN", "later"]) == count).then_some(())).await;
}

/// The first task's id, and the last one's.
async fn submit(env: &Env, path: &str, canvas: Value) -> (String, String) {
    let accepted = env.http.post(path, &canvas).await.expect(202);
    let text = |id: &Value| id.as_str().unwrap_or_else(|| panic!("an id in {accepted}")).to_owned();
    (text(&accepted["children"][0]["task_id"]), text(&accepted["task_id"]))
}

fn later(task: &str, args: Value) -> Value {
    json!({"task": task, "args": args, "queue": "later"})
}

#[tokio::test]
async fn steps_whose_messages_redis_lost_are_sent_again_and_run_once() {
    let env = Harness::start(&Options { config: QUICK.into(), ..Options::default() });
    let now = |value: i64| json!({"task": "demo.identity", "args": [value]});
    let chain = json!({"tasks": [now(3), later("demo.add", json!([10])), later("demo.add", json!([100]))]});
    let chord = json!({"header": [now(1), now(2)], "body": later("demo.xsum", json!([]))});
    let group = json!({"group": [later("demo.add", json!([1])), later("demo.add", json!([2]))]});
    let fan = json!({"tasks": [now(5), group, later("demo.xsum", json!([]))]});
    let chain = submit(&env, "/chain", chain).await;
    let chord = submit(&env, "/chord", chord).await;
    let fan = submit(&env, "/chain", fan).await;
    // The second step of the chain, the body, both members of the header that comes later.
    waits_in_later(&env, 4, "what workers sent stands in its queue").await;
    for first in [&chain.0, &chord.0, &fan.0] {
        env.in_phase(first, "succeeded").await;
    }
    env.redis.command::<String>(0, &["FLUSHALL"]);
    waits_in_later(&env, 4, "it stands there again").await;
    let options = CeleryOptions { hostname: "w2@test".into(), queues: "later".into(), ..CeleryOptions::default() };
    let second = Celery::start(&env.redis, options);
    for ((_, last), result) in [(&chain, 113), (&chord, 3), (&fan, 13)] {
        let done = within(PATIENCE, &format!("{last} ends"), async || {
            let answer = env.http.get(&format!("/result/{last}")).await;
            (answer.status == 200).then(|| answer.json())
        })
        .await;
        assert_eq!((&done["status"], &done["result"]), (&json!("SUCCESS"), &json!(result)), "{done}");
        assert_eq!(second.log().matches(&format!("[{last}] received")).count(), 1, "{}", env.gateway.log());
    }
    let history = env.history(&chord.1).await;
    let told = history.iter().any(|event| event["reason"].as_str().is_some_and(|why| why.contains("queued again")));
    assert!(told, "{history:?}");
    assert_eq!(second.log().matches("received").count(), 6, "{}", second.log());
}
