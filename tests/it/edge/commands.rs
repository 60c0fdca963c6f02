//! The client commands for every area of the API.

use serde_json::json;

use super::client::{Said, ask};
use crate::harness::gateway::run;
use crate::harness::postgres::cluster;
use crate::harness::{Gateway, Redis, RedisOptions, eventually, ports};

fn gateway(redis: &Redis) -> Gateway {
    Gateway::serve(&cluster().migrated_database(), &redis.url(0), &redis.url(1), "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_explained_retried_and_seen_and_queues_are_held() {
    let redis = Redis::start(RedisOptions::default());
    let gateway = gateway(&redis);
    let http = gateway.http();
    let base = http.base.clone();
    let ask = |words: &[&str]| ask(&base, words);
    let listener = std::thread::spawn({
        let base = base.clone();
        move || Said::of(run(&["events", "-n", "1", "--task", "demo.add"], &[("TASKGATE_URL", &base)]))
    });
    // The stream begins with its request, so tasks are submitted until one is seen.
    let id = eventually("an event is printed", async || {
        let id = ask(&["submit", "demo.add", "1", "2"]).with(0).out;
        listener.is_finished().then_some(id)
    })
    .await;
    let seen = listener.join().expect("no panic").with(0).out;
    assert!(seen.contains("demo.add accepted") || seen.contains("demo.add queued"), "{seen}");
    let told = ask(&["explain", &id]).with(0).out;
    assert!(told.lines().count() > 1 && told.contains("celery"), "{told}");
    ask(&["queues", "pause", "mail"]).with(0);
    let queues = ask(&["queues"]).with(0).out;
    assert!(queues.starts_with("QUEUE") && queues.lines().any(|row| row.starts_with("mail") && row.contains("paused")));
    ask(&["queues", "resume", "mail"]).with(0);
    let lines = ask(&["queues", "messages", "celery", "--output", "ndjson"]).with(0).out;
    for line in lines.lines() {
        let message: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        assert_eq!(message["task"], "demo.add");
    }
    ask(&["queues", "purge", "celery"]).with(1);
    assert_eq!(ask(&["queues", "purge", "celery", "--yes"]).with(0).out, lines.lines().count().to_string());
    let again = ask(&["retry", &id]).with(0).out;
    assert_eq!(http.get(&format!("/v1/tasks/{again}")).await.expect(200)["retry_of"], json!(id));
    ask(&["dead-letters"]).with(0);
    ask(&["dead-letters", "requeue"]).with(1);
    assert_eq!(ask(&["dead-letters", "requeue", "--all"]).with(0).out, "0 matched, 0 sent again");
    let acts = ask(&["audit"]).with(0).out;
    assert!(acts.contains("retry_task") && acts.contains("pause_queue"), "{acts}");
    let mute = ask(&["incidents", "--json"]);
    assert!(mute.json()["incidents"].is_array() && matches!(mute.code, Some(0 | 1)));
}

#[test]
fn schedules_and_webhooks_are_made_and_removed() {
    let redis = Redis::start(RedisOptions::default());
    let gateway = gateway(&redis);
    let base = gateway.http().base;
    let ask = |words: &[&str]| ask(&base, words);
    ask(&["schedules", "create", "nightly", "demo.add", "1", "12345678901234567890123", "--cron", "0 3 * * *"]).with(0);
    let made = ask(&["schedules", "--output", "ndjson"]).with(0).out;
    assert!(made.contains("\"nightly\"") && made.contains("12345678901234567890123"), "{made}");
    ask(&["schedules", "create", "nightly", "demo.add", "--every", "60"]).with(1);
    ask(&["schedules", "delete", "nightly"]).with(0);
    assert!(!ask(&["schedules", "--output", "ndjson"]).with(0).out.contains("\"nightly\""));
    let words = ["webhooks", "create", "https://example.com/hook", "--task", "mail.*"];
    let made = ask(&words).with(0).out;
    let (id, secret) = made.split_once(' ').expect("an id and a secret");
    assert!(!secret.is_empty());
    ask(&["webhooks", "disable", id]).with(0);
    let listed = ask(&["webhooks"]).with(0).out;
    assert!(listed.contains("example.com") && listed.contains("disabled"), "{listed}");
    ask(&["webhooks", "deliveries", id]).with(0);
    ask(&["webhooks", "delete", id]).with(0);
}

#[test]
fn a_profile_names_a_gateway_and_what_cannot_be_meant_is_64() {
    let redis = Redis::start(RedisOptions::default());
    let gateway = gateway(&redis);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("profiles.toml");
    std::fs::write(&file, format!("[here]\nurl = '{}'\n", gateway.http().base)).expect("the folder is ours");
    let file = file.display().to_string();
    let with = |words: &[&str]| Said::of(run(words, &[("TASKGATE_PROFILES", &file)]));
    with(&["tasks", "--profile", "here", "--output", "json"]).with(0).json();
    assert!(with(&["tasks", "--profile", "nowhere"]).with(64).error.contains("here"));
    for url in ["ftp://gate.example", "gate.example:8000", "http://", "nonsense"] {
        let said = with(&["tasks", "--url", url]).with(64);
        assert!(said.error.contains("address of a gateway"), "{}", said.error);
    }
    with(&["tasks", "--output", "xml"]).with(64);
    with(&["tasks", "--url", &format!("http://127.0.0.1:{}", ports::free())]).with(2);
    let help = with(&["--help"]).with(0).out;
    assert!(help.contains("The fleet:") && help.contains("dead-letters"), "{help}");
}
