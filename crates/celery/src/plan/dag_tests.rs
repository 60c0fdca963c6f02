//! Tests which parts of a DAG workers send, and which wait for the gateway.

use super::super::tests::{NOW, defaults, planned, try_plan};
use super::*;
use crate::json::Members;

fn part(plan: &Plan, at: usize) -> StoredPart {
    StoredPart::parse(&plan.dag.as_ref().unwrap().parts[at].document).unwrap()
}

fn names<'a>(plan: &'a Plan, nodes: &[usize]) -> Vec<&'a str> {
    nodes.iter().map(|node| plan.nodes[*node].node.task.task.as_str()).collect()
}

fn edges(plan: &Plan) -> Vec<String> {
    let name = |node: usize| plan.nodes[node].node.task.task.as_str();
    let mut edges: Vec<String> =
        plan.edges.iter().map(|(from, to, kind)| format!("{} {} {}", name(*from), kind.as_str(), name(*to))).collect();
    edges.sort();
    edges
}

#[test]
fn a_line_is_a_chain_and_a_diamond_without_places_a_chord() {
    let line = r#"{"dag": {"nodes": {"a": {"task": "a"}, "b": {"task": "b", "args": ["{a}", 2], "after": ["a"]}, "c": {"task": "c", "after": ["b"]}}}}"#;
    let plan = planned(line);
    assert_eq!(edges(&plan), ["a next b", "b next c"]);
    assert!(plan.dag.as_ref().unwrap().parts.is_empty());
    let body = &plan.nodes[0].body;
    assert!(body.contains(r#""task": "b", "args": [2]"#), "{body}");
    assert_eq!(plan.outcome, Outcome::Task(2));
    let diamond = r#"{"dag": {"nodes": {"a": {"task": "a"}, "b": {"task": "b", "after": ["a"]}, "c": {"task": "c", "after": ["a"]}, "d": {"task": "d", "after": ["b", "c"]}}}}"#;
    let plan = planned(diamond);
    assert_eq!(edges(&plan), ["a next b", "a next c", "b next d", "c next d"]);
    assert!(plan.dag.as_ref().unwrap().parts.is_empty());
    assert_eq!(names(&plan, &plan.publish), ["a"]);
}

#[test]
fn what_the_wire_cannot_carry_waits_for_the_gateway() {
    let uneven = r#"{"dag": {"nodes": {"a": {"task": "a"}, "b": {"task": "b", "after": ["a"]}, "c": {"task": "c", "args": ["{a.x}", "{b}"], "after": ["a", "b"]}}}}"#;
    let plan = planned(uneven);
    assert_eq!(edges(&plan), ["a after b", "a after c", "b after c"]);
    assert_eq!(names(&plan, &plan.publish), ["a"]);
    assert!(plan.nodes[1].headers.is_none() && plan.nodes[2].body.contains("{a.x}"));
    let last = part(&plan, 1);
    assert_eq!(last.reads.keys().collect::<Vec<_>>(), ["a", "b"]);
    let value_of = |name: &str| Ok(if name == "a.x" { "1.50".to_owned() } else { "[true]".to_owned() });
    let signature = last.filled(&value_of).unwrap();
    let members = Members::new();
    let context = Context { now: NOW.parse().unwrap(), origin: "gen1@host", headers: &members, reply_to: None };
    let sent = release(&last, signature, &context, &defaults).unwrap();
    assert_eq!(sent.nodes[0].node.id, plan.nodes[2].node.id);
    assert!(sent.nodes[0].body.contains("1.50") && sent.nodes[0].body.contains("[true]"), "{}", sent.nodes[0].body);
    assert_eq!(sent.root, plan.root);
}

#[test]
fn several_ends_are_a_group_of_which_each_keeps_its_place() {
    let ends = r#"{"dag": {"nodes": {"a": {"task": "a"}, "b": {"task": "b", "args": ["{a.x}"], "after": ["a"]}, "c": {"group": [{"task": "c", "args": ["{a.y}"]}, {"task": "d"}], "after": ["a"]}}}}"#;
    let plan = planned(ends);
    let Outcome::Group(id) = &plan.outcome else { panic!("{:?}", plan.outcome) };
    let group = plan.groups.iter().find(|group| group.id == *id).unwrap();
    assert_eq!(names(&plan, &group.members), ["b", "c", "d"]);
    let members = Members::new();
    let context = Context { now: NOW.parse().unwrap(), origin: "gen1@host", headers: &members, reply_to: None };
    let stored = part(&plan, 1);
    let sent = release(&stored, stored.filled(&|_| Ok("0".to_owned())).unwrap(), &context, &defaults).unwrap();
    let places: Vec<_> = sent.nodes.iter().map(|planned| planned.node.group.clone().unwrap()).collect();
    assert_eq!(places, [(id.clone(), 1), (id.clone(), 2)]);
    let ids: Vec<_> = sent.nodes.iter().map(|planned| &planned.node.id).collect();
    assert_eq!(ids, group.members[1..].iter().map(|node| &plan.nodes[*node].node.id).collect::<Vec<_>>());
}

#[test]
fn a_result_that_is_not_stored_cannot_be_read() {
    let text = r#"{"dag": {"nodes": {"a": {"task": "a", "ignore_result": true}, "b": {"task": "b", "args": ["{a.x}"], "after": ["a"]}}}}"#;
    let found = try_plan(text).unwrap_err();
    assert_eq!(found[0].pointer, "/dag/nodes/b");
}

#[test]
fn doubled_braces_are_braces_wherever_the_node_is_sent_from() {
    let text = r#"{"dag": {"nodes": {"a": {"task": "a", "args": ["{{x}}"]}, "b": {"task": "b", "args": ["{{y}}"], "after": ["a"]}, "c": {"task": "c", "args": ["{a.x}{{z}}"], "after": ["b"]}}}}"#;
    let plan = planned(text);
    assert!(plan.nodes[0].body.contains("{x}") && plan.nodes[0].body.contains("{y}"), "{}", plan.nodes[0].body);
    let stored = part(&plan, 0);
    let Signature::Task(task) = stored.filled(&|_| Ok("1".to_owned())).unwrap() else { panic!() };
    assert_eq!(task.args.get(), r#"["1{z}"]"#);
}

#[test]
fn the_rest_of_a_dag_follows_tasks_that_are_in_the_ledger() {
    let whole =
        planned(r#"{"dag": {"nodes": {"a": {"task": "a"}, "b": {"task": "b", "args": ["{a.x}"], "after": ["a"]}}}}"#);
    let mut rest = Reader::stored_dag(&whole.dag.unwrap().document).unwrap();
    let old = rest.nodes[0].signature.clone();
    rest.nodes[0].kept = true;
    rest.nodes[1].signature.visit_mut(&mut |task| task.task_id = None);
    let (mut ids, members) = (|| TaskId::from(uuid::Uuid::from_u128(99)), Members::new());
    let context = Context { now: NOW.parse().unwrap(), origin: "gen1@host", headers: &members, reply_to: None };
    let plan = super::super::plan(Signature::Dag(rest), &context, &mut ids, &defaults).unwrap();
    assert_eq!((plan.nodes.len(), plan.publish.len()), (1, 0));
    assert_eq!(plan.dag.as_ref().unwrap().joins, [(results(&old).ids[0].clone(), 0)]);
    assert_eq!(part(&plan, 0).reads["a"].ids, [results(&old).ids[0].to_string()]);
}
