//! `taskgate.enqueue`: a task if and only if the caller's transaction commits, checked and run like any other.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};

use crate::harness::environment::{Harness, Options};
use crate::harness::postgres::Cluster;
use crate::harness::{Gateway, Redis, RedisOptions, eventually, gateway, ports, postgres};

const RULES: &str = r#"
[[tasks]]
name = "app.mail"
endpoint = "POST /mail"
queue = "mail"
priority = 7
args = ["{to}"]
[tasks.body]
type = "object"
required = ["to"]
properties.to.type = "string"
"#;

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the database answers")
}

async fn enqueue(connection: &mut PgConnection, arguments: &str) -> Result<String, sqlx::Error> {
    let statement = format!("select taskgate.enqueue({arguments})");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).fetch_one(connection).await?.try_get(0)
}

#[tokio::test]
async fn a_call_is_a_task_when_its_transaction_commits_and_never_when_it_rolls_back() {
    let env = Harness::shared();
    let mut connection = connect(&env.database).await;
    let mut tx = connection.begin().await.unwrap();
    let kept = enqueue(&mut tx, "task => 'demo.add', args => '[2, 3]'").await.unwrap();
    assert_eq!(env.http.get(&format!("/result/{kept}")).await.status, 404, "before the commit there is nothing");
    tx.commit().await.unwrap();
    assert_ne!(env.http.get(&format!("/result/{kept}")).await.status, 404, "and from then on it is there");
    let mut tx = connection.begin().await.unwrap();
    let dropped = enqueue(&mut tx, "task => 'demo.add', args => '[2, 3]'").await.unwrap();
    tx.rollback().await.unwrap();
    let finished = env.finished(&kept).await;
    assert_eq!(finished["result"], 5, "{finished}");
    assert_eq!(env.http.get(&format!("/result/{dropped}")).await.status, 404);
    let task = env.http.get(&format!("/v1/tasks/{kept}")).await.expect(200);
    assert_eq!((&task["task"], &task["args"]), (&json!("demo.add"), &json!([2, 3])));
}

#[tokio::test]
async fn arguments_may_be_texts_or_jsonb_and_options_are_those_of_the_api() {
    let env = Harness::shared();
    let mut connection = connect(&env.database).await;
    let id = enqueue(
        &mut connection,
        r#"task => 'demo.add', args => jsonb_build_array(4), kwargs => jsonb_build_object('y', 5), options => '{"labels": {"order": "7"}}'"#,
    )
    .await
    .unwrap();
    assert_eq!(env.finished(&id).await["result"], 9);
    assert_eq!(env.http.get(&format!("/v1/tasks/{id}")).await.expect(200)["labels"], json!({"order": "7"}));
    let given = enqueue(
        &mut connection,
        r#"'demo.add', '[1, 1]', options => '{"task_id": "0b2f4d1c-7c55-4f5e-9d0a-2f7f3f0c9a01", "countdown": 0.1}'"#,
    );
    assert_eq!(given.await.unwrap(), "0b2f4d1c-7c55-4f5e-9d0a-2f7f3f0c9a01");
    assert_eq!(env.finished("0b2f4d1c-7c55-4f5e-9d0a-2f7f3f0c9a01").await["result"], 2);
}

