//! Server-sent events: contents, order, and reconnects (rows T3, T4; promise P6).

use serde_json::{Value, json};

use crate::harness::environment::{Harness, Options};
use crate::harness::sse::Event;
use crate::harness::{Latch, wait};

fn assert_in_order(events: &[Event]) {
    for pair in events.windows(2) {
        assert!(pair[0].seq() < pair[1].seq(), "{pair:?}");
    }
}

fn metas(events: &[Event]) -> Vec<Value> {
    events.iter().filter(|event| event.event == "progress").map(|event| event.json()["meta"].clone()).collect()
}

#[tokio::test]
async fn a_watcher_sees_each_step_and_the_end() {
    let env = Harness::shared();
    let id = env.submit("demo.progress", json!([5, 0.05])).await;
    let mut stream = env.http.events(&format!("/v1/tasks/{id}/events"), &[("last-event-id", "0")]).await;
    let events = stream.rest().await;
    assert_in_order(&events);
    let expected: Vec<_> =
        (1..=5).map(|step| json!({"progress": step, "total": 5, "message": format!("step {step}")})).collect();
    assert_eq!(metas(&events), expected);
    for event in &events[..events.len() - 1] {
        let data = event.json();
        assert!(event.event == "state" || event.event == "progress", "{event:?}");
        assert_eq!((&data["task_id"], &data["seq"]), (&json!(id), &json!(event.seq())), "{event:?}");
        for field in ["status", "phase", "at", "worker", "retries", "meta"] {
            assert!(data.get(field).is_some(), "no {field} in {event:?}");
        }
    }
    let end = events.last().expect("an end");
    assert_eq!(end.event, "end");
    assert_eq!(end.json(), env.http.get(&format!("/result/{id}")).await.expect(200));
}

#[tokio::test]
async fn a_stream_begins_with_how_it_is_now() {
    let env = Harness::shared();
    let latch = Latch::closed();
    let id = env.submit("demo.progress_until", latch.args(())).await;
    let mut stream = env.http.events(&format!("/v1/tasks/{id}/events"), &[]).await;
    let first = stream.next().await.expect("how it is now");
    assert_eq!((first.event.as_str(), &first.json()["task_id"]), ("snapshot", &json!(id)), "{first:?}");
    latch.open();
    let mut events = vec![first];
    events.extend(stream.until("end").await);
    assert!(events[1..].iter().all(|event| event.event != "snapshot"), "{events:?}");
    assert_in_order(&events);
}

#[tokio::test]
async fn a_reader_that_comes_back_misses_and_repeats_nothing() {
    let env = Harness::shared();
    let id = env.submit("demo.progress", json!([10, 0.05])).await;
    let path = format!("/v1/tasks/{id}/events");
    let (mut seen, mut last) = (Vec::new(), "0".to_owned());
    // A new connection for every two events.
    while seen.last().is_none_or(|event: &Event| event.event != "end") {
        let mut stream = env.http.events(&path, &[("last-event-id", &last)]).await;
        for _ in 0..2 {
            let Some(event) = stream.next().await else { break };
            last = event.id.clone().expect("an id");
            seen.push(event);
        }
    }
    let whole = env.http.events(&path, &[("last-event-id", "0")]).await.rest().await;
    assert_eq!(seen, whole);
    assert_eq!(metas(&seen).len(), 10);
}

#[tokio::test]
async fn a_finished_task_has_only_its_end_and_then_nothing() {
    let env = Harness::shared();
    let id = env.submit("demo.add", json!([1, 1])).await;
    env.finished(&id).await;
    let path = format!("/v1/tasks/{id}/events");
    let events = env.http.events(&path, &[]).await.rest().await;
    assert_eq!(events.iter().map(|event| event.event.as_str()).collect::<Vec<_>>(), ["end"]);
    let last = events[0].seq();
    for after in [last, last + 100] {
        let answer = env.http.get_with(&path, &[("last-event-id", &after.to_string())]).await;
        assert_eq!((answer.status, answer.text()), (204, String::new()));
    }
}

