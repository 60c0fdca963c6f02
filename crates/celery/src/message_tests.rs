//! How messages read and are written, from vectors and by hand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::{envelope, vectors};

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn decode(text: &str) -> Decoded {
    Decoded::decode(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A complete message with one thing changed.
fn changed(change: impl FnOnce(&mut Value)) -> Result<Decoded, DecodeError> {
    let mut message = value(&vectors::messages(&vectors::load("task_plain"))[0]);
    change(&mut message);
    Decoded::decode(message.to_string().as_bytes())
}

fn with_body(body: &str) -> Result<Decoded, DecodeError> {
    changed(|message| message["body"] = STANDARD.encode(body).into())
}

#[test]
fn every_recorded_message_is_rebuilt_byte_for_byte_from_its_two_texts() {
    let mut seen = 0;
    for (name, vector) in vectors::all() {
        for text in vectors::messages(&vector) {
            let Ok(decoded) = Decoded::decode(text.as_bytes()) else { continue };
            // A worker's retry repeats the client's name among the properties; it is never read.
            let sent = value(&text);
            if sent["headers"]["compression"].is_null()
                && sent["properties"]["origin"].is_null()
                && sent["properties"]["priority"].as_i64().is_some_and(|priority| (0..=9).contains(&priority))
            {
                let rebuilt = envelope(&decoded.headers, &decoded.body, &decoded.properties);
                assert_eq!(String::from_utf8(rebuilt).unwrap(), text, "{name}");
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "only {seen}");
}

#[test]
fn every_recorded_message_is_written_as_celery_wrote_it() {
    let mut exact = 0;
    for (name, vector) in vectors::all() {
        for text in vectors::messages(&vector) {
            let Ok(decoded) = Decoded::decode(text.as_bytes()) else { continue };
            let mut message = decoded.message;
            // Our times are always in UTC.
            if value(&text)["headers"]["eta"].as_str().is_some_and(|eta| !eta.ends_with("+00:00")) {
                continue;
            }
            let (headers, body) = (value(&message.headers()), value(&message.body()));
            let mut expected = value(&decoded.headers);
            expected.as_object_mut().unwrap().remove("redelivered");
            assert_eq!(without_nulls(headers), without_nulls(expected), "{name}");
            assert_eq!(without_nulls(body), without_nulls(value(&decoded.body)), "{name}");
            exact += usize::from(message.headers() == decoded.headers);
            // What is shown of the arguments comes from the arguments alone.
            let (args, kwargs) = (message.argsrepr.take(), message.kwargsrepr.take());
            let headers = value(&message.headers());
            if !name.contains("rich")
                && !decoded.body.contains("__type__")
                && args.is_some()
                && !shows_python_objects(&args)
                && !shows_python_objects(&kwargs)
            {
                assert_eq!(
                    (headers["argsrepr"].as_str(), headers["kwargsrepr"].as_str()),
                    (args.as_deref(), kwargs.as_deref()),
                    "{name}"
                );
            }
        }
    }
    assert!(exact > 100, "only {exact}");
}

/// Arguments that were tuples or signatures in the client: the JSON does not tell.
fn shows_python_objects(shown: &Option<String>) -> bool {
    shown.as_deref().is_some_and(|shown| {
        shown.starts_with('[') || shown.contains('<') || shown.contains("fx.") || shown[1..].contains('(')
    })
}

/// An absent option and an explicit null are the same to Celery; so are absent and empty links.
fn without_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(|value| *value = without_nulls(value.take()));
        }
        Value::Array(elements) => elements.iter_mut().for_each(|value| *value = without_nulls(value.take())),
        _ => {}
    }
    value
}

#[test]
fn a_plain_call_has_exactly_kombus_bytes() {
    let text = &vectors::messages(&vectors::load("task_plain"))[0];
    let id = TaskId::parse("75c62c68-77d9-446d-ae1e-5033055d0e13").unwrap();
    let args = json::verbatim("[2, 3]".to_owned()).unwrap();
    let kwargs = json::verbatim("{}".to_owned()).unwrap();
    let mut message = Message::new(TaskName::parse("fx.add").unwrap(), id.clone(), args, kwargs);
    message.origin = "gen23900@host".to_owned();
    let mut properties = Properties::task(id.as_str(), "celery", 0, "3db5b9fe-dddf-48df-ad72-bf197412fe38");
    properties.reply_to = Some("2ec63a3b-9c41-3aa7-a050-6ec6ec0c5502".into());
    assert_eq!(String::from_utf8(envelope(&message.headers(), &message.body(), &properties)).unwrap(), *text);
}

#[test]
fn options_are_read_as_types() {
    let limits = decode(&vectors::messages(&vectors::load("task_time_limits"))[0]).message.limits;
    assert_eq!(limits, Limits { hard: Some(30.0), soft: Some(20.0) });
    let expiring = decode(&vectors::messages(&vectors::load("task_expires_seconds"))[0]);
    assert_eq!(expiring.message.expires.map(time::format).as_deref(), Some("2026-11-20T18:17:49.785488+00:00"));
    assert_eq!(expiring.properties.expiration.as_deref(), Some("60000"));
    let custom = decode(&vectors::messages(&vectors::load("task_shadow_and_headers"))[0]).message;
    assert_eq!(
        (custom.shadow.as_deref(), custom.custom[0].0.as_str(), custom.custom[0].1.get()),
        (Some("shadow.name"), "x-tenant", "\"t1\"")
    );
}

#[test]
fn python_integers_survive_digit_for_digit() {
    let decoded = with_body("[[123456789012345678901234567890, 1.10], {\"b\": 1, \"a\": 2}, null]").unwrap();
    assert_eq!(decoded.message.args.get(), "[123456789012345678901234567890, 1.10]");
    assert_eq!(decoded.message.kwargs.get(), "{\"b\": 1, \"a\": 2}");
    assert!(decoded.message.body().starts_with("[[123456789012345678901234567890, 1.10], {\"b\": 1, \"a\": 2}, "));
}

#[test]
fn a_compressed_body_is_read_and_its_header_dropped() {
    let decoded = decode(&vectors::messages(&vectors::load("task_compressed"))[0]);
    assert_eq!(decoded.message.args.get(), "[2, 3]");
    assert!(value(&decoded.headers)["compression"].is_null());
    let bz2 = changed(|message| message["headers"]["compression"] = "application/x-bz2".into());
    assert_eq!(bz2.unwrap_err(), DecodeError::Compression("application/x-bz2".to_owned()));
}

#[test]
fn what_real_workers_run_is_read() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 13] = [
        ("no content-encoding", |m| drop(m.as_object_mut().unwrap().remove("content-encoding"))),
        ("no correlation_id", |m| drop(m["properties"].as_object_mut().unwrap().remove("correlation_id"))),
        ("no priority", |m| drop(m["properties"].as_object_mut().unwrap().remove("priority"))),
        ("priority text", |m| m["properties"]["priority"] = "3".into()),
        ("priority float", |m| m["properties"]["priority"] = json!(4.5)),
        ("retries null", |m| m["headers"]["retries"] = Value::Null),
        ("retries text", |m| m["headers"]["retries"] = "1".into()),
        ("timelimit null", |m| m["headers"]["timelimit"] = Value::Null),
        ("stamps null", |m| m["headers"]["stamps"] = Value::Null),
        ("id of any text", |m| m["headers"]["id"] = "Kösler 7".into()),
        ("embed {}", |m| m["body"] = STANDARD.encode("[[2, 3], {}, {}]").into()),
        ("kwargs null", |m| m["body"] = STANDARD.encode("[[2, 3], null, null]").into()),
        ("minimal", |m| {
            *m = json!({"body": "[[2, 3], {}, {}]", "content-type": "application/json", "headers": {"task": "fx.add", "id": "d1"},
                "properties": {"delivery_tag": "u", "delivery_info": {"exchange": "", "routing_key": "celery"}}});
        }),
    ];
    for (name, change) in changes {
        assert!(changed(change).is_ok(), "{name}");
    }
}

