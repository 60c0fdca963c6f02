//! Incidents: acknowledging, muting, the list of closed ones, and notices to channels.

use std::time::Duration;

use serde_json::{Value, json};

use super::mail_server::MailServer;
use crate::edge_limits::receiver::{Received, Receiver, SECRET};
use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::eventually;
use crate::harness::gateway::run;

const SHORT: &str = "[incidents]\nunserved_after = '1s'\n";
const LOCAL: &str = "[webhooks]\nallow_private = true\n";

type Env = Lent<Box<Harness>>;

fn environment(config: &str) -> Env {
    Harness::start(&Options { without_worker: true, config: format!("{SHORT}{config}"), ..Options::default() })
}

/// Submits a task to a queue without workers.
async fn begin(env: &Env, queue: &str) {
    env.submit_signature(json!({"task": "demo.add", "args": [1, 2], "queue": queue})).await;
}

async fn end(env: &Env, queue: &str) {
    env.http.post(&format!("/v1/queues/{queue}/purge"), &json!({})).await.expect(200);
}

async fn listed(env: &Env, path: &str) -> Vec<Value> {
    let answer = env.http.get(path).await.expect(200);
    answer["incidents"].as_array().expect("a list").clone()
}

async fn open(env: &Env, queue: &str) -> Value {
    eventually(&format!("{queue} is an incident"), async || {
        listed(env, "/v1/incidents").await.into_iter().find(|one| one["subject"] == queue)
    })
    .await
}

async fn past(env: &Env, queue: &str) -> Value {
    eventually(&format!("{queue} is in the history"), async || {
        listed(env, "/v1/incidents/history").await.into_iter().find(|one| one["subject"] == queue)
    })
    .await
}