/// A database that crashes may lose steps that were shown, and give their numbers to what comes then.
#[tokio::test]
async fn an_end_is_told_to_whoever_has_seen_higher_numbers() {
    let env = Harness::shared();
    let latch = Latch::closed();
    let id = env.submit("demo.until", latch.args("done")).await;
    env.in_phase(&id, "running").await;
    let mut stream = env.http.events(&format!("/v1/tasks/{id}/events"), &[("last-event-id", "100")]).await;
    latch.open();
    assert_eq!(stream.until("end").await.last().expect("an end").json()["result"], "done");
}

#[tokio::test]
async fn the_same_events_come_as_one_json_document() {
    let env = Harness::shared();
    let id = env.submit("demo.progress", json!([2, 0.01])).await;
    env.finished(&id).await;
    let path = format!("/v1/tasks/{id}/events");
    let document = env.http.get_with(&path, &[("accept", "application/json")]).await.expect(200);
    let stream = env.http.events(&path, &[("last-event-id", "0")]).await.rest().await;
    let listed: Vec<u64> =
        document["events"].as_array().expect("events").iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(listed, stream.iter().map(Event::seq).collect::<Vec<_>>(), "{document}");
}

#[tokio::test]
async fn attempts_and_custom_states_are_visible() {
    let env = Harness::shared();
    let id = env.submit("demo.retry", json!([1, 1])).await;
    let events = env.http.events(&format!("/v1/tasks/{id}/events"), &[("last-event-id", "0")]).await.rest().await;
    let attempts: Vec<_> = events.iter().filter_map(|event| event.json()["retries"].as_u64()).collect();
    assert_eq!((attempts.first(), attempts.last()), (Some(&0), Some(&1)), "{events:?}");
    // Celery may report the next attempt before the RETRY of the present one: each event has the number of its own attempt.
    let retried: Vec<_> = events.iter().map(Event::json).filter(|event| event["status"] == "RETRY").collect();
    assert_eq!(retried.iter().map(|event| &event["retries"]).collect::<Vec<_>>(), [&json!(0)], "{events:?}");
    let id = env.submit("demo.custom_state", json!(["DOWNLOADING", {"file": "a.pdf"}])).await;
    let events = env.http.events(&format!("/v1/tasks/{id}/events"), &[("last-event-id", "0")]).await.rest().await;
    let custom = events.iter().find(|event| event.event == "progress").expect("a custom state").json();
    assert_eq!((&custom["status"], &custom["meta"]), (&json!("DOWNLOADING"), &json!({"file": "a.pdf"})));
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_and_an_unknown_task_has_none() {
    let env = Harness::start(&Options {
        config: "http.sse_heartbeat = '300ms'".into(),
        without_worker: true,
        ..Options::default()
    });
    let id = env.submit("demo.add", json!([1, 1])).await;
    let mut stream = env.http.events(&format!("/v1/tasks/{id}/events"), &[]).await;
    stream.until_comment(wait::DEADLINE).await;
    stream.until_comment(wait::DEADLINE).await;
    let unknown = "/v1/tasks/01890000-0000-7000-8000-000000000000/events";
    assert_eq!(env.http.get(unknown).await.status, 404);
}

/// The aim is 5 ms at the median on an idle machine; here other tests compete for two cores, so this
/// only tells push from a poll once a second. The number itself is measured where nothing else runs.
#[tokio::test]
async fn an_update_is_not_waited_for_by_polling() {
    let env = Harness::shared();
    let latch = Latch::closed();
    let mut args = latch.args(());
    args.as_array_mut().expect("a list").push(json!(0.03));
    let id = env.submit("demo.progress_until", args).await;
    let mut stream = env.http.events(&format!("/v1/tasks/{id}/events"), &[]).await;
    let mut late = Vec::new();
    while late.len() < 30 {
        let event = stream.next().await.expect("it goes on");
        if event.event == "progress" {
            let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64();
            late.push(now - event.json()["meta"]["sent_at"].as_f64().expect("a time"));
        }
    }
    latch.open();
    late.sort_by(f64::total_cmp);
    assert!(late[late.len() / 2] < 0.5, "half of the updates took longer than half a second: {late:?}");
}
