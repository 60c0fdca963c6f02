use super::*;
use crate::task::Submission;

fn parse(text: &str) -> Result<Signature, Vec<(String, String)>> {
    match Submission::parse(text, Limits::default()) {
        Ok(submission) => Ok(submission.signature),
        Err(found) => Err(found.into_iter().map(|invalid| (invalid.pointer, invalid.detail)).collect()),
    }
}

fn task(text: &str) -> TaskSignature {
    match parse(text) {
        Ok(Signature::Task(task)) => *task,
        other => panic!("{other:?}"),
    }
}

/// The only mistake of a document.
fn mistake(text: &str) -> (String, String) {
    let found = parse(text).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn all_options_are_read_as_types() {
    let task = task(
        r#"{"task": "t.add", "args": [12345678901234567890123, 1.10], "kwargs": {"b": 1, "a": 2}, "queue": "heavy", "priority": 9,
        "eta": "2026-01-31T12:00:00+09:00", "expires": 60, "ignore_result": true, "soft_time_limit": 1.5, "time_limit": 2,
        "immutable": true, "task_id": "0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42", "headers": {"x-tenant": "t1"}, "labels": {"who": "me"}, "retry": {"max": 1},
        "link": [{"task": "ok"}], "link_error": [{"task": "err"}]}"#,
    );
    assert_eq!((task.args.get(), task.kwargs.get()), ("[12345678901234567890123, 1.10]", r#"{"b": 1, "a": 2}"#));
    assert_eq!(task.eta.unwrap().to_string(), "2026-01-31T03:00:00Z");
    assert_eq!((task.priority.map(Priority::get), task.expires), (Some(9), Some(Expires::After(60.0))));
    assert_eq!((task.soft_time_limit, task.time_limit, task.ignore_result), (Some(1.5), Some(2.0), Some(true)));
    assert_eq!((task.link.len(), task.link_error.len(), task.retry.unwrap().max), (1, 1, 1));
}

#[test]
fn a_signature_is_written_as_it_can_be_read_again() {
    let text = r#"{"chain": [{"task": "a", "args": [1], "kwargs": {}, "countdown": 1.5, "expires": "2026-01-31T12:00:00Z"},
        {"chord": {"header": [{"task": "b", "args": [], "kwargs": {"z": 1, "a": 2}, "priority": 3}, {"group": []}],
        "body": {"task": "c", "args": [], "kwargs": {}, "immutable": true, "headers": {"h": [1]}, "labels": {"l": "v"},
        "retry": {"max": 3, "delay": 180.0, "cap": 600.0, "jitter": false}, "link": [{"task": "d", "args": [], "kwargs": {}}]}}}]}"#;
    let written = parse(text).unwrap().to_json();
    let again = parse(&written).unwrap().to_json();
    assert_eq!(written, again);
    let (left, right): (serde_json::Value, serde_json::Value) =
        (serde_json::from_str(text).unwrap(), serde_json::from_str(&written).unwrap());
    assert_eq!(left, right);
}

