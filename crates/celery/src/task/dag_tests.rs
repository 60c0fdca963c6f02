//! Tests of valid and invalid DAGs, and of the values that arguments read.

use super::*;
use crate::task::Submission;
use crate::task::reader::Reader;
use crate::task::signature::Limits;

fn parse(text: &str) -> Result<Dag, Vec<(String, String)>> {
    let told = |invalid: crate::task::Invalid| (invalid.pointer, invalid.detail);
    let read =
        Submission::parse(text, Limits::default()).map_err(|found| found.into_iter().map(told).collect::<Vec<_>>())?;
    match read.signature {
        Signature::Dag(dag) => Ok(dag),
        other => panic!("no DAG: {other:?}"),
    }
}

const DIAMOND: &str = r#"{"dag": {"nodes": {
    "sum": {"task": "add", "args": ["{left}", "{right.total}"], "after": ["left", "right"]},
    "left": {"task": "half", "args": ["{fetch}"], "after": ["fetch"]},
    "right": {"chain": [{"task": "half"}, {"task": "wrap", "kwargs": {"note": "of {fetch.0} {{x}}"}}], "after": ["fetch"]},
    "fetch": {"task": "fetch", "queue": "slow"}
}}, "labels": {"a": "b"}}"#;

#[test]
fn a_dag_is_read_and_ordered() {
    let dag = parse(DIAMOND).unwrap();
    let order: Vec<&str> = dag.order().into_iter().map(|node| dag.nodes[node].name.as_str()).collect();
    assert_eq!(order, ["fetch", "left", "right", "sum"]);
    let sum = dag.find("sum").unwrap();
    assert_eq!(dag.ancestors(sum).len(), 3);
    assert_eq!(dag.nodes[sum].reads().into_iter().collect::<Vec<_>>(), ["left", "right"]);
}

#[test]
fn it_is_written_and_read_again_as_it_was() {
    let dag = parse(DIAMOND).unwrap();
    let mut kept = dag.clone();
    kept.nodes[3].kept = true;
    let text = Signature::Dag(kept).to_json();
    let again = Reader::stored_dag(&text).unwrap();
    assert!(again.nodes[3].kept && !again.nodes[0].kept);
    assert_eq!(again.nodes[0].after, dag.nodes[0].after);
    assert_eq!(Signature::Dag(again).to_json(), text);
}

#[test]
fn what_could_never_run_is_refused_with_its_place() {
    for (nodes, pointer, detail) in [
        (r#"{}"#, "/dag/nodes", "1 to 1000"),
        (r#"{"a b": {"task": "t"}}"#, "/dag/nodes/a b", "letters, digits"),
        (r#"{"a": {"task": "t", "after": ["b"]}}"#, "/dag/nodes/a/after/0", "no node b"),
        (r#"{"a": {"task": "t", "after": ["a"]}}"#, "/dag/nodes/a/after/0", "itself"),
        (r#"{"a": {"task": "t", "after": "b"}}"#, "/dag/nodes/a/after", "must be an array"),
        (r#"{"a": {"task": "t", "kept": true}}"#, "/dag/nodes/a/kept", "unknown field"),
        (r#"{"a": {"group": []}}"#, "/dag/nodes/a", "has no task"),
        (r#"{"a": {"dag": {"nodes": {"b": {"task": "t"}}}}}"#, "/dag/nodes/a/dag", "must not be part"),
        (
            r#"{"a": {"task": "t", "args": [[{"k": "{b.x}"}]]}, "b": {"task": "t"}}"#,
            "/dag/nodes/a/args/0/0/k",
            "no predecessor",
        ),
        (
            r#"{"a": {"task": "t"}, "b": {"task": "t", "args": ["{a..x}"], "after": ["a"]}}"#,
            "/dag/nodes/b/args/0",
            "empty step",
        ),
        (r#"{"a": {"task": "t", "args": ["{"]}}"#, "/dag/nodes/a/args/0", "has no }"),
        (r#"{"a": {"task": "t", "colour": 1}}"#, "/dag/nodes/a/colour", "unknown field"),
    ] {
        let found = parse(&format!(r#"{{"dag": {{"nodes": {nodes}}}}}"#)).unwrap_err();
        assert!(found[0].0 == pointer && found[0].1.contains(detail), "{nodes}: {found:?}");
    }
}

#[test]
fn a_loop_is_named_whole() {
    let nodes = r#"{"a": {"task": "t", "after": ["c"]}, "b": {"task": "t", "after": ["a"]}, "c": {"task": "t", "after": ["b", "d"]}, "d": {"task": "t"}}"#;
    let found = parse(&format!(r#"{{"dag": {{"nodes": {nodes}}}}}"#)).unwrap_err();
    let expected = ("/dag/nodes/a/after".to_owned(), "makes a loop: a waits for c waits for b waits for a".to_owned());
    assert_eq!(found, [expected]);
}

#[test]
fn places_read_members_and_elements_digit_for_digit() {
    let result =
        json::written(r#"{"total": 12345678901234567890.10, "rows": [[1, 2], {"x": "y"}], "total": 3.50}"#.to_owned());
    let at = |path| within(&result, path).map(|value| value.get().to_owned());
    assert_eq!(at("total").as_deref(), Some("3.50"));
    assert_eq!(at("rows.1.x").as_deref(), Some("\"y\""));
    assert_eq!((at("rows.2"), at("rows.x"), at("total.x"), at("nothing")), (None, None, None, None));
}

#[test]
fn filling_tells_what_it_misses() {
    let Ok(dag) = parse(DIAMOND) else { panic!() };
    let mut signature = dag.nodes[0].signature.clone();
    let value_of = |name: &str| if name == "left" { Ok("7.10".to_owned()) } else { Err(format!("{name} is missing")) };
    assert_eq!(fill(&mut signature, &value_of), Err("right.total is missing".to_owned()));
    assert_eq!(fill(&mut dag.nodes[0].signature.clone(), &|_| Ok("1".to_owned())), Ok(()));
}
