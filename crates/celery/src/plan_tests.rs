use std::collections::HashMap;

use base64::Engine as _;
use serde_json::{Value, json};

use super::*;
use crate::task::signature::Limits;
use crate::task::{QueueName, Submission};
use crate::vectors;

pub(super) const NOW: &str = "2026-11-20T18:00:00Z";

pub(super) fn defaults(_: &TaskSignature) -> NodeDefaults {
    NodeDefaults {
        queue: QueueName::parse("celery").unwrap(),
        priority: None,
        soft_time_limit: None,
        time_limit: None,
        ignore_result: None,
    }
}

pub(super) fn try_plan(text: &str) -> Result<Plan, Vec<Invalid>> {
    let submission = Submission::parse(text, Limits::default()).unwrap_or_else(|found| panic!("{found:?}"));
    let mut count = 0_u128;
    let mut ids = || {
        count += 1;
        TaskId::from(uuid::Uuid::from_u128(count))
    };
    let context = Context { now: NOW.parse().unwrap(), origin: "gen1@host", headers: &Members::new(), reply_to: None };
    plan(submission.signature, &context, &mut ids, &defaults)
}

pub(super) fn planned(text: &str) -> Plan {
    try_plan(text).unwrap()
}

/// What is said of one call: its message without identities that every client chooses for itself.
fn told(headers: &str, body: &str) -> Value {
    let (headers, body): (Value, Value) = (serde_json::from_str(headers).unwrap(), serde_json::from_str(body).unwrap());
    let kept =
        ["task", "id", "group", "group_index", "expires", "timelimit", "argsrepr", "kwargsrepr", "shadow", "stamps"];
    let headers: serde_json::Map<_, _> =
        kept.into_iter().map(|name| (name.to_owned(), headers[name].clone())).collect();
    json!({"headers": headers, "body": body})
}

/// Removes what says nothing: nulls, empty options, the default queue, ids of links, and `group_id`, which repeats the header's.
fn plain(value: Value, inside_link: bool) -> Value {
    match value {
        Value::Object(members) => {
            let skip = |name: &str, value: &Value| {
                matches!(name, "reply_to" | "root_id" | "parent_id" | "add_to_parent" | "group_id" | "ignore_result")
                    || (name == "queue" && value == "celery")
                    || (name == "task_id" && inside_link)
            };
            let link = |name: &str| matches!(name, "link" | "link_error" | "callbacks" | "errbacks") || inside_link;
            let members = members.into_iter().filter(|(name, value)| !skip(name, value));
            let members = members.map(|(name, value)| {
                let inside = link(&name);
                (name, plain(value, inside))
            });
            Value::Object(members.filter(|(_, value)| !value.is_null()).collect())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(|value| plain(value, inside_link)).collect()),
        other => other,
    }
}

/// Ids replaced by the order in which they appear.
fn anonymous(value: &Value) -> Value {
    fn is_id(text: &str) -> bool {
        text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    }
    fn walk(value: &Value, names: &mut HashMap<String, usize>) -> Value {
        match value {
            Value::String(text) if is_id(text) => {
                let next = names.len();
                format!("#{}", names.entry(text.clone()).or_insert(next)).into()
            }
            Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), walk(value, names))).collect(),
            Value::Array(elements) => elements.iter().map(|value| walk(value, names)).collect(),
            other => other.clone(),
        }
    }
    walk(value, &mut HashMap::new())
}