#[test]
fn unknown_fields_are_refused_with_the_nearest_name() {
    assert_eq!(
        mistake(r#"{"task": "a", "quue": "x"}"#),
        ("/quue".to_owned(), "unknown field; did you mean queue?".to_owned())
    );
    assert_eq!(mistake(r#"{"task": "a", "zebra": "x"}"#), ("/zebra".to_owned(), "unknown field".to_owned()));
    assert_eq!(
        mistake(r#"{"chain": [{"task": "a"}], "queue": "x"}"#),
        ("/queue".to_owned(), "is not allowed beside chain".to_owned())
    );
}

#[test]
fn every_wrong_type_and_range_is_named() {
    let cases = [
        (r#"{"task": 7}"#, "/task", "must be a string, not a number"),
        (r#"{"task": ""}"#, "/task", "must not be empty"),
        (r#"{"args": []}"#, "/task", "is required (or one of chain, group, chord, dag, wait, sleep)"),
        (r#"{"task": null}"#, "/task", "is required (or one of chain, group, chord, dag, wait, sleep)"),
        (r#"{"task": "a", "args": {}}"#, "/args", "must be an array"),
        (r#"{"task": "a", "kwargs": []}"#, "/kwargs", "must be an object"),
        (r#"{"task": "a", "queue": ""}"#, "/queue", "must not be empty"),
        (r#"{"task": "a", "priority": 10}"#, "/priority", "must be between 0 and 9"),
        (r#"{"task": "a", "priority": -1}"#, "/priority", "must be between 0 and 9"),
        (r#"{"task": "a", "priority": 1.5}"#, "/priority", "must be a whole number, not a number"),
        (r#"{"task": "a", "priority": "1"}"#, "/priority", "must be a whole number, not a string"),
        (r#"{"task": "a", "countdown": -1}"#, "/countdown", "must be at least 0"),
        (r#"{"task": "a", "countdown": 1e300}"#, "/countdown", "must be at most 1000000000"),
        (
            r#"{"task": "a", "countdown": 1, "eta": "2026-01-31T12:00:00Z"}"#,
            "/countdown",
            "cannot stand together with eta",
        ),
        (r#"{"task": "a", "eta": "2026-01-31T12:00:00"}"#, "/eta", "needs a time zone, as 2026-01-31T12:00:00Z"),
        (r#"{"task": "a", "eta": 5}"#, "/eta", "must be a string, not a number"),
        (r#"{"task": "a", "eta": "soon"}"#, "/eta", "must be a time as 2026-01-31T12:00:00Z"),
        (r#"{"task": "a", "expires": 0}"#, "/expires", "must be greater than 0"),
        (r#"{"task": "a", "expires": "2026-01-31"}"#, "/expires", "needs a time zone, as 2026-01-31T12:00:00Z"),
        (r#"{"task": "a", "time_limit": "5"}"#, "/time_limit", "must be a number, not a string"),
        (
            r#"{"task": "a", "time_limit": 1, "soft_time_limit": 2}"#,
            "/soft_time_limit",
            "must not be greater than time_limit",
        ),
        (r#"{"task": "a", "ignore_result": "yes"}"#, "/ignore_result", "must be true or false, not a string"),
        (r#"{"task": "a", "headers": {"id": 1}}"#, "/headers/id", "is one of Celery's own headers"),
        (
            r#"{"task": "a", "labels": {"a:b": "x"}}"#,
            "/labels/a:b",
            "a label's name has 1 to 100 characters and no colon",
        ),
        (
            r#"{"task": "a", "labels": {"taskgate.upload": "x"}}"#,
            "/labels/taskgate.upload",
            "labels that begin with taskgate. are the gateway's own: use another name",
        ),
        (r#"{"task": "a", "labels": {"a": 1}}"#, "/labels/a", "must be a string, not a number"),
        (r#"{"task": "a", "task_id": ""}"#, "/task_id", "is not a UUID"),
        (r#"{"task": "a", "link": {"task": "b"}}"#, "/link", "must be an array, not an object"),
        (r#"{"task": "a", "link_error": [{"group": []}]}"#, "/link_error/0", "must be a plain task"),
        (r#"{"chain": []}"#, "/chain", "must have at least one step"),
        (r#"{"chord": {"header": []}}"#, "/chord/body", "is required"),
        (r#"{"chord": {"header": [], "body": {"task": "a"}, "x": 1}}"#, "/chord/x", "unknown field"),
        (r#"{"group": [7]}"#, "/group/0", "must be an object, not a number"),
    ];
    for (text, pointer, detail) in cases {
        assert_eq!(mistake(text), (pointer.to_owned(), detail.to_owned()), "{text}");
    }
    let long = format!(r#"{{"task": "a", "task_id": "{}"}}"#, "x".repeat(256));
    assert_eq!(mistake(&long).0, "/task_id");
}

#[test]
fn all_mistakes_are_found_at_once() {
    let text = r#"{"chain": [{"task": "a", "priority": 11}, {"chord": {"header": [{"tsk": "b"}], "body": {"task": "c", "link": [{"task": ""}]}}}]}"#;
    let pointers: Vec<_> = parse(text).unwrap_err().into_iter().map(|(pointer, _)| pointer).collect();
    assert_eq!(
        pointers,
        [
            "/chain/0/priority",
            "/chain/1/chord/header/0/tsk",
            "/chain/1/chord/header/0/task",
            "/chain/1/chord/body/link/0/task"
        ]
    );
}

#[test]
fn one_id_can_stand_only_once_in_a_canvas() {
    let text = r#"{"group": [{"task": "a", "task_id": "0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42"}, {"task": "b", "link": [{"task": "c", "task_id": "0192f0c1-6c1e-7d3e-9f2a-3b8f0a5d1c42"}]}]}"#;
    let expected = "is the same as /group/0/task_id; every task needs its own";
    assert_eq!(mistake(text), ("/group/1/link/0/task_id".to_owned(), expected.to_owned()));
}

#[test]
fn depth_and_width_are_limited() {
    let mut deep = r#"{"task": "a"}"#.to_owned();
    for _ in 0..65 {
        deep = format!(r#"{{"chain": [{deep}]}}"#);
    }
    assert_eq!(mistake(&deep).1, "is nested deeper than 64 levels");
    let args = format!(r#"{{"task": "a", "args": {}{}}}"#, "[".repeat(65), "]".repeat(65));
    assert_eq!(mistake(&args), ("/args".to_owned(), "is nested deeper than 64 levels".to_owned()));
    let wide = format!(r#"{{"group": [{}]}}"#, [r#"{"task": "a"}"#; 11].join(","));
    let found = Submission::parse(&wide, Limits { tasks: 10, ..Limits::default() }).unwrap_err();
    assert_eq!((found[0].pointer.as_str(), found[0].detail.as_str()), ("/group", "the canvas has more than 10 tasks"));
}
