use std::collections::HashMap;

use serde_json::Value;

use super::*;
use crate::vectors;
use crate::{Decoded, chord, result::ResultMeta};

/// The behaviour of a recorded cluster: all messages in order, and the results by id.
struct Recorded {
    messages: Vec<Message>,
    results: HashMap<String, ResultMeta>,
}

impl Recorded {
    fn of(vector: &Value) -> Self {
        let messages = vectors::messages(vector).into_iter().filter_map(|text| Decoded::decode(text.as_bytes()).ok());
        let records = vectors::payloads(vector, "SETEX", |key| key.starts_with("celery-task-meta-"));
        let results = records.into_iter().filter_map(|text| ResultMeta::decode(text.as_bytes()).ok());
        let by_id = |meta: ResultMeta| (meta.task_id.clone().unwrap().as_str().to_owned(), meta);
        Self { messages: messages.map(|decoded| decoded.message).collect(), results: results.map(by_id).collect() }
    }

    fn sent_by<'a>(&'a self, parent: &'a str) -> impl Iterator<Item = &'a Message> {
        self.messages.iter().filter(move |message| message.parent_id.as_ref().is_some_and(|id| id.as_str() == parent))
    }

    fn by_id(&self, id: &str) -> Option<&Message> {
        self.messages.iter().find(|message| message.id.as_str() == id)
    }
}

/// A message without what a client or worker chooses freely: new ids, and group ids, which Celery also writes where they say nothing.
fn told(message: &Message) -> Value {
    fn plain(value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let dull = ["reply_to", "root_id", "parent_id", "group_id", "add_to_parent", "priority"];
                let members =
                    members.into_iter().filter(|(name, value)| !dull.contains(&name.as_str()) && !value.is_null());
                members.map(|(name, value)| (name, plain(value))).collect()
            }
            Value::Array(elements) => elements.into_iter().map(plain).collect(),
            other => other,
        }
    }
    let body: Value = serde_json::from_str(&message.body()).unwrap();
    plain(serde_json::json!({"task": message.task.as_str(), "index": message.group_index, "body": body}))
}

