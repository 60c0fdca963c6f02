//! Messages that make a Python worker crash, loop, or drop them: the Rust worker continues.

use serde_json::{Value, json};

use super::process::Rust;
use crate::harness::{RedisOptions, wait};

/// A message as a Celery client writes it, with something wrong.
fn message(change: impl FnOnce(&mut Value)) -> String {
    let mut message = json!({
        "body": "W1syLCAzXSwge30sIHt9XQ==", // [[2, 3], {}, {}]
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "rs.add", "id": "hostile"},
        "properties": {"correlation_id": "hostile", "delivery_mode": 2, "priority": 0, "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "rust"}, "delivery_tag": "tag"},
    });
    change(&mut message);
    message.to_string()
}

#[test]
fn no_message_ends_the_worker_or_makes_it_spin() {
    let mut rust = Rust::start();
    let messages = [
        "not json at all".to_owned(),
        "[1, 2, 3]".to_owned(),
        "{".to_owned(),
        "{}".to_owned(),
        message(|m| m["content-type"] = "application/x-python-serialize".into()),
        message(|m| drop(m.as_object_mut().expect("object").remove("content-type"))),
        message(|m| drop(m.as_object_mut().expect("object").remove("body"))),
        message(|m| drop(m.as_object_mut().expect("object").remove("headers"))),
        message(|m| drop(m.as_object_mut().expect("object").remove("properties"))),
        message(|m| m["body"] = "%%% not base64 %%%".into()),
        message(|m| m["body"] = "bm90IGpzb24=".into()),
        message(|m| m["body"] = "W10=".into()),
        message(|m| m["properties"]["body_encoding"] = "utf-16".into()),
        message(|m| m["headers"]["id"] = Value::Null),
        message(|m| m["headers"]["id"] = json!(["a", "b"])),
        message(|m| m["headers"]["task"] = Value::Null),
        message(|m| m["headers"]["eta"] = "soon".into()),
        message(|m| m["headers"]["expires"] = json!(5)),
        message(|m| m["headers"]["timelimit"] = json!([1])),
        message(|m| m["headers"]["compression"] = "application/x-bz2".into()),
        message(|m| m["properties"]["delivery_tag"] = json!({"not": "a text"})),
        format!("{{\"body\": {}", "[".repeat(100_000)),
    ];
    for message in &messages {
        let _: i64 = rust.redis.command(0, &["LPUSH", "rust", message]);
    }
    let _: i64 = rust.redis.command(0, &["LPUSH", "rust", "\u{0}\u{1}binary"]);
    assert_eq!(rust.ask("tell(send('add', 20, 22).get(timeout=90))"), 42);
    wait::blocking(wait::DEADLINE, "everything was dealt with", || {
        (rust.waiting() == 0 && rust.unacked() == 0).then_some(())
    });
    assert!(rust.process.ended().is_none());
    let refused = rust.process.log().matches(": dropped").count();
    assert!((12..=messages.len() + 1).contains(&refused), "{refused}: {}", rust.process.log());
}

#[test]
fn an_unknown_task_goes_back_once_where_that_is_asked_for() {
    let rust = Rust::with(RedisOptions::default(), &[("UNKNOWN_TASK", "requeue")]);
    let said = rust.ask("tell([failure(send('nobody_has_this')), send('add', 1, 1).get(timeout=90)])");
    assert_eq!((&said[0][0], &said[1]), (&json!("NotRegistered"), &json!(2)), "{said}");
    assert_eq!(rust.process.log().matches("back to its queue").count(), 1, "{}", rust.process.log());
    assert_eq!((rust.waiting(), rust.unacked()), (0, 0));
}

#[test]
fn a_protocol_1_message_and_the_smallest_one_run() {
    let rust = Rust::start();
    let small = json!({"body": "[[2, 3], {}, {}]", "content-type": "application/json",
        "headers": {"task": "rs.add", "id": "small"},
        "properties": {"delivery_tag": "t1", "delivery_info": {"exchange": "", "routing_key": "rust"}}});
    let old = json!({"body": json!({"task": "rs.add", "id": "old", "args": [4, 5], "kwargs": {}}).to_string(),
        "content-type": "application/json", "content-encoding": "utf-8", "headers": {},
        "properties": {"delivery_tag": "t2", "delivery_info": {"exchange": "", "routing_key": "rust"}}});
    for message in [small, old] {
        let _: i64 = rust.redis.command(0, &["LPUSH", "rust", &message.to_string()]);
    }
    let said = rust.ask("tell([app.AsyncResult(id).get(timeout=90) for id in ('small', 'old')])");
    assert_eq!(said, json!([5, 9]));
}