#[tokio::test]
async fn what_sql_can_see_is_refused_by_the_function() {
    let env = Harness::shared();
    let mut connection = connect(&env.database).await;
    for (arguments, told) in [
        ("task => ''", "task is empty"),
        ("task => null", "task is empty"),
        ("task => 'demo.add', args => '[1'", "args is not JSON"),
        ("task => 'demo.add', args => '{}'", "args must be a JSON array, not object"),
        ("task => 'demo.add', args => null", "args is null"),
        ("task => 'demo.add', kwargs => '[]'", "kwargs must be a JSON object, not array"),
        ("task => 'demo.add', options => 'queue'", "options is not JSON"),
        (r#"task => 'demo.add', options => '{"args": []}'"#, "options may not have task, args"),
    ] {
        let refused = enqueue(&mut connection, arguments).await.expect_err(arguments).to_string();
        assert!(refused.contains(told), "{arguments}: {refused}");
    }
}

#[tokio::test]
async fn a_call_that_does_not_fit_is_a_dead_letter_that_names_the_place() {
    let env = Harness::shared();
    let mut connection = connect(&env.database).await;
    for (arguments, told) in [
        (
            r#"task => 'demo.add', options => '{"priority": 99, "colour": 1}'"#,
            ["/priority: ", "/colour: unknown field"],
        ),
        ("task => 'forbidden.task'", ["/task: ", "forbidden.task is not in the catalog"]),
        ("task => E'bad\\tname'", ["/task: ", "control character"]),
    ] {
        let id = enqueue(&mut connection, arguments).await.unwrap();
        let ended = env.finished(&id).await;
        assert_eq!((&ended["status"], &ended["error"]["type"]), (&json!("FAILURE"), &json!("InvalidCall")), "{ended}");
        let message = ended["error"]["message"].as_str().unwrap_or_default();
        assert!(told.iter().all(|part| message.contains(part)), "{arguments}: {message}");
        let letters = env.http.get(&format!("/v1/dead-letters?q={id}")).await.expect(200);
        assert_eq!(letters["tasks"].as_array().map(Vec::len), Some(1), "{letters}");
    }
}

#[tokio::test]
async fn the_catalog_says_queue_and_rules_of_an_enqueued_task_too() {
    let env = Harness::start(&Options { config: RULES.to_owned(), without_worker: true, ..Options::default() });
    let mut connection = connect(&env.database).await;
    let id = enqueue(&mut connection, r#"task => 'app.mail', args => '["ann"]'"#).await.unwrap();
    let task = env.in_phase(&id, "queued").await;
    assert_eq!((&task["queue"], &task["priority"]), (&json!("mail"), &json!(7)), "{task}");
    let wrong = enqueue(&mut connection, "task => 'app.mail', args => '[5]'").await.unwrap();
    let ended = env.finished(&wrong).await;
    assert!(ended["error"]["message"].as_str().unwrap_or_default().starts_with("/args/0: "), "{ended}");
}

#[tokio::test]
async fn a_role_that_may_only_enqueue_can_do_nothing_else() {
    let database = postgres::cluster().migrated_database();
    let name = database.rsplit('/').next().unwrap().to_owned();
    let role = format!("app_{name}");
    postgres::query(&database, &format!("create role {role} login"));
    postgres::query(&database, &format!("grant usage on schema taskgate to {role}"));
    let functions = "taskgate.enqueue(text, text, text, text), taskgate.enqueue(text, jsonb, jsonb, jsonb), \
                     taskgate.enqueue_canvas(text, text)";
    postgres::query(&database, &format!("grant execute on function {functions} to {role}"));
    let mut connection = connect(&database.replace("postgres@", &format!("{role}@"))).await;
    enqueue(&mut connection, "task => 'demo.add'").await.expect("it may enqueue");
    for forbidden in [
        "select * from taskgate.inbox",
        "delete from taskgate.inbox",
        "insert into taskgate.inbox (task_id, task, enqueued_at, call) values ('a', 'a', 0, '{}')",
        "select * from taskgate.task",
        "select * from taskgate.token",
        "create table taskgate.mine (id int)",
        "drop function taskgate.enqueue(text, text, text, text)",
    ] {
        let refused = sqlx::raw_sql(forbidden).execute(&mut connection).await.expect_err(forbidden).to_string();
        assert!(refused.contains("permission denied") || refused.contains("must be owner"), "{forbidden}: {refused}");
    }
}

/// The drain must wait while Redis is down and the backlog is full; a reader need not.
#[tokio::test]
async fn a_committed_call_is_read_before_it_is_drained() {
    let mut env = Harness::start(&Options { config: "limits.backlog = 1".to_owned(), ..Options::default() });
    env.redis.kill();
    let first = env.submit("demo.add", json!([1, 1])).await;
    eventually("no more is accepted", async || {
        let refused = env.http.post_once("/v1/tasks", &json!({"task": "demo.add", "args": [1, 1]})).await;
        (refused.status == 503).then_some(())
    })
    .await;
    let mut connection = connect(&env.database).await;
    let id = enqueue(&mut connection, "task => 'demo.add', args => '[2, 2]'").await.unwrap();
    let answer = env.http.get(&format!("/result/{id}")).await.expect(202);
    assert_eq!((&answer["status"], &answer["task_id"]), (&json!("PENDING"), &json!(id)), "{answer}");
    let task = env.http.get(&format!("/v1/tasks/{id}")).await.expect(200);
    assert_eq!((&task["phase"], &task["task"]), (&json!("accepted"), &json!("demo.add")), "{task}");
    env.redis.restart();
    assert_eq!(env.finished(&first).await["result"], 2);
    assert_eq!(env.finished(&id).await["result"], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_half_of_the_transactions_rolled_back_and_everything_killed_each_call_runs_once() {
    commits_become_tasks_once(320).await;
}

/// The same with as many as the promise names: `cargo test --test it -- ten_thousand --ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn ten_thousand_transactions_of_which_half_are_rolled_back_become_five_thousand_tasks() {
    commits_become_tasks_once(10_000).await;
}

/// The application's table decides whether a commit whose answer was lost succeeded.
async fn commits_become_tasks_once(transactions: usize) {
    let mut cluster = Cluster::start();
    let redis = Redis::start(RedisOptions::default());
    let database = cluster.empty_database();
    gateway::migrate(&database);
    postgres::query(&database, "create table orders (task_id text primary key)");
    let config = |port| gateway::config(port, &database, &redis.url(0), &redis.url(1), "");
    let (one, other) = (ports::free(), ports::free());
    let dying = [("TASKGATE_CRASH_AT", "after_taking:3")];
    let mut first = Gateway::start(&["serve"], one, Some(&config(one)), &dying);
    let mut second = Gateway::start(&["serve"], other, Some(&config(other)), &[]);
    first.wait_until_ready();
    second.wait_until_ready();
    let writers: Vec<_> = (0..4).map(|_| tokio::spawn(order(database.clone(), transactions / 4))).collect();
    eventually("some calls were taken", async || (in_redis(&redis).len() > transactions / 20).then_some(())).await;
    cluster.stop();
    cluster.restart();
    first.forget_environment();
    first.restart();
    eventually("more calls were taken", async || (in_redis(&redis).len() > transactions / 5).then_some(())).await;
    second.restart();
    let mut undone = HashSet::new();
    for writer in writers {
        undone.extend(writer.await.expect("a writer ends"));
    }
    let committed: HashSet<String> =
        postgres::query(&database, "select task_id from orders").lines().map(str::to_owned).collect();
    assert_eq!(committed.len(), transactions / 2);
    let counts = eventually("every commit is a message", async || {
        let counts = in_redis(&redis);
        (counts.len() >= committed.len()).then_some(counts)
    })
    .await;
    assert!(committed.iter().all(|id| counts.get(id) == Some(&1)), "each commit once: {counts:?}");
    assert_eq!(counts.len(), committed.len(), "nothing else");
    assert_eq!(postgres::query(&database, "select count(*) from taskgate.inbox"), "0");
    for id in undone.iter().take(200) {
        assert_eq!(second.http().get(&format!("/result/{id}")).await.status, 404, "{id} was rolled back");
    }
}

/// Commits half of its transactions and rolls the others back, and continues through failures. Returns the ids that were rolled back.
async fn order(database: String, transactions: usize) -> Vec<String> {
    let (mut undone, mut committed, mut connection) = (Vec::new(), 0, None);
    while committed < transactions / 2 || undone.len() < transactions / 2 {
        let mut open = match connection.take() {
            Some(open) => open,
            None => match PgConnection::connect(&database).await {
                Ok(open) => open,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let keep = committed < transactions / 2 && (committed <= undone.len() || undone.len() >= transactions / 2);
        match transaction(&mut open, keep).await {
            Ok((id, true)) => {
                committed += 1;
                drop(id);
                connection = Some(open);
            }
            Ok((id, false)) => {
                undone.push(id);
                connection = Some(open);
            }
            Err(Some(id)) => {
                // The answer of the commit was lost: the table knows.
                committed += usize::from(is_ordered(&database, &id).await);
            }
            Err(None) => {}
        }
    }
    undone
}

/// The call's id; an error with it when nobody knows whether the commit came through.
async fn transaction(connection: &mut PgConnection, keep: bool) -> Result<(String, bool), Option<String>> {
    let mut tx = connection.begin().await.map_err(|_| None)?;
    let id = enqueue(&mut tx, "task => 'demo.add', args => '[1, 2]'").await.map_err(|_| None)?;
    sqlx::query("insert into orders values ($1)").bind(&id).execute(&mut *tx).await.map_err(|_| None)?;
    if keep {
        tx.commit().await.map_err(|_| Some(id.clone()))?;
    } else {
        tx.rollback().await.map_err(|_| None)?;
    }
    Ok((id, keep))
}

async fn is_ordered(database: &str, id: &str) -> bool {
    loop {
        if let Ok(mut connection) = PgConnection::connect(database).await
            && let Ok(row) = sqlx::query("select exists (select 1 from orders where task_id = $1)")
                .bind(id)
                .fetch_one(&mut connection)
                .await
        {
            return row.get(0);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many messages each task has in the default queue.
fn in_redis(redis: &Redis) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for text in redis.command::<Vec<String>>(0, &["LRANGE", "celery", "0", "-1"]) {
        let message: Value = serde_json::from_str(&text).expect("a message is JSON");
        *counts.entry(message["headers"]["id"].as_str().expect("an id").to_owned()).or_default() += 1;
    }
    counts
}