#[test]
fn what_real_workers_die_of_is_an_error() {
    type Change = fn(&mut Value);
    let changes: [(Change, DecodeError); 9] = [
        (|m| drop(m.as_object_mut().unwrap().remove("content-type")), DecodeError::ContentType("none".to_owned())),
        (
            |m| m["content-type"] = "application/x-python-serialize".into(),
            DecodeError::ContentType("application/x-python-serialize".to_owned()),
        ),
        (|m| drop(m.as_object_mut().unwrap().remove("body")), DecodeError::BodyNotJson),
        (|m| m["body"] = "%%%".into(), DecodeError::Base64),
        (|m| drop(m["headers"].as_object_mut().unwrap().remove("id")), DecodeError::MissingHeader("id")),
        (|m| drop(m["headers"].as_object_mut().unwrap().remove("task")), DecodeError::MissingHeader("task")),
        (|m| m["headers"]["id"] = json!(7), DecodeError::Header { name: "id", problem: "is not a text" }),
        (
            |m| m["headers"]["eta"] = "soon".into(),
            DecodeError::Header { name: "eta", problem: "is not a time in ISO 8601" },
        ),
        (
            |m| m["headers"]["expires"] = json!(17),
            DecodeError::Header { name: "expires", problem: "is not a time in ISO 8601" },
        ),
    ];
    for (change, expected) in changes {
        assert_eq!(changed(change).unwrap_err(), expected);
    }
    assert_eq!(with_body("[[2], {}]").unwrap_err(), DecodeError::Body("is not an array of three"));
    assert_eq!(with_body("[null, {}, {}]").unwrap_err(), DecodeError::Body("has args that are not a list"));
    assert_eq!(with_body("[[], [], {}]").unwrap_err(), DecodeError::Body("has kwargs that are not an object"));
    assert_eq!(Decoded::decode(b"nothing").unwrap_err(), DecodeError::NotJson);
    assert_eq!(Decoded::decode(b"[1]").unwrap_err(), DecodeError::NotAnObject);
    assert_eq!(Decoded::decode(&[0xff, 0]).unwrap_err(), DecodeError::NotJson);
}