/// Of these kinds, about this queue.
fn told(receiver: &Receiver, kind: &str, queue: &str) -> Vec<Received> {
    let is_it = |one: &Received| one.json()["type"] == kind && one.json()["data"]["subject"] == queue;
    receiver.received().into_iter().filter(is_it).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_goes_to_webhooks_a_chat_and_a_mail_server_once_for_all_replicas() {
    let (hook, registered, chat) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    // It fails at first.
    let flaky = Receiver::answering(|number| (if number == 0 { 500 } else { 204 }, Duration::ZERO)).await;
    let mail = MailServer::start();
    let config = format!(
        "{LOCAL}[[notify]]\nkind = 'webhook'\nurl = '{}'\nsecret = '{SECRET}'\n\
         [[notify]]\nkind = 'webhook'\nurl = '{}'\nkinds = ['no_consumer']\n\
         [[notify]]\nkind = 'webhook'\nurl = '{}/never'\nname = 'other'\nkinds = ['redis_evicts']\n\
         [[notify]]\nkind = 'slack'\nurl = '{}'\n\
         [[notify]]\nkind = 'email'\nurl = '{}'\nfrom = 'taskgate@example.com'\nto = ['Ops <ops@example.com>', 'kim@example.com']\n",
        hook.url, flaky.url, hook.url, chat.url, mail.url
    );
    let env = environment(&config);
    let endpoint = json!({"url": registered.url, "on": ["incident"], "secret": SECRET});
    env.http.post("/v1/webhooks", &endpoint).await.expect(201);
    let _replica = env.replica(&format!("{SHORT}{config}"));
    begin(&env, "nobodys").await;
    for receiver in [&hook, &registered] {
        let first =
            eventually("the webhook is told", async || told(receiver, "incident.opened", "nobodys").first().cloned())
                .await;
        assert!(first.is_signed_with(SECRET));
        let data = &first.json()["data"];
        assert_eq!((&data["kind"], &data["ended_at"]), (&json!("no_consumer"), &Value::Null), "{data}");
        assert_eq!(data["id"], open(&env, "nobodys").await["id"]);
    }
    let text = eventually("the chat is told", async || chat.received().first().cloned()).await.json();
    assert!(
        text["text"].as_str().is_some_and(|text| text.contains("no_consumer") && text.contains("nobodys")),
        "{text}"
    );
    let letter = eventually("the mail is there", async || mail.letters().first().cloned()).await;
    assert!(letter.contains("Subject: taskgate: no_consumer of nobodys is open"), "{letter}");
    assert!(letter.contains("To: Ops <ops@example.com>, kim@example.com"), "{letter}");
    let again =
        eventually("what failed is sent again", async || (flaky.received().len() > 1).then(|| flaky.received())).await;
    assert_eq!(again[0].id(), again[1].id());

    end(&env, "nobodys").await;
    eventually("the end is told", async || told(&hook, "incident.ended", "nobodys").first().cloned()).await;
    eventually("the mail says so", async || {
        mail.letters().iter().any(|one| one.contains("nobodys is over")).then_some(())
    })
    .await;
    let metrics = env.http.get("/metrics").await.text();
    assert!(metrics.contains("taskgate_notifications_total{outcome="), "{metrics}");
    assert_eq!(told(&hook, "incident.opened", "nobodys").len(), 1, "each of two replicas told it");
    assert_eq!(told(&registered, "incident.ended", "nobodys").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_looks_after_an_incident_and_the_audit_says_who() {
    let env = environment("");
    begin(&env, "letters").await;
    let id = open(&env, "letters").await["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/incidents/{id}/ack");
    let answer = env.http.post(&path, &json!({})).await.expect(200);
    assert_eq!((&answer["acknowledged_by"], &answer["subject"]), (&json!("anybody"), &json!("letters")), "{answer}");
    assert_eq!(open(&env, "letters").await["acknowledged_by"], "anybody");
    let audit = env.http.get("/v1/audit").await.expect(200);
    let row = &audit["audit"][0];
    assert_eq!((&row["what"], &row["who"]), (&json!("acknowledge_incident"), &json!("anybody")), "{row}");
    assert_eq!((&row["detail"], &row["verdict"]), (&json!("no_consumer of letters"), &json!("done")), "{row}");
    env.http.post("/v1/incidents/00/ack", &json!({})).await.problem(404, "incident-not-found");
    env.http.post("/v1/incidents/a%20b/ack", &json!({})).await.problem(400, "invalid-path");

    end(&env, "letters").await;
    let over = past(&env, "letters").await;
    assert_eq!((&over["id"], &over["acknowledged_by"]), (&json!(id), &json!("anybody")), "{over}");
    assert!(over["ended_at"].is_string());
    env.http.post(&path, &json!({})).await.problem(404, "incident-not-found");
    assert!(listed(&env, "/v1/incidents").await.iter().all(|one| one["subject"] != "letters"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_muted_is_told_to_nobody_even_when_it_begins_again() {
    let hook = Receiver::start().await;
    let env = environment(&format!("{LOCAL}[[notify]]\nkind = 'webhook'\nurl = '{}'\n", hook.url));
    begin(&env, "flaps").await;
    eventually("it is told", async || told(&hook, "incident.opened", "flaps").first().cloned()).await;
    let path = format!("/v1/incidents/{}/mute", open(&env, "flaps").await["id"].as_str().expect("an id"));
    let refused = async |body: Value, pointer: &str| {
        let problem = env.http.post(&path, &body).await.problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    };
    refused(json!({}), "").await;
    refused(json!({"seconds": 0}), "/seconds").await;
    refused(json!({"seconds": 99_999_999}), "/seconds").await;
    refused(json!({"until": "2020-01-01T00:00:00Z"}), "/until").await;
    refused(json!({"until": "tomorrow"}), "/until").await;
    let muted = env.http.post(&path, &json!({"seconds": 3600})).await.expect(200);
    assert!(muted["muted_until"].is_string(), "{muted}");
    end(&env, "flaps").await;
    past(&env, "flaps").await;
    begin(&env, "flaps").await;
    eventually("it is muted as it was", async || open(&env, "flaps").await["muted_until"].is_string().then_some(()))
        .await;
    // The notice about another queue arrives after both changes of this one: they were skipped, not delayed.
    begin(&env, "other").await;
    eventually("another one is told", async || told(&hook, "incident.opened", "other").first().cloned()).await;
    let about = |kind| told(&hook, kind, "flaps").len();
    assert_eq!((about("incident.opened"), about("incident.ended")), (1, 0));
    let unmuted = env.http.send(reqwest::Method::DELETE, &path, &[], None).await.expect(200);
    assert_eq!(unmuted["muted_until"], Value::Null);
    // It is still open, and no second notice was sent.
    eventually("it is told now", async || (about("incident.opened") == 2).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_at_a_private_address_is_not_called_unless_it_is_allowed() {
    let hook = Receiver::start().await;
    let env = environment(&format!("[[notify]]\nkind = 'webhook'\nurl = '{}'\nname = 'inside'\n", hook.url));
    begin(&env, "nobodys").await;
    let refused =
        "1 notices of incidents could not be sent to inside: 127.0.0.1 is 127.0.0.1, which is not a public address";
    eventually("the log says why", async || env.gateway.log().contains(refused).then_some(())).await;
    assert!(hook.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_lists_acknowledges_and_mutes() {
    let env = environment("");
    begin(&env, "post").await;
    let id = open(&env, "post").await["id"].as_str().expect("an id").to_owned();
    let address = format!("http://127.0.0.1:{}", env.gateway.port);
    let client = |words: &[&str]| {
        let done = run(&[&["incidents"], words, &["--url", &address]].concat(), &[]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout) + &text(&done.stderr))
    };
    let (code, told) = client(&[]);
    assert!(code == Some(1) && told.contains(&id) && told.contains("no_consumer"), "{told}");
    let (code, told) = client(&["ack", &id]);
    assert!(code == Some(0) && told.contains("anybody looks after it"), "{told}");
    assert_eq!(client(&["mute", &id, "--seconds", "600"]).0, Some(0));
    let (_, told) = client(&["--utc"]);
    assert!(told.contains("anybody") && told.contains("Z  "), "{told}");
    assert_eq!(client(&["unmute", &id]).0, Some(0));
    end(&env, "post").await;
    past(&env, "post").await;
    let (code, told) = client(&["history", "-o", "ndjson"]);
    assert!(code == Some(0) && told.contains("\"subject\":\"post\""), "{told}");
    assert_eq!(client(&["ack", &id]).0, Some(1));
}
