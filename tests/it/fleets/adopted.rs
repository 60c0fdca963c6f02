//! Tasks of other clients: the workers are asked for what events leave out.

use serde_json::{Value, json};

use crate::harness::celery::client;
use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::{CeleryOptions, Latch, Version, eventually};

type Env = Lent<Box<Harness>>;

fn fleet(queues: &str) -> Env {
    let celery = CeleryOptions { queues: queues.to_owned(), ..CeleryOptions::default() };
    Harness::start(&Options { celery, ..Options::default() })
}

/// Runs the program, which prints an id, beside the fleet.
async fn sent(env: &Env, program: String) -> String {
    let (broker, backend) = (env.redis.url(0), env.redis.url(1));
    let printed = tokio::task::spawn_blocking(move || client(Version::Latest, &broker, &backend, &program));
    printed.await.expect("it ran").trim().to_owned()
}

async fn becomes(env: &Env, id: &str, fields: &Value) -> Value {
    eventually(&format!("{id} has {fields}"), async || {
        let answer = env.http.get(&format!("/v1/tasks/{id}")).await;
        let task = (answer.status == 200).then(|| answer.json())?;
        let fits = fields.as_object().expect("an object").iter().all(|(name, value)| task[name] == *value);
        fits.then_some(task)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_the_fleet_s_own_code_has_its_own_name_its_queue_and_its_priority() {
    let env = fleet("celery,mail");
    let latch = Latch::closed();
    let program = format!(
        "path, value = {}\nprint(until.apply_async((path, value), queue='mail', priority=6, shadow='nick').id)",
        latch.args(7)
    );
    let id = sent(&env, program).await;
    becomes(&env, &id, &json!({"task": "demo.until", "queue": "mail", "priority": 6, "phase": "running"})).await;
    latch.open();
    let done = becomes(&env, &id, &json!({"phase": "succeeded"})).await;
    assert_eq!((&done["task"], &done["priority"], &done["result"]), (&json!("demo.until"), &json!(6), &json!(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_over_at_once_has_the_queue_of_a_worker_that_serves_one() {
    let env = fleet("celery");
    let id = sent(&env, "print(add.delay(1, 2).id)".to_owned()).await;
    let task = becomes(&env, &id, &json!({"phase": "succeeded", "queue": "celery"})).await;
    assert_eq!(task["task"], "demo.add", "{task}");
}
