//! How events read, from vectors and by hand.

use serde_json::Value;

use super::*;
use crate::vectors;

/// Python prints floats with their shortest digits; ours are rounded to microseconds.
fn rounded(mut event: Value) -> Value {
    event["timestamp"] = serde_json::json!((event["timestamp"].as_f64().unwrap() * 1e6).round() / 1e6);
    for name in ["freq", "utcoffset"] {
        if let Some(number) = event[name].as_f64() {
            event[name] = number.into();
        }
    }
    event
}

fn body(payload: &[u8]) -> Value {
    serde_json::from_str(&Envelope::decode(payload).unwrap().json_body().unwrap()).unwrap()
}

#[test]
fn every_recorded_event_is_read_as_its_type_and_written_as_celery_wrote_it() {
    let mut seen = 0;
    for (name, vector) in vectors::all().into_iter().filter(|(name, _)| !name.ends_with("config_tz")) {
        let mut payloads = vectors::payloads(&vector, "PUBLISH", |channel| channel.contains("celeryev"));
        payloads.extend(vector["raw"].as_str().filter(|_| name.contains("/event_")).map(str::to_owned));
        for payload in payloads {
            let expected = body(payload.as_bytes());
            let expected = expected.as_array().cloned().unwrap_or_else(|| vec![expected]);
            let events = Event::decode(payload.as_bytes()).unwrap();
            assert_eq!(events.len(), expected.len(), "{name}");
            for (event, expected) in events.iter().zip(expected) {
                let mut text = String::new();
                event.encode(&mut text);
                assert!(!matches!(event.kind, Kind::Other { .. }), "{name}");
                assert_eq!(rounded(serde_json::from_str(&text).unwrap()), rounded(expected), "{name}");
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "only {seen}");
}

#[test]
fn the_message_around_events_is_kombus() {
    for name in ["event_task_started", "event_worker_offline", "event_task_sent"] {
        let vector = vectors::load(name);
        let raw = vector["raw"].as_str().unwrap();
        let events = Event::decode(raw.as_bytes()).unwrap();
        let tag = Envelope::decode(raw.as_bytes()).unwrap().properties.delivery_tag;
        let list = name == "event_task_started";
        let ours =
            if list { encode_tasks(&events, "celeryev", &tag) } else { encode_one(&events[0], "celeryev", &tag) };
        let (mut ours, mut theirs): (Value, Value) =
            (serde_json::from_slice(&ours).unwrap(), serde_json::from_str(raw).unwrap());
        (ours["body"], theirs["body"]) = (Value::Null, Value::Null);
        assert_eq!(ours, theirs);
        assert!(vector["channel"].as_str().unwrap().ends_with(&events[0].routing_key()));
    }
}

#[test]
fn one_unreadable_event_does_not_hide_its_neighbours() {
    let body = r#"[7, {"type": "task-started", "uuid": "", "timestamp": 1.5}, {"type": "task-started", "uuid": "a", "timestamp": 1.5},
        {"type": "my-own", "timestamp": 2, "x": 12345678901234567890123}, {"type": "task-started", "uuid": "b"}]"#;
    let payload = envelope("{}", body, &Properties::transient("celeryev", "task.multi", "t"));
    let events = Event::decode(&payload).unwrap();
    assert_eq!(events.iter().map(|event| event.kind.name().to_owned()).collect::<Vec<_>>(), ["task-started", "my-own"]);
    let mut text = String::new();
    events[1].encode(&mut text);
    assert!(text.contains("\"x\": 12345678901234567890123"), "{text}");
}

#[test]
fn a_heartbeat_on_request_has_no_counts() {
    let vector = vectors::load("event_worker_heartbeat_on_request");
    let events = Event::decode(vector["raw"].as_str().unwrap().as_bytes()).unwrap();
    let Kind::Worker { news, state } = &events[0].kind else { panic!("not a worker's event") };
    assert_eq!((*news, state.freq, state.active), (WorkerNews::Heartbeat, Some(5.0), None));
}
