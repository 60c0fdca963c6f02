//! Signed events of other systems become tasks, once each; unsigned events change nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::environment::{Harness, Lent, Options};
use crate::harness::{Answer, Http};

const KEY: &[u8] = b"a key of twenty-four bytes";

/// One entry for each scheme; each passes parts of the event to the worker.
fn config() -> String {
    let entry = |scheme: &str, secret: &str, what: &str| {
        format!(
            "[[hooks]]\npath = '/hooks/{scheme}'\nverify = '{scheme}'\nsecret = ['old', '{secret}']\ntask = 'demo.echo'\n\
             args = {what}\nmax_body = '4KiB'\n"
        )
    };
    let standard = entry("standard", &format!("whsec_{}", STANDARD.encode(KEY)), "['{data.n}', '{hook.delivery}']");
    [
        standard.replace("'old', ", ""),
        entry("github", "geheim", "['{repository.full_name}', '{header.x-github-event}']"),
        entry("stripe", "geheim", "['{id}', 'amount {data.object.amount}']"),
        entry("slack", "geheim", "['{event.text}']"),
    ]
    .concat()
}

fn code(key: &[u8], content: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    mac.update(content.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> i64 {
    runtime::clock::now().as_micros() / 1_000_000
}

async fn send(http: &Http, scheme: &str, headers: &[(&str, String)], body: &str) -> Answer {
    let mut all: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    all.push(("content-type", "application/json"));
    http.send(Method::POST, &format!("/hooks/{scheme}"), &all, Some(body.as_bytes().to_vec())).await
}

fn standard(id: &str, at: i64, body: &str) -> Vec<(&'static str, String)> {
    let signature = STANDARD.encode(code(KEY, &format!("{id}.{at}.{body}")));
    vec![
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", at.to_string()),
        ("webhook-signature", format!("v1,{signature}")),
    ]
}

/// Headers of an event that GitHub signed with `geheim`.
pub fn github(id: &str, body: &str) -> Vec<(&'static str, String)> {
    vec![
        ("x-hub-signature-256", format!("sha256={}", hex(&code(b"geheim", body)))),
        ("x-github-delivery", id.to_owned()),
        ("x-github-event", "push".to_owned()),
    ]
}

fn stripe(body: &str) -> Vec<(&'static str, String)> {
    let at = now();
    vec![("stripe-signature", format!("t={at},v1={}", hex(&code(b"geheim", &format!("{at}.{body}")))))]
}

fn slack(body: &str) -> Vec<(&'static str, String)> {
    let at = now();
    vec![
        ("x-slack-request-timestamp", at.to_string()),
        ("x-slack-signature", format!("v0={}", hex(&code(b"geheim", &format!("v0:{at}:{body}"))))),
    ]
}

async fn tasks(env: &Lent<Box<Harness>>) -> usize {
    let listed = env.http.get("/v1/tasks?limit=500").await.expect(200);
    listed["tasks"].as_array().expect("tasks").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_event_of_each_sender_becomes_a_task() {
    let env = Harness::start(&Options { config: config(), ..Options::default() });
    let events = [
        ("standard", r#"{"data": {"n": 9007199254740993}}"#, json!(["9007199254740993", "msg_1"])),
        ("github", r#"{"repository": {"full_name": "o/r"}}"#, json!(["o/r", "push"])),
        ("stripe", r#"{"id": "evt_1", "data": {"object": {"amount": 5}}}"#, json!(["evt_1", "amount 5"])),
        ("slack", r#"{"type": "event_callback", "event_id": "Ev1", "event": {"text": "hi"}}"#, json!(["hi"])),
    ];
    for (scheme, body, expected) in events {
        let headers = match scheme {
            "standard" => standard("msg_1", now(), body),
            "github" => github("d1", body),
            "stripe" => stripe(body),
            _ => slack(body),
        };
        let accepted = send(&env.http, scheme, &headers, body).await.expect(202);
        let result = env.finished(accepted["task_id"].as_str().expect("an id")).await;
        let args = result["result"].to_string();
        for word in expected.as_array().expect("a list") {
            assert!(args.contains(word.as_str().expect("a text")), "{scheme}: {result}");
        }
        let again = send(&env.http, scheme, &headers, body).await.expect(200);
        assert_eq!(again["task_id"], accepted["task_id"], "{scheme}");
    }
    assert_eq!(tasks(&env).await, 4, "a repeated event ran twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_signed_leaves_nothing() {
    let env = Harness::start(&Options { config: config(), without_worker: true, ..Options::default() });
    let body = r#"{"data": {"n": 1}}"#;
    let refused = async |scheme: &str, headers: &[(&str, String)], body: &str| {
        send(&env.http, scheme, headers, body).await.problem(401, "invalid-signature")
    };
    for scheme in ["standard", "github", "stripe", "slack"] {
        refused(scheme, &[], body).await;
    }
    refused("standard", &standard("msg_1", now(), body), r#"{"data": {"n": 2}}"#).await;
    refused("standard", &standard("msg_1", now() - 400, body), body).await;
    refused("standard", &standard("msg_1", now() + 400, body), body).await;
    refused("github", &github("d1", "other"), body).await;
    // The signature is checked before the body is parsed as JSON.
    send(&env.http, "github", &github("d1", "{"), "{").await.problem(400, "invalid-json");
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(5_000));
    send(&env.http, "github", &github("d1", &large), &large).await.problem(413, "payload-too-large");
    let unreadable = r#"{"repository": {"full_name": {"__type__": "nosuch", "__value__": 1}}}"#;
    let refused =
        send(&env.http, "github", &github("d2", unreadable), unreadable).await.problem(422, "invalid-request");
    assert_eq!(refused["errors"][0]["pointer"], "/args/0", "{refused}");
    let question = r#"{"type": "url_verification", "challenge": "abc"}"#;
    let answer = send(&env.http, "slack", &slack(question), question).await.expect(200);
    assert_eq!(answer, json!({"challenge": "abc"}));
    assert_eq!(tasks(&env).await, 0);
    let none: Value = env.http.get("/v1/dead-letters").await.expect(200);
    assert_eq!(none["tasks"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_joins_the_task_of_another_one_is_answered_as_known() {
    let config = "[[tasks]]\nname = 'demo.echo'\nargs = ['{repo}']\nunique = {key = 'push {repo}'}\n\
        body = {type = 'object', properties = {repo = {type = 'string'}}}\n\
        [[hooks]]\npath = '/hooks/github'\nverify = 'github'\nsecret = 'geheim'\ntask = 'demo.echo'\nargs = ['{repository.full_name}']\n";
    let env = Harness::start(&Options { config: config.to_owned(), without_worker: true, ..Options::default() });
    let body = r#"{"repository": {"full_name": "o/r"}}"#;
    let first = send(&env.http, "github", &github("d1", body), body).await.expect(202);
    let other = send(&env.http, "github", &github("d2", body), body).await;
    assert_eq!(other.header("location"), first["links"]["self"].as_str());
    assert_eq!(other.expect(200)["task_id"], first["task_id"]);
    assert_eq!(tasks(&env).await, 1);
}
