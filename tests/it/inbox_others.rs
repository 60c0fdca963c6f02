//! Inboxes in other databases: installed by a command, drained once; a database that is down affects no other.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};

use crate::harness::environment::{Harness, Options};
use crate::harness::postgres::Cluster;
use crate::harness::{eventually, gateway, postgres};

fn inbox(arguments: &[&str]) -> (bool, String) {
    let done = gateway::run(&[&["inbox"], arguments].concat(), &[]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.success(), said)
}

fn enqueue(url: &str, arguments: &str) -> String {
    postgres::query(url, &format!("select taskgate.enqueue({arguments})"))
}

#[tokio::test]
async fn an_inbox_is_installed_looked_at_and_removed_by_a_command() {
    let database = postgres::cluster().empty_database();
    assert!(!inbox(&["status", &database]).0);
    for _ in 0..2 {
        let (done, said) = inbox(&["install", &database]);
        assert!(done && said.contains("grant execute"), "{said}");
    }
    enqueue(&database, "task => 'demo.add'");
    let (_, said) = inbox(&["status", "--json", &database]);
    let status: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&status["installed"], &status["waiting"]), (&json!(true), &json!(1)), "{status}");
    let (done, said) = inbox(&["remove", &database]);
    assert!(!done && said.contains("1 calls wait"), "{said}");
    assert!(inbox(&["remove", &database, "--force"]).0);
    assert_eq!(postgres::query(&database, "select count(*) from pg_namespace where nspname = 'taskgate'"), "0");
    let (done, said) = inbox(&["remove", &postgres::cluster().migrated_database()]);
    assert!(!done && said.contains("ledger"), "{said}");
    let (done, said) = inbox(&["install", "mysql://h/d"]);
    assert!(!done && said.contains("mysql"), "{said}");
}

#[tokio::test]
async fn calls_of_another_database_run_once_and_are_read_at_once() {
    let shop = postgres::cluster().empty_database();
    assert!(inbox(&["install", &shop]).0);
    let config = format!("[[inboxes]]\nurl = '{shop}'\n");
    let env = Harness::start(&Options { config: config.clone(), ..Options::default() });
    let replica = env.replica(&config);
    let mut connection = PgConnection::connect(&shop).await.unwrap();
    let mut ids: Vec<String> = Vec::new();
    for n in 0..40 {
        let mut tx = connection.begin().await.unwrap();
        let statement = sqlx::AssertSqlSafe(format!("select taskgate.enqueue('demo.add', '[{n}, 1]')"));
        let id: String = sqlx::raw_sql(statement).fetch_one(&mut *tx).await.unwrap().get(0);
        if n % 2 == 0 {
            tx.commit().await.unwrap();
            assert_ne!(replica.http().get(&format!("/result/{id}")).await.status, 404, "{id} is committed");
            ids.push(id);
        } else {
            tx.rollback().await.unwrap();
            assert_eq!(env.http.get(&format!("/result/{id}")).await.status, 404, "{id} is rolled back");
        }
    }
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(env.finished(id).await["result"], 2 * n + 1);
    }
    let received =
        postgres::query(&env.database, "select count(*) from taskgate.tasks where delivery > 1 or retries > 0");
    assert_eq!(received, "0");
    assert_eq!(postgres::query(&shop, "select count(*) from taskgate.inbox"), "0");
}

#[tokio::test]
async fn a_database_that_is_away_delays_its_own_inbox_only() {
    let mut cluster = Cluster::start();
    let away = cluster.empty_database();
    let shop = postgres::cluster().empty_database();
    assert!(inbox(&["install", &away]).0 && inbox(&["install", &shop]).0);
    let late = enqueue(&away, "task => 'demo.add', args => '[1, 2]'");
    cluster.stop();
    let config = format!("[[inboxes]]\nurl = '{away}'\n[[inboxes]]\nurl = '{shop}'\n");
    let env = Harness::start(&Options { config, ..Options::default() });
    assert_eq!(env.finished(&enqueue(&shop, "'demo.add', '[2, 3]'")).await["result"], 5);
    assert_eq!(env.finished(&enqueue(&env.database, "'demo.add', '[3, 4]'")).await["result"], 7);
    assert_eq!(env.run("demo.add", json!([4, 5])).await["result"], 9);
    cluster.restart();
    eventually("its database is back, and it is drained", async || {
        (env.http.get(&format!("/result/{late}")).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_canvas_is_one_call() {
    let env = Harness::shared();
    let chain = r#"{"chain": [{"task": "demo.add", "args": [1, 2]}, {"task": "demo.add", "args": [4], "task_id": "0b2f4d1c-7c55-4f5e-9d0a-2f7f3f0c9a02"}]}"#;
    let id = postgres::query(
        &env.database,
        &format!("select taskgate.enqueue_canvas('{chain}', '0b2f4d1c-7c55-4f5e-9d0a-2f7f3f0c9a02')"),
    );
    assert_eq!(env.finished(&id).await["result"], 7);
}
