//! The audit log: a row for each control call, in the commit of the change itself, in a hash chain that reveals later edits.

use serde_json::{Value, json};

use crate::edge::Guarded;
use crate::harness::environment::{Harness, Options};
use crate::harness::gateway::run;

fn quiet() -> Options {
    Options { without_worker: true, ..Options::default() }
}

/// The newest row of an operation.
async fn newest(env: &Harness, what: &str) -> Value {
    let listed = env.gateway.http().get("/v1/audit").await.expect(200);
    let rows = listed["audit"].as_array().expect("a list");
    rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("no {what} in {listed}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_control_call_is_a_row_with_its_verdict() {
    let env = Harness::start(&quiet());
    let id = env.submit("demo.add", json!([1, 2])).await;
    env.http.post(&format!("/v1/tasks/{id}/revoke"), &json!({"reason": "a mistake"})).await.expect(200);
    let row = newest(&env, "revoke_task").await;
    assert_eq!(
        (&row["who"], &row["verdict"], &row["from"]),
        (&json!("anybody"), &json!("prevented"), &json!("127.0.0.1"))
    );
    assert_eq!((&row["target"], &row["detail"]), (&json!(format!("/v1/tasks/{id}/revoke")), &json!("a mistake")));
    assert_eq!((&row["status"], &row["place"]), (&json!(200), &json!(1)), "{row}");
    env.http.post("/v1/queues/mail/pause", &json!({})).await.expect(200);
    assert_eq!(newest(&env, "pause_queue").await["verdict"], "done");
    env.http.post("/v1/tasks/unknown/retry", &json!({})).await.problem(404, "task-not-found");
    let refused = newest(&env, "retry_task").await;
    assert_eq!((&refused["verdict"], &refused["status"]), (&json!("task-not-found"), &json!(404)));
    env.http.post("/v1/control/pool_grow", &json!({"arguments": {"n": 1}, "timeout": 0.2})).await.expect(200);
    assert_eq!(newest(&env, "control_workers").await["verdict"], "done");
    // Submitting and reading are not control calls.
    let listed = env.http.get("/v1/audit?limit=2").await.expect(200);
    let next = listed["next"].as_str().expect("there is more");
    let rest = env.http.get(&format!("/v1/audit?limit=500&cursor={next}")).await.expect(200);
    assert_eq!((rest["audit"].as_array().map(Vec::len), &rest["next"]), (Some(2), &Value::Null), "{rest}");
}

#[tokio::test]
async fn a_token_is_named_and_what_it_may_not_do_is_a_row_too() {
    let guarded = Guarded::shared();
    let reader = guarded.caller(0, &guarded.token(&["--name", "looker", "--scope", "read"]));
    let admin = guarded.caller(1, &guarded.admin);
    reader.post("/v1/tasks/some/revoke", &json!({})).await.problem(403, "insufficient-scope");
    reader.get("/v1/audit").await.problem(403, "insufficient-scope");
    let listed = admin.get("/v1/audit").await.expect(200);
    let rows = listed["audit"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["who"] == "token looker").unwrap_or_else(|| panic!("{listed}"));
    assert_eq!(
        (&row["what"], &row["verdict"], &row["status"]),
        (&json!("revoke_task"), &json!("insufficient-scope"), &json!(403))
    );
    // Who made the token, on this machine.
    assert!(rows.iter().any(|row| row["what"] == "token create" && row["target"] == "looker"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_whose_row_cannot_be_written_does_not_happen() {
    let env = Harness::start(&quiet());
    let pool = sqlx::PgPool::connect(&env.database).await.expect("the cluster runs");
    let forbid = "create function taskgate.no_audit() returns trigger language plpgsql as $$ begin raise 'no'; end $$; \
        create trigger no_audit before insert on taskgate.audit for each row execute function taskgate.no_audit()";
    sqlx::raw_sql(forbid).execute(&pool).await.expect("a trigger");
    let id = env.submit("demo.add", json!([1, 2])).await;
    for (path, body) in [
        ("/v1/queues/mail/pause".to_owned(), json!({})),
        (format!("/v1/tasks/{id}/revoke"), json!({})),
        (format!("/v1/tasks/{id}/retry"), json!({})),
        ("/v1/schedules".to_owned(), json!({"name": "nightly", "task": "demo.add", "every": 60})),
        ("/v1/bulk".to_owned(), json!({"filter": {}, "action": "revoke"})),
    ] {
        assert_eq!(env.http.post(&path, &body).await.status, 500, "{path}");
    }
    let paused: i64 =
        sqlx::query_scalar("select count(*) from taskgate.queue_pause").fetch_one(&pool).await.expect("a count");
    assert_eq!(paused, 0);
    let headers = [("content-type", "application/json")];
    let limit = env.http.send(reqwest::Method::PUT, "/v1/limits/host", &headers, Some(br#"{"max": 1}"#.to_vec())).await;
    assert_eq!(limit.status, 500, "{}", limit.text());
    let key = env.http.send(reqwest::Method::DELETE, "/v1/limits/host", &[], None).await;
    assert_eq!(key.status, 500, "{}", key.text());
    assert_eq!(env.http.get("/v1/limits").await.expect(200)["limits"], json!([]));
    env.http.get("/v1/schedules/nightly").await.problem(404, "schedule-not-found");
    assert_eq!(env.http.get("/v1/bulk").await.expect(200)["bulks"], json!([]));
    let listed = env.http.get("/v1/tasks").await.expect(200);
    let tasks = listed["tasks"].as_array().expect("a list");
    assert!(tasks.len() == 1 && tasks[0]["phase"] != "revoked", "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_changed_or_taken_out_breaks_the_chain() {
    let env = Harness::start(&quiet());
    for queue in ["a", "b", "c", "d"] {
        env.http.post(&format!("/v1/queues/{queue}/pause"), &json!({})).await.expect(200);
    }
    let verify = |more: &[&str]| {
        let words: Vec<&str> = ["audit", "verify"].iter().chain(more).copied().collect();
        let done = run(&words, &[("DATABASE_URL", env.database.as_str())]);
        let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.code(), text)
    };
    let (code, told) = verify(&[]);
    assert!(code == Some(0) && told.contains("4 rows"), "{told}");
    let head = told.trim().rsplit(' ').next().expect("a hash").to_owned();
    assert_eq!(verify(&["--head", &head]).0, Some(0));
    assert_eq!(verify(&["--head", "00"]).0, Some(1));
    let pool = sqlx::PgPool::connect(&env.database).await.expect("the cluster runs");
    let change = async |statement: &'static str| {
        sqlx::query(statement).execute(&pool).await.expect("a statement");
    };
    change("update taskgate.audit set who = 'somebody' where chain_no = 2").await;
    let (code, told) = verify(&[]);
    assert!(code == Some(1) && told.contains("place 2"), "{told}");
    change("update taskgate.audit set who = 'anybody' where chain_no = 2").await;
    assert_eq!(verify(&[]).0, Some(0));
    change("delete from taskgate.audit where chain_no = 4").await;
    let (code, told) = verify(&[]);
    assert!(code == Some(1) && told.contains("place 4"), "{told}");
}