#[test]
fn deep_nesting_ends_in_an_error_and_not_in_a_crash() {
    let mut chain = "{\"task\": \"x\", \"args\": [], \"options\": {}}".to_owned();
    for _ in 0..2000 {
        chain = format!("{{\"task\": \"x\", \"args\": [], \"options\": {{\"link\": [{chain}]}}}}");
    }
    let deep = with_body(&format!("[[], {{}}, {{\"callbacks\": [{chain}]}}]"));
    assert_eq!(deep.unwrap_err(), DecodeError::TooDeep);
    let args = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(with_body(&format!("[{args}, {{}}, null]")).unwrap().message.args.get(), args);
}

#[test]
fn python_nan_arrives_as_text() {
    let decoded = with_body("[[NaN, -Infinity], {}, null]").unwrap();
    assert_eq!(decoded.message.args.get(), "[\"NaN\", \"-Infinity\"]");
}

#[test]
fn protocol_1_is_understood() {
    let body = json!({"task": "fx.add", "id": "one", "args": [2, 3], "kwargs": {}, "retries": 1, "eta": null, "taskset": "g",
        "timelimit": [10, null], "callbacks": [{"task": "fx.mul", "args": [1], "kwargs": {}, "options": {}}], "utc": true});
    let old = changed(|message| {
        message["headers"] = json!({});
        message["body"] = STANDARD.encode(body.to_string()).into();
    });
    let Decoded { message, headers, .. } = old.unwrap();
    assert_eq!((message.id.as_str(), message.retries, message.limits.hard), ("one", 1, Some(10.0)));
    assert_eq!((message.group.unwrap().as_str(), message.embed.callbacks.len()), ("g", 1));
    assert_eq!(value(&headers)["id"], "one");
}

/// Damaged copies of everything recorded: cut off, or with single bytes changed.
#[test]
fn damaged_bytes_never_panic() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below.max(1)
    };
    let mut texts = Vec::new();
    for (_, vector) in vectors::all() {
        for command in ["LPUSH", "PUBLISH", "SETEX", "ZADD"] {
            texts.extend(vectors::payloads(&vector, command, |_| true));
        }
    }
    for text in texts.iter().step_by(19) {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = b"\"\\{}[],:0-NaIn\xff\x00 "[random(17)];
        }
        bytes.truncate(bytes.len() - random(bytes.len()) * random(2));
        drop(Decoded::decode(&bytes));
        drop(crate::result::ResultMeta::decode(&bytes));
        drop(crate::event::Event::decode(&bytes));
        drop(crate::control::Request::decode(&bytes));
        drop(crate::chord::Part::decode(&bytes));
        let text = String::from_utf8_lossy(&bytes);
        drop(crate::task::Submission::parse(&text, crate::task::signature::Limits::default()));
        // The same damage inside a body that base64 protects from it.
        if let Ok(body) = Decoded::decode(texts[random(texts.len())].as_bytes()).map(|decoded| decoded.body) {
            let mut body = body.into_bytes();
            let at = random(body.len());
            body[at] = b"\"{}[],:0N"[random(9)];
            drop(with_body(&String::from_utf8_lossy(&body)));
        }
    }
}