/// Messages, chord sizes and saved structures of a recorded producer.
fn recorded(name: &str) -> Value {
    let vector = vectors::load(name);
    let messages: Vec<Value> = vectors::messages(&vector)
        .iter()
        .map(|text| {
            let envelope: Value = serde_json::from_str(text).unwrap();
            let body = base64::engine::general_purpose::STANDARD.decode(envelope["body"].as_str().unwrap()).unwrap();
            told(&envelope["headers"].to_string(), std::str::from_utf8(&body).unwrap())
        })
        .collect();
    let mut sizes = Vec::new();
    let mut saved = Vec::new();
    for entry in vector["commands"].as_array().unwrap() {
        let words: Vec<&str> = entry["cmd"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        if let ["SET", key, value, ..] = words[..] {
            let id = key.trim_start_matches("celery-taskset-meta-");
            match id.strip_suffix(".s") {
                Some(id) => sizes.push(json!([id, value.parse::<usize>().unwrap()])),
                None => saved.push(json!([id, serde_json::from_str::<Value>(value).unwrap()])),
            }
        }
    }
    anonymous(&plain(json!({"messages": messages, "sizes": sizes, "saved": saved}), false))
}

/// The same of our plan.
fn ours(text: &str) -> Value {
    let plan = planned(text);
    let message = |index: &usize| {
        let node = &plan.nodes[*index];
        told(node.headers.as_ref().unwrap(), &node.body)
    };
    let messages: Vec<Value> = plan.publish.iter().map(message).collect();
    // Celery sends the inner chords of a header before it announces the outer one.
    let sizes: Vec<Value> = plan.chord_sizes.iter().rev().map(|(id, size)| json!([id.as_str(), size])).collect();
    let saved: Vec<Value> = plan
        .saved_groups
        .iter()
        .map(|(id, text)| json!([id.as_str(), serde_json::from_str::<Value>(text).unwrap()]))
        .collect();
    anonymous(&plain(json!({"messages": messages, "sizes": sizes, "saved": saved}), false))
}

const ADD_1: &str = r#"{"task": "fx.add", "args": [1, 1]}"#;
const ADD_2: &str = r#"{"task": "fx.add", "args": [2, 2]}"#;
const ADD_3: &str = r#"{"task": "fx.add", "args": [3, 3]}"#;
const TO_10: &str = r#"{"task": "fx.add", "args": [10]}"#;
const TO_20: &str = r#"{"task": "fx.add", "args": [20]}"#;
const MUL_2: &str = r#"{"task": "fx.mul", "args": [2]}"#;
const XSUM: &str = r#"{"task": "fx.xsum"}"#;
const ON_ERR: &str = r#"[{"task": "fx.on_err_id"}]"#;

fn chain(steps: &[&str]) -> String {
    format!(r#"{{"chain": [{}]}}"#, steps.join(", "))
}

fn group(members: &[&str]) -> String {
    format!(r#"{{"group": [{}]}}"#, members.join(", "))
}

fn chord(header: &[&str], body: &str) -> String {
    format!(r#"{{"chord": {{"header": [{}], "body": {body}}}}}"#, header.join(", "))
}

#[test]
fn every_recorded_canvas_is_put_on_the_wire_as_celery_does() {
    let later = group(&[TO_10, TO_20]);
    let first = group(&[ADD_1, ADD_2]);
    let cases = [
        ("chain_two", chain(&[r#"{"task": "fx.add", "args": [2, 3]}"#, r#"{"task": "fx.mul", "args": [10]}"#])),
        ("chain_three", chain(&[ADD_1, MUL_2.replace("mul", "add").as_str(), r#"{"task": "fx.add", "args": [3]}"#])),
        ("group_two", first.clone()),
        ("chord_two", chord(&[ADD_1, ADD_2], XSUM)),
        ("chord_one", chord(&[ADD_1], XSUM)),
        ("group_then_task", chain(&[&first, XSUM])),
        ("chain_group_task", chain(&[ADD_1, &later, XSUM])),
        ("chord_in_chain", chain(&[ADD_1, &chord(&[TO_10, TO_20], XSUM), MUL_2])),
        ("chain_ending_in_group", chain(&[ADD_1, &later])),
        ("chain_two_groups", chain(&[&first, &group(&[XSUM, XSUM]), XSUM])),
        ("group_of_chains", group(&[&chain(&[ADD_1, MUL_2]), &chain(&[ADD_2, r#"{"task": "fx.mul", "args": [3]}"#])])),
        ("chord_of_chains", chord(&[&chain(&[ADD_1, MUL_2]), ADD_2], XSUM)),
        ("chord_nested_header", chord(&[&chord(&[ADD_1, ADD_2], XSUM), ADD_3], XSUM)),
        // Celery reverses the members of the inner group; we keep their order.
        ("chord_header_group_in_group", chord(&[&group(&[ADD_2, ADD_1]), ADD_3], XSUM)),
        ("chord_body_chain", chord(&[ADD_1, ADD_2], &chain(&[XSUM, r#"{"task": "fx.mul", "args": [10]}"#]))),
        ("chord_body_group", chord(&[ADD_1, ADD_2], &group(&[r#"{"task": "fx.identity"}"#, XSUM]))),
        ("chord_errback", chord(&[ADD_1, r#"{"task": "fx.fail", "args": ["x"]}"#], &with(XSUM, "link_error", ON_ERR))),
        ("link", with(r#"{"task": "fx.add", "args": [2, 3]}"#, "link", r#"[{"task": "fx.mul", "args": [10]}]"#)),
        ("link_error", with(r#"{"task": "fx.fail", "args": ["x"]}"#, "link_error", ON_ERR)),
        (
            "link_many",
            with(
                r#"{"task": "fx.add", "args": [2, 3]}"#,
                "link",
                r#"[{"task": "fx.mul", "args": [10]}, {"task": "fx.on_ok", "args": ["fixed"], "immutable": true}]"#,
            ),
        ),
        (
            "chain_options",
            chain(&[
                ADD_1,
                r#"{"task": "fx.mul", "args": [2, 2], "queue": "emails", "countdown": 5, "immutable": true}"#,
            ]),
        ),
        (
            "chain_link_error",
            chain(&[
                &with(ADD_1, "link_error", ON_ERR),
                &with(r#"{"task": "fx.fail", "args": ["x"], "immutable": true}"#, "link_error", ON_ERR),
                &with(r#"{"task": "fx.mul", "args": [3]}"#, "link_error", ON_ERR),
            ]),
        ),
    ];
    let differs = |(name, text): &(&str, String)| {
        let (ours, theirs) = (ours(text), recorded(name));
        (ours != theirs).then(|| format!("{name}\n ours {ours}\n theirs {theirs}"))
    };
    let different: Vec<String> = cases.iter().filter_map(differs).collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn with(task: &str, option: &str, value: &str) -> String {
    format!("{}, \"{option}\": {value}}}", task.strip_suffix('}').unwrap())
}

/// Celery numbers the members of the nested group 0 and 1 and the next member 1 again; our places are unique.
#[test]
fn a_header_with_a_group_in_it_saves_its_structure() {
    let text = chord(&[&chain(&[ADD_1, &group(&[TO_10, TO_20])]), ADD_3], r#"{"task": "fx.identity"}"#);
    let (mut ours, mut theirs) = (ours(&text), recorded("chord_header_chain_with_group"));
    for value in [&mut ours, &mut theirs] {
        assert_eq!(value["sizes"][0][1], 3);
        assert!(value["saved"][0][1]["result"].is_array());
        *value = without(value.take(), "group_index");
    }
    assert_eq!(ours, theirs, "\n ours {ours}\n theirs {theirs}");
}

fn without(value: Value, name: &str) -> Value {
    match value {
        Value::Object(members) => {
            members.into_iter().filter(|(key, _)| key != name).map(|(key, value)| (key, without(value, name))).collect()
        }
        Value::Array(elements) => elements.into_iter().map(|value| without(value, name)).collect(),
        other => other,
    }
}

#[test]
fn an_empty_header_sends_its_body_at_once_with_an_empty_list() {
    let plan = planned(&chord(&[], XSUM));
    assert_eq!((plan.publish.len(), plan.chord_sizes.len()), (1, 0));
    let theirs = &recorded("chord_empty")["messages"][0]["body"];
    assert_eq!(serde_json::from_str::<Value>(&plan.nodes[0].body).unwrap()[0], theirs[0]);
    let then = planned(&chain(&[&chord(&[], XSUM), MUL_2]));
    assert_eq!(then.edges, [(0, 1, EdgeKind::Next)]);
    assert!(then.nodes[0].body.starts_with("[[[]], {}, "), "{}", then.nodes[0].body);
}

#[test]
fn an_empty_group_needs_nothing_and_has_a_group_as_its_result() {
    let plan = planned(&group(&[]));
    assert!(plan.nodes.is_empty() && plan.publish.is_empty() && plan.root.is_none());
    assert!(matches!(&plan.outcome, Outcome::Group(id) if plan.groups == [Group { id: id.clone(), members: vec![] }]));
    let nested = planned(&group(&[&group(&[]), ADD_1, &group(&[&group(&[ADD_2])])]));
    assert_eq!(nested.groups[0].members, [0, 1]);
    assert_eq!(nested.groups.len(), 1);
}

#[test]
fn a_group_of_one_gives_its_successor_a_list() {
    let plan = planned(&chain(&[&group(&[ADD_1]), XSUM]));
    assert_eq!(plan.chord_sizes.iter().map(|(_, size)| *size).collect::<Vec<_>>(), [1]);
    assert_eq!(plan.edges, [(0, 1, EdgeKind::Next)]);
    assert_eq!(plan.outcome, Outcome::Task(1));
}

#[test]
fn what_follows_a_chord_with_a_group_body_waits_for_that_group() {
    let plan = planned(&chain(&[&chord(&[ADD_1, ADD_2], &group(&[XSUM, XSUM])), XSUM, MUL_2]));
    assert_eq!(plan.publish, [0, 1]);
    let mut edges = plan.edges.clone();
    edges.sort_unstable_by_key(|(from, to, _)| (*from, *to));
    let pairs: Vec<_> = edges.iter().map(|(from, to, _)| (*from, *to)).collect();
    assert_eq!(pairs, [(0, 2), (0, 3), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5)]);
    assert_eq!(plan.groups.len(), 2);
}

#[test]
fn ids_places_and_parents_are_known_at_submit() {
    let plan = planned(&chain(&[
        ADD_1,
        &group(&[TO_10, &with(TO_20, "task_id", "\"0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42\"")]),
        XSUM,
        &with(MUL_2, "link", "[{\"task\": \"ok\"}]"),
    ]));
    let nodes: Vec<_> = plan.nodes.iter().map(|node| &node.node).collect();
    assert_eq!(
        nodes.iter().map(|node| node.parent).collect::<Vec<_>>(),
        [None, Some(0), Some(0), None, Some(3), Some(4)]
    );
    assert_eq!(nodes.iter().map(|node| node.branch).collect::<Vec<_>>(), [false, false, false, false, false, true]);
    assert_eq!(nodes[2].id.as_str(), "0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42");
    assert_eq!(nodes[2].group.as_ref().map(|(_, index)| *index), Some(1));
    assert_eq!((plan.publish.as_slice(), plan.outcome), (&[0][..], Outcome::Task(4)));
    assert!(plan.edges.contains(&(4, 5, EdgeKind::Link)));
    assert!(plan.nodes[1].headers.is_none() && plan.nodes[1].body.starts_with("[[10], {}, {\"callbacks\": null"));
}

#[test]
fn every_signature_on_the_wire_names_its_queue_and_the_root_is_common() {
    let plan = planned(&chord(&[ADD_1, &chain(&[ADD_2, MUL_2])], &with(XSUM, "link_error", ON_ERR)));
    fn walk(value: &Value) {
        if let Some(options) = value.get("options").filter(|_| value["subtask_type"].is_null()) {
            assert!(options["queue"].is_string() && options["task_id"].is_string(), "{value}");
        }
        value.as_object().into_iter().flat_map(|members| members.values()).for_each(walk);
        value.as_array().into_iter().flatten().for_each(walk);
    }
    for index in &plan.publish {
        walk(&serde_json::from_str(&plan.nodes[*index].body).unwrap());
        let headers: Value = serde_json::from_str(plan.nodes[*index].headers.as_ref().unwrap()).unwrap();
        assert_eq!(headers["root_id"], plan.root.as_ref().unwrap().as_str());
    }
}

#[test]
fn options_stand_where_celery_puts_them() {
    let text = r#"{"task": "a", "time_limit": 30, "soft_time_limit": 20.5, "expires": 60, "ignore_result": true, "countdown": 5,
        "headers": {"x": 1}, "retry": {"max": 2}}"#;
    let plan = planned(text);
    let headers: Value = serde_json::from_str(plan.nodes[0].headers.as_ref().unwrap()).unwrap();
    assert_eq!(headers["timelimit"], json!([30, 20.5]));
    assert_eq!(headers["expires"], "2026-11-20T18:01:00+00:00");
    assert_eq!((&headers["eta"], &headers["ignore_result"], &headers["x"]), (&Value::Null, &json!(true), &json!(1)));
    assert_eq!(headers[RETRY_HEADER]["max"], 2);
    assert_eq!(plan.nodes[0].expires_at, Some("2026-11-20T18:01:00Z".parse().unwrap()));
    let later = planned(&chain(&[ADD_1, text]));
    let body: Value = serde_json::from_str(&later.nodes[0].body).unwrap();
    let options = &body[2]["chain"][0]["options"];
    assert_eq!(
        (&options["countdown"], &options["expires"], &options["headers"]["x"]),
        (&json!(5), &json!(60), &json!(1))
    );
    assert_eq!(options["headers"][RETRY_HEADER]["max"], 2);
}

#[test]
fn what_cannot_have_a_result_or_is_too_wide_is_refused() {
    let found = try_plan(&chord(&[&chain(&[ADD_1, &group(&[])])], XSUM)).unwrap_err();
    assert!(found[0].detail.contains("empty group"), "{found:?}");
    let wide = group(&[XSUM; 600]);
    assert!(try_plan(&chain(&[&wide, &wide])).unwrap_err()[0].detail.contains("250,000"));
}

#[test]
fn ten_thousand_members_are_planned_without_notice() {
    let plan = planned(&chord(&[ADD_1; 10_000], XSUM));
    assert_eq!((plan.publish.len(), plan.chord_sizes[0].1), (10_000, 10_000));
}
