//! The later tasks that a message carries (callbacks, errbacks, the rest of a chain, the body of a chord), and their arguments. Pure.

use std::collections::HashMap;

use serde_json::value::RawValue;

use celery::message::Embed;
use celery::signature::Signature;
use celery::task::{Json, TaskId};

/// What a task is called with.
#[derive(Debug, Clone)]
pub(super) struct Arguments {
    pub args: Json,
    pub kwargs: Json,
}

/// The tasks that follow, by a body of `[args, kwargs, embed]`; none when it cannot be read.
pub(super) fn followers(body: &str) -> Vec<TaskId> {
    let Some((_, _, mut embed)) = parts(body) else { return Vec::new() };
    let mut found = Vec::new();
    embed.visit(&mut |task| found.extend(id_of(task)));
    found
}

/// The body with these arguments for the tasks that follow; `None` when none of them follows.
pub(super) fn with_arguments(body: &str, arguments: &HashMap<TaskId, Arguments>) -> Option<String> {
    let (args, kwargs, mut embed) = parts(body)?;
    let mut found = false;
    embed.visit(&mut |task| {
        let Some(moved) = id_of(task).and_then(|id| arguments.get(&id)) else { return };
        (task.args, task.kwargs) = (moved.args.clone(), moved.kwargs.clone());
        found = true;
    });
    if !found {
        return None;
    }
    let mut out = format!("[{}, {}, ", args.get(), kwargs.get());
    embed.encode(&mut out);
    out.push(']');
    Some(out)
}

fn parts(body: &str) -> Option<(&RawValue, &RawValue, Embed)> {
    let (args, kwargs, embed) = serde_json::from_str::<(&RawValue, &RawValue, &RawValue)>(body).ok()?;
    Some((args, kwargs, Embed::decode(embed).ok()?))
}

fn id_of(task: &Signature) -> Option<TaskId> {
    TaskId::parse(task.options.task_id.as_deref()?).ok()
}

#[cfg(test)]
mod tests {
    use celery::task::json;

    use super::*;

    /// A chain whose second step is a chord; the second task of its header links another one.
    const BODY: &str = r#"[[1.50], {}, {"callbacks": null, "errbacks": null, "chain": [{"task": "celery.chord", "args": [], "kwargs": {"kwargs": {},
        "header": {"task": "celery.group", "args": [], "kwargs": {"tasks": [{"task": "a", "args": [1e2], "kwargs": {}, "options": {"task_id": "one"}},
        {"task": "a", "args": [2], "kwargs": {}, "options": {"task_id": "two", "link": [{"task": "c", "args": ["link"], "options": {"task_id": "four"}}]}}]},
        "options": {"task_id": "g"}, "subtask_type": "group"}, "body": {"task": "b", "args": [{"task": "a", "options": {"task_id": "one"}}],
        "kwargs": {}, "options": {"task_id": "three"}}}, "options": {"task_id": "g"}, "subtask_type": "chord"}], "chord": null}]"#;

    #[test]
    fn every_task_that_follows_is_found_and_arguments_are_none() {
        let mut ids: Vec<String> = followers(BODY).iter().map(ToString::to_string).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["four", "one", "three", "two"]);
        assert!(followers("[1]").is_empty());
    }

    #[test]
    fn only_the_named_tasks_get_other_arguments_and_numbers_stay_as_they_were_written() {
        let moved = |text: &str| Arguments { args: json::written(text.into()), kwargs: json::written("{}".into()) };
        let of = |id: &str| TaskId::parse(id).unwrap();
        let arguments = HashMap::from([(of("two"), moved("[\"kept two\"]")), (of("four"), moved("[\"kept four\"]"))]);
        let body = with_arguments(BODY, &arguments).unwrap();
        for text in [
            "[1.50]",
            "[1e2]",
            "[\"kept two\"]",
            "[\"kept four\"]",
            r#"[{"task": "a", "options": {"task_id": "one"}}]"#,
        ] {
            assert!(body.contains(text), "{text}: {body}");
        }
        assert!(!body.contains("\"link\"]"), "{body}");
        assert_eq!(followers(&body).len(), 4);
        assert!(with_arguments(BODY, &HashMap::from([(of("five"), moved("[]"))])).is_none());
    }
}
