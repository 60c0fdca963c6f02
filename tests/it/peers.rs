//! Tests of the peers alone, without our code: the other tests rely on these facts.

use serde_json::Value;

use crate::harness::celery::client;
use crate::harness::postgres::cluster;
use crate::harness::{Celery, CeleryOptions, Redis, RedisOptions, Version};

fn runs_the_sample_tasks(version: Version) {
    let redis = Redis::start(RedisOptions::default());
    let celery = Celery::start(&redis, CeleryOptions { version, ..CeleryOptions::default() });
    let program = r#"
import json
from celery import chain, chord
from tasks import add as plus, multiply, sum_results
ids = {
    "chain": chain(plus.s(2, 2), multiply.s(10))(),
    "chord": chord([plus.s(1, 1), plus.s(2, 2)])(sum_results.s()),
    "document": app.send_task("tasks.process_document", ["upload-1"], queue="document_processing"),
    "retry": retry.delay(1, 0.05),
    "unicode": unicode.delay(),
    "null": null.delay(),
}
print(json.dumps({name: result.get(timeout=90) for name, result in ids.items()}))
"#;
    let printed = client(version, &redis.url(0), &redis.url(1), program);
    let results: Value = serde_json::from_str(printed.lines().last().expect("a line")).expect("JSON");
    assert_eq!(results["chain"], 40, "{results}");
    assert_eq!(results["chord"], 6, "{results}");
    assert_eq!(results["document"]["upload_id"], "upload-1", "{results}");
    assert_eq!(results["retry"], 1, "{results}");
    assert_eq!(results["null"], Value::Null, "{results}");
    assert!(results["unicode"].as_str().expect("a text").contains("안녕하세요"), "{results}");
    drop(celery);
}

#[test]
fn the_newest_celery_runs_the_sample_tasks() {
    runs_the_sample_tasks(Version::Latest);
}

#[test]
fn the_older_celery_runs_the_sample_tasks() {
    runs_the_sample_tasks(Version::Older);
}

#[test]
fn redis_with_appendonly_remembers_across_a_kill() {
    let mut redis =
        Redis::start(RedisOptions { appendonly: true, password: Some("secret".into()), ..RedisOptions::default() });
    redis.command::<()>(0, &["SET", "k", "v"]);
    redis.restart();
    assert_eq!(redis.command::<String>(0, &["GET", "k"]), "v");
}

#[tokio::test]
async fn every_test_gets_a_database_of_its_own() {
    use sqlx::{Connection, PgConnection};
    for _ in 0..2 {
        let mut connection = PgConnection::connect(&cluster().empty_database()).await.expect("the cluster is up");
        sqlx::query("create table mine (id int)").execute(&mut connection).await.expect("nobody made it before");
    }
}
