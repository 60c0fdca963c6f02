//! Fair shares with real workers. The order itself is tested with the pure decisions (`lines_tests`) and the ledger (`conformance::lines`).

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{begun, explained, reached, worker};
use crate::harness::environment::{Harness, Options};
use crate::harness::eventually;
use crate::harness::wait::{DEADLINE, within};

const TENANTS: &str = "
[[tasks]]
name = 'demo.sleep'
endpoint = 'POST /tenants/{tenant}/work'
args = [0.05, '{n}']
fair = { key = 'tenant-{tenant}' }
body = { type = 'object', required = ['n'], properties = { n = { type = 'integer' } } }
";

/// Ten at a time, so that the last comes soon after the first.
async fn work(http: &crate::harness::Http, tenant: &str, count: usize) -> Vec<String> {
    let post = async |n: usize| {
        let accepted = http.post(&format!("/tenants/{tenant}/work"), &json!({"n": n})).await.expect(202);
        accepted["task_id"].as_str().expect("an id").to_owned()
    };
    let mut ids = Vec::new();
    for first in (0..count).step_by(10) {
        ids.extend(join_all((first..count.min(first + 10)).map(&post)).await);
    }
    ids
}

/// A batch of one tenant fills eight slots; another one comes with ten tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_tenant_does_not_wait_behind_a_large_one() {
    let options = Options { config: TENANTS.into(), celery: worker(8), ..Options::default() };
    let env = Harness::start(&options);
    let large: HashSet<String> = work(&env.http, "a", 250).await.into_iter().collect();
    eventually("the large one has begun", async || (begun(&env).len() > 20).then_some(())).await;
    let small = work(&env.http, "b", 10).await;
    // On a busy machine the ten requests take a while.
    let accepted = reached(&env, "accepted").into_iter().filter(|(id, _)| small.contains(id));
    let came = accepted.map(|(_, at)| at).max().expect("they were accepted");
    let order = within(DEADLINE, "all of the small one have started", async || {
        let started = begun(&env);
        let ids: HashSet<&String> = started.iter().map(|(id, _)| id).collect();
        small.iter().all(|id| ids.contains(id)).then_some(started)
    })
    .await;
    let last = order.iter().filter(|(id, _)| small.contains(id)).map(|(_, at)| *at).max().expect("ten");
    let between = order.iter().filter(|(id, at)| large.contains(id) && *at > came && *at < last).count();
    assert!(between < 40, "{between} tasks of the large one started before the last of the small one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_waits_for_its_turn_says_so() {
    let config = "[queues.celery]\nwindow = 1\n";
    let env = Harness::start(&Options { config: config.into(), without_worker: true, ..Options::default() });
    let submit = async |key: &str| {
        let signature = json!({"task": "demo.add", "args": [1, 1], "fair": {"key": key, "weight": 2}});
        env.submit_signature(signature).await
    };
    let mut ids = Vec::new();
    for key in ["a", "a", "a", "b"] {
        ids.push(submit(key).await);
    }
    let why: Value = explained(&env.http, &ids[2], "among the tasks of a").await;
    assert_eq!((&why["evidence"]["key"], &why["evidence"]["window"]), (&json!("a"), &json!(1)), "{why}");
    let wrong = env.http.post("/v1/tasks", &json!({"task": "demo.add", "fair": {"key": "a", "weight": 0}})).await;
    assert_eq!(wrong.problem(422, "invalid-request")["errors"][0]["pointer"], "/fair/weight");
}
