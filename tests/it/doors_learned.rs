//! What workers tell of their tasks is the fleet's: only callers with a token see it, and a limited token sees its own names.

use serde_json::{Value, json};

use crate::edge::{Caller, create};
use crate::harness::environment::{Harness, Options};
use crate::harness::postgres::cluster;
use crate::harness::{CeleryOptions, Version, eventually};

const CONFIG: &str = "auth = 'token'\nlearn = ['hinted.*']\nsubmit.allow = ['*']";

fn has_learned(contract: &Value) -> bool {
    contract["paths"].get("/tasks/hinted.scale").is_some()
}

#[tokio::test]
async fn learned_tasks_are_shown_only_to_who_may_see_them() {
    let celery = CeleryOptions { version: Version::Older, ..CeleryOptions::default() };
    let database = cluster().migrated_database();
    // The gateway does not start before there is a token.
    create(&database, &["--name", "first", "--scope", "admin"]);
    let options = Options { celery, config: CONFIG.to_owned(), database: Some(database), ..Options::default() };
    let env = Harness::start(&options);
    let caller = |options: &[&str]| {
        let token = format!("Bearer {}", create(&env.database, options));
        Caller { http: env.gateway.http(), token }
    };
    let reader = caller(&["--name", "reader", "--scope", "read"]);
    let scale = eventually("the signature is learned", async || {
        let contract = reader.get("/openapi.json").await.expect(200);
        has_learned(&contract).then(|| contract["paths"]["/tasks/hinted.scale"]["post"].clone())
    })
    .await;
    assert!(scale.to_string().contains("factor"), "{scale}");

    let anybody = env.gateway.http().get("/openapi.json").await;
    assert_eq!(anybody.headers["vary"], "authorization, cookie");
    assert!(!anybody.text().contains("hinted"), "nobody learns a task's name without a token");
    let wrong = Caller { http: env.gateway.http(), token: "Bearer tg_wrong".to_owned() };
    assert!(!has_learned(&wrong.get("/openapi.json").await.expect(200)));
    let control = caller(&["--name", "control", "--scope", "control"]);
    assert!(!has_learned(&control.get("/openapi.json").await.expect(200)), "it may neither submit nor read");

    let limited = caller(&["--name", "limited", "--scope", "submit", "--scope", "read", "--tasks", "demo.*"]);
    assert!(!limited.get("/openapi.json").await.text().contains("hinted"));
    let body = json!({"x": 2});
    let foreign = limited.post("/tasks/hinted.scale", &body).await;
    let unknown = limited.post("/tasks/hinted.nothing", &body).await;
    assert_eq!((foreign.status, unknown.status), (404, 404), "a foreign task is as unknown as one that does not exist");
    let own = caller(&["--name", "own", "--scope", "submit", "--tasks", "hinted.*"]);
    assert!(has_learned(&own.get("/openapi.json").await.expect(200)));
    own.post("/tasks/hinted.scale", &body).await.expect(202);
}
