//! Limits on what is published, with real workers and two gateways.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::shared;
use crate::harness::environment::{Harness, Options};
use crate::harness::wait::{DEADLINE, within};
use crate::harness::{Gateway, Http, eventually, postgres};

/// Published tasks of a name, in order: (id, microseconds).
fn published(database: &str, name: &str) -> Vec<(String, i64)> {
    let sql = format!(
        "select t.task_id, e.at from taskgate.event e join taskgate.tasks t on t.task_no = e.task_no \
         where t.name = '{name}' and e.phase = 'queued' order by e.feed"
    );
    let rows = postgres::query(database, &sql);
    let row = |line: &str| {
        let (id, at) = line.split_once('|').expect("two columns");
        (id.to_owned(), at.parse().expect("a number"))
    };
    rows.lines().map(row).collect()
}

/// The explanation, once it says what stops the task.
async fn stopped(http: &Http, id: &str, gate: &str) -> Value {
    eventually(&format!("{id} is stopped by {gate}"), async || {
        let why = http.get(&format!("/v1/tasks/{id}/explain")).await.expect(200);
        why["sentence"].as_str().unwrap_or_default().contains(gate).then_some(why)
    })
    .await
}

/// Two replicas, one killed and started again in the middle: the fleet keeps the rate, in the order of acceptance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_kept_by_all_replicas_together_and_across_a_restart() {
    let config = "[[tasks]]\nname = \"demo.identity\"\nqueue = \"nobody\"\nrate_limit = \"100/m\"\n";
    let mut env = Harness::start(&Options { config: config.to_owned(), without_worker: true, ..Options::default() });
    let other = Gateway::serve(&env.database, &env.redis.url(0), &env.redis.url(1), config);
    let mut ids = Vec::new();
    // Slow enough that the last task still waits when all are submitted, even on a busy machine.
    for n in 0..20 {
        let http: Http = if n % 2 == 0 { env.gateway.http() } else { other.http() };
        let accepted = http.post("/v1/tasks", &json!({"task": "demo.identity", "args": [n]})).await.expect(202);
        assert_eq!(accepted["phase"], "held");
        ids.push(accepted["task_id"].as_str().unwrap().to_owned());
    }
    let last = stopped(&env.http, &ids[19], "the rate limit of demo.identity").await;
    assert!(last["evidence"]["ahead"].as_i64().is_some_and(|ahead| ahead > 0), "{last}");
    env.gateway.kill();
    env.gateway.restart();
    let passed = within(DEADLINE, "all were published", async || {
        let passed = published(&env.database, "demo.identity");
        (passed.len() == ids.len()).then_some(passed)
    })
    .await;
    assert_eq!(passed.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), ids, "first come, first served");
    let took = passed.last().unwrap().1 - passed[0].1;
    assert!(took >= 19 * 600_000 - 250_000, "20 at 100/m took {took} µs");
    for some in passed.windows(8) {
        assert!(some[7].1 - some[0].1 >= 6 * 600_000, "not smooth: {passed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_lets_so_many_run_at_once_and_is_given_back_by_every_end() {
    let env = shared();
    let limits = json!([{"key": "host:a", "max": 2}]);
    let submit = async |task: &str, args: Value| {
        env.submit_signature(json!({"task": task, "args": args, "limits": limits})).await
    };
    let mut ids = vec![submit("demo.mul", json!([null, null])).await];
    for _ in 0..2 {
        ids.push(submit("demo.sleep", json!([600])).await);
        env.in_phase(ids.last().expect("one was added"), "running").await;
    }
    for n in 0..5 {
        ids.push(submit("demo.sleep", json!([0.2, n])).await);
    }
    let stopped = submit("demo.sleep", json!([0.1])).await;
    let why = self::stopped(&env.http, &stopped, "the limit of host:a").await;
    assert_eq!((&why["evidence"]["max"], &why["evidence"]["under_way"]), (&json!(2), &json!(2)), "{why}");
    let revoked = env.http.post(&format!("/v1/tasks/{stopped}/revoke"), &json!({})).await.expect(200);
    assert_eq!(revoked["verdict"], "prevented", "{revoked}");
    let terminate = async |id: &str| {
        env.http.post(&format!("/v1/tasks/{id}/revoke"), &json!({"terminate": true})).await.expect(200);
        env.finished(id).await;
    };
    terminate(&ids[1]).await;
    env.finished(&ids[7]).await;
    terminate(&ids[2]).await;
    eventually("nothing is held any more", async || {
        let sql = "select (select count(*) from taskgate.gate_hold where gate = 'key host:a') \
             + (select count(*) from taskgate.outbox where gate = 'key host:a')";
        (postgres::query(&env.database, sql) == "0").then_some(())
    })
    .await;
    // At most two were between their publication and their end at any time.
    let sql = "select e.at, case when e.phase = 'queued' then 1 else -1 end from taskgate.event e \
         join taskgate.tasks t on t.task_no = e.task_no where t.options like '%host:a%' \
         and (e.phase = 'queued' or (e.phase in ('succeeded', 'failed', 'revoked') \
         and exists (select 1 from taskgate.event q where q.task_no = e.task_no and q.phase = 'queued'))) order by e.feed";
    let mut open = 0;
    for line in postgres::query(&env.database, sql).lines() {
        open += line.split_once('|').unwrap().1.parse::<i64>().unwrap();
        assert!(open <= 2, "{open} at once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_group_share_a_key() {
    let env = shared();
    let members: Vec<Value> = (0..6).map(|n| json!({"task": "demo.sleep", "args": [0.1, n]})).collect();
    let group = json!({"group": members, "limits": [{"key": "group:a", "max": 1}]});
    let accepted = env.http.post("/v1/tasks", &group).await.expect(202);
    let id = accepted["group_id"].as_str().unwrap().to_owned();
    let done = within(DEADLINE, "the group is finished", async || {
        let answer = env.http.get(&format!("/result/{id}")).await;
        (answer.status == 200).then(|| answer.expect(200))
    })
    .await;
    let results: HashSet<i64> = done["result"].as_array().unwrap().iter().filter_map(Value::as_i64).collect();
    assert_eq!(results.len(), 6, "{done}");
}