fn with_sender<T>(run: impl FnOnce(&mut Sender<'_>) -> T) -> T {
    let mut count = 0;
    let mut ids = || {
        count += 1;
        TaskId::parse(format!("new-{count}")).unwrap()
    };
    run(&mut Sender {
        now: "2026-11-20T18:00:00Z".parse().unwrap(),
        origin: "gen1@host",
        default_queue: "celery",
        ids: &mut ids,
    })
}

/// Asserts that the recorded worker sent the same, and gives the number of messages.
fn assert_sent(name: &str, recorded: &Recorded, parent: &str, sends: &[Send]) -> usize {
    for send in sends {
        let ours = told(&send.message);
        let theirs: Vec<Value> = recorded.sent_by(parent).map(told).collect();
        assert!(theirs.contains(&ours), "{name}: {parent}\n ours {ours}\n theirs {theirs:?}");
        assert_eq!(send.message.parent_id.as_ref().map(TaskId::as_str), Some(parent));
        if !send.message.id.as_str().starts_with("new-") {
            assert!(recorded.by_id(send.message.id.as_str()).is_some(), "{name}");
        }
    }
    sends.len()
}

#[test]
fn after_success_the_same_messages_are_sent_as_by_celery() {
    let (mut sent, mut sizes) = (0, 0);
    for (name, vector) in vectors::all().into_iter().filter(|(name, _)| name.contains("5.7/run_")) {
        let recorded = Recorded::of(&vector);
        for message in &recorded.messages {
            let Some(meta) = recorded.results.get(message.id.as_str()).filter(|meta| meta.status == "SUCCESS") else {
                continue;
            };
            let next = with_sender(|sender| after_success(message, &meta.result, sender)).unwrap();
            sent += assert_sent(&name, &recorded, message.id.as_str(), &next.sends);
            for (id, size) in &next.chord_sizes {
                let written = vectors::payloads(&vector, "SET", |key| *key == format!("celery-taskset-meta-{id}.s"));
                assert!(written.is_empty() || sizes_of(&vector, id) == [*size], "{name}");
                sizes += 1;
            }
        }
    }
    assert!(sent >= 15 && sizes >= 1, "sent {sent}, sizes {sizes}");
}

fn sizes_of(vector: &Value, id: &str) -> Vec<usize> {
    let key = format!("celery-taskset-meta-{id}.s");
    let commands = vector["commands"].as_array().unwrap().iter().map(|entry| entry["cmd"].as_array().unwrap());
    commands
        .filter(|cmd| cmd[0] == "SET" && cmd[1] == key.as_str())
        .map(|cmd| cmd[2].as_str().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_complete_header_sends_its_body_as_celery_does() {
    let mut sent = 0;
    for (name, vector) in vectors::all().into_iter().filter(|(name, _)| name.contains("5.7/run_ch")) {
        let recorded = Recorded::of(&vector);
        let bodies: HashMap<String, Signature> = recorded
            .messages
            .iter()
            .filter_map(|message| message.embed.chord.as_deref().cloned())
            .filter_map(|body| Some((first_id(&body)?, body)))
            .collect();
        for (id, body) in bodies {
            let Some(theirs) = recorded.by_id(&id) else { continue };
            let Some(member) = theirs.parent_id.as_ref().and_then(|id| recorded.by_id(id.as_str())) else { continue };
            let values = json::elements(&theirs.args).unwrap()[0].to_owned();
            let next = with_sender(|sender| chord_body(member, &body, &values, sender)).unwrap();
            let sends: Vec<Send> = next.sends;
            for send in &sends {
                let recorded = told(recorded.by_id(send.message.id.as_str()).unwrap());
                assert_eq!(told(&send.message), recorded, "{name}");
                sent += 1;
            }
        }
    }
    assert!(sent >= 10, "only {sent}");
}

/// The id of the first task that a body sends.
fn first_id(body: &Signature) -> Option<String> {
    match &body.form {
        Form::Task { .. } => body.options.task_id.clone(),
        Form::Chain(members) | Form::Group(members) => first_id(members.first()?),
        Form::Chord { header, .. } => first_id(header),
    }
}

#[test]
fn after_failure_errbacks_are_sent_and_the_chain_is_doomed() {
    for name in ["run_link_error_id", "run_link_error_unknown"] {
        let recorded = Recorded::of(&vectors::load(name));
        let failed = &recorded.messages[0];
        let aftermath = with_sender(|sender| after_failure(failed, sender)).unwrap();
        assert_eq!(assert_sent(name, &recorded, failed.id.as_str(), &aftermath.errbacks), 1);
    }
    let recorded = Recorded::of(&vectors::load("run_chain_fail"));
    let failed =
        recorded.messages.iter().find(|message| recorded.results[message.id.as_str()].traceback.is_some()).unwrap();
    let aftermath = with_sender(|sender| after_failure(failed, sender)).unwrap();
    assert!(!aftermath.doomed.is_empty());
    for doomed in &aftermath.doomed {
        assert_eq!(recorded.results[&doomed.task_id].status, "FAILURE");
    }
}

#[test]
fn a_failed_header_dooms_the_body() {
    let vector = vectors::load("run_chord_fail");
    let recorded = Recorded::of(&vector);
    let member = recorded.messages.iter().find(|message| message.embed.chord.is_some()).unwrap();
    let body = member.embed.chord.as_deref().unwrap();
    let aftermath = with_sender(|sender| chord_failed(member, body, sender)).unwrap();
    let ids: Vec<&str> = aftermath.doomed.iter().map(|doomed| doomed.task_id.as_str()).collect();
    assert_eq!(ids, [body.options.task_id.as_deref().unwrap()]);
    let parts = vectors::payloads(&vector, "ZADD", |key| key.ends_with(".j"));
    let failed =
        parts.iter().map(|text| chord::Part::decode(text.as_bytes()).unwrap()).find(chord::Part::has_failed).unwrap();
    let stored = recorded.results[ids[0]].exception().unwrap();
    assert_eq!((stored.kind.as_str(), stored.text()), ("ChordError", failed.chord_error().text()));
}

fn message(embed: &str) -> Message {
    let task = TaskName::parse("t").unwrap();
    let mut message =
        Message::new(task, TaskId::parse("me").unwrap(), json::written("[]".into()), json::written("{}".into()));
    message.embed = Embed::decode(&json::verbatim(embed.to_owned()).unwrap()).unwrap();
    message
}

#[test]
fn options_of_a_step_are_honoured() {
    let step = r#"{"task": "b", "args": [2], "options": {"task_id": "x", "queue": "q", "priority": 12, "countdown": 10, "expires": 60,
        "time_limit": 5, "headers": {"h": 1}, "stamped_headers": ["s"], "s": "v", "link": {"task": "c", "args": [], "options": {}}},
        "immutable": true}"#;
    let next =
        with_sender(|sender| after_success(&message(&format!("{{\"chain\": [{step}]}}")), &json::null(), sender))
            .unwrap();
    let send = &next.sends[0];
    assert_eq!((send.routing_key.as_str(), send.priority, send.message.args.get()), ("q", 9, "[2]"));
    assert_eq!(send.message.eta.unwrap().to_string(), "2026-11-20T18:00:10Z");
    assert_eq!(send.message.expires.unwrap().to_string(), "2026-11-20T18:01:00Z");
    assert_eq!((send.message.limits.hard, send.message.custom[0].0.as_str()), (Some(5.0), "h"));
    assert_eq!(send.message.stamps.as_ref().unwrap().get(), r#"{"s": "v"}"#);
    assert_eq!((send.message.embed.callbacks.len(), next.children[0].id.as_str()), (1, "x"));
}

#[test]
fn what_follows_a_chord_moves_into_its_body_and_steps_without_queue_use_the_default() {
    let plain = |name: &str| format!("{{\"task\": \"{name}\", \"args\": [], \"options\": {{}}}}");
    let group = format!(
        r#"{{"task": "celery.group", "args": [], "kwargs": {{"tasks": [{}, {}]}}, "options": {{}}, "subtask_type": "group"}}"#,
        plain("h"),
        plain("h")
    );
    let chord = format!(
        r#"{{"task": "celery.chord", "args": [], "kwargs": {{"header": {group}, "body": {}}}, "options": {{"task_id": "g"}}, "subtask_type": "chord"}}"#,
        plain("b")
    );
    let embed = format!("{{\"chain\": [{}, {chord}]}}", plain("after"));
    let next =
        with_sender(|sender| after_success(&message(&embed), &json::verbatim("7".into()).unwrap(), sender)).unwrap();
    assert_eq!(next.chord_sizes, [("g".to_owned(), 2)]);
    assert_eq!(
        (next.sends.len(), next.sends[1].routing_key.as_str(), next.sends[1].message.args.get()),
        (2, "celery", "[7]")
    );
    let body = next.sends[0].message.embed.chord.as_ref().unwrap();
    assert_eq!(body.options.chain.as_ref().unwrap()[0].name(), "after");
    assert!(body.options.task_id.is_some() && next.sends[1].message.group_index == Some(1));
}

#[test]
fn an_empty_header_applies_the_body_at_once() {
    let embed = r#"{"chain": [{"task": "celery.chord", "args": [], "kwargs": {"header": {"task": "celery.group", "args": [],
        "kwargs": {"tasks": []}, "options": {}, "subtask_type": "group"}, "body": {"task": "b", "args": [1], "options": {}}},
        "options": {}, "subtask_type": "chord"}]}"#;
    let next = with_sender(|sender| after_success(&message(embed), &json::null(), sender)).unwrap();
    assert!(next.chord_sizes.is_empty());
    assert_eq!(next.sends[0].message.args.get(), "[[], 1]");
}

#[test]
fn a_signature_without_a_valid_name_sends_nothing() {
    let embed = r#"{"callbacks": [{"task": "", "args": [], "options": {}}]}"#;
    assert!(with_sender(|sender| after_success(&message(embed), &json::null(), sender)).is_err());
}
