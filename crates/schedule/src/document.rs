//! The document of a schedule as clients see it: the definition, `name`, `paused`, and members that only the gateway writes.
//!
//! A client may send back what it received: members that only the gateway writes are ignored.

use serde_json::value::RawValue;

use super::definition::object;
use celery::task::invalid::Problems;
use celery::task::json::{self, Fields};
use celery::task::{Invalid, Json, Signature};

/// Members that only the gateway writes.
pub const WRITTEN_HERE: [&str; 7] =
    ["next_run_at", "last_run_at", "last_task_id", "created_at", "updated_at", "links", "version"];
/// The timing members; a schedule has exactly one of them.
const RHYTHMS: [&str; 3] = ["cron", "every", "at"];

#[derive(Debug, Clone)]
pub struct Document {
    pub name: Option<String>,
    pub paused: bool,
    /// The definition's members, verbatim.
    pub rest: Json,
}

impl Document {
    /// Splits the document; the definition is not parsed yet.
    ///
    /// # Errors
    /// When the document is not an object, or `name` or `paused` has the wrong type.
    pub fn parse(text: &str) -> Result<Self, Vec<Invalid>> {
        let mut problems = Problems::default();
        let fields = fields(&mut problems, text)?;
        let name = fields.get("name").and_then(|value| problems.within("name", |problems| problems.text(value)));
        let paused =
            fields.get("paused").and_then(|value| problems.within("paused", |problems| problems.boolean(value)));
        if !problems.found.is_empty() {
            return Err(problems.found);
        }
        let beside = |name: &str| matches!(name, "name" | "paused") || WRITTEN_HERE.contains(&name);
        let rest = object(fields.iter().filter(|(name, _)| !beside(name)));
        Ok(Self { name, paused: paused.unwrap_or(false), rest })
    }
}

fn fields<'a>(problems: &mut Problems, text: &'a str) -> Result<Fields<'a>, Vec<Invalid>> {
    match Fields::parse(text) {
        Ok(fields) => Ok(fields),
        Err(error) => {
            problems.add(if error.is_data() {
                "must be an object".to_owned()
            } else {
                format!("is not JSON: {error}")
            });
            Err(std::mem::take(&mut problems.found))
        }
    }
}

/// The whole document after a JSON merge patch (RFC 7396): `null` removes a member, objects are merged. A timing member in the patch
/// (`cron`, `every`, `at`) replaces the present one.
///
/// # Errors
/// When the patch is not an object.
pub fn patched(document: &Json, paused: bool, patch: &str) -> Result<String, Vec<Invalid>> {
    let mut problems = Problems::default();
    let said = fields(&mut problems, patch)?;
    let whole = json::written(format!("{}{}", &document.get()[..document.get().len() - 1], tail(document, paused)));
    let rhythm = RHYTHMS.into_iter().find(|rhythm| said.get(rhythm).is_some());
    let current = Fields::parse(whole.get()).expect("a stored document is an object");
    let kept = object(current.iter().filter(|(name, _)| rhythm.is_none() || !RHYTHMS.contains(name)));
    let patch = json::verbatim(patch.trim().to_owned()).expect("it was read as an object");
    Ok(merged(&kept, &patch).get().to_owned())
}

fn tail(document: &Json, paused: bool) -> String {
    let comma = if document.get().trim_end_matches('}').trim().len() > 1 { "," } else { "" };
    format!("{comma}\"paused\":{paused}}}")
}

/// Merges recursively. The depth is bounded, because the request's parser limits the depth of the patch.
fn merged(target: &RawValue, patch: &RawValue) -> Json {
    let Ok(changes) = Fields::parse(patch.get()) else { return patch.to_owned() };
    let empty = Fields::default();
    let parsed = Fields::parse(target.get());
    let current = parsed.as_ref().unwrap_or(&empty);
    let mut members: Vec<(String, Json)> = Vec::new();
    for (name, value) in current.iter() {
        if !changes.iter().any(|(changed, _)| changed == name) {
            members.push((name.to_owned(), value.to_owned()));
        }
    }
    let null = json::null();
    for (name, value) in changes.iter().filter(|(_, value)| value.get() != "null") {
        let before = current.get(name).unwrap_or(&null);
        members.push((name.to_owned(), merged(before, value)));
    }
    object(members.iter().map(|(name, value)| (name.as_str(), &**value)))
}

/// Calls `visit` for every task's name with its JSON pointer, links included.
pub fn visit_names(signature: &Signature, pointer: &mut String, visit: &mut dyn FnMut(&str, &str)) {
    let mut list = |pointer: &mut String, name: &str, members: &[Signature]| {
        for (index, member) in members.iter().enumerate() {
            within(pointer, &format!("/{name}/{index}"), |pointer| visit_names(member, pointer, visit));
        }
    };
    match signature {
        Signature::Chain(steps) => list(pointer, "chain", steps),
        Signature::Group(members) => list(pointer, "group", members),
        Signature::Chord { header, body } => {
            list(pointer, "chord/header", header);
            within(pointer, "/chord/body", |pointer| visit_names(body, pointer, visit));
        }
        Signature::Dag(dag) => {
            for node in &dag.nodes {
                within(pointer, &format!("/dag/nodes/{}", node.name), |pointer| {
                    visit_names(&node.signature, pointer, visit);
                });
            }
        }
        Signature::Task(task) => {
            list(pointer, "link", &task.link);
            list(pointer, "link_error", &task.link_error);
            within(pointer, "/task", |pointer| visit(pointer, task.task.as_str()));
        }
    }
}

fn within(pointer: &mut String, member: &str, work: impl FnOnce(&mut String)) {
    let before = pointer.len();
    pointer.push_str(member);
    work(pointer);
    pointer.truncate(before);
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::task::Submission;
    use celery::task::signature::Limits;

    fn json(text: &str) -> Json {
        json::verbatim(text.to_owned()).unwrap()
    }

    #[test]
    fn what_was_given_may_be_sent_back() {
        let text = r#"{"name": "n", "task": "a", "paused": true, "next_run_at": null, "links": {}, "every": 60}"#;
        let document = Document::parse(text).unwrap();
        assert_eq!((document.name.as_deref(), document.paused), (Some("n"), true));
        assert_eq!(document.rest.get(), r#"{"task":"a","every":60}"#);
        assert_eq!(Document::parse(r#"{"name": 1, "paused": "no"}"#).unwrap_err().len(), 2);
    }

    #[test]
    fn a_patch_merges_and_null_removes() {
        let stored = json(r#"{"task":"a","kwargs":{"x":1,"y":22222222222222222222},"queue":"q","every":60}"#);
        let text = patched(&stored, true, r#" {"kwargs": {"x": 2}, "queue": null, "paused": false} "#).unwrap();
        assert_eq!(text, r#"{"task":"a","every":60,"kwargs":{"y":22222222222222222222,"x":2},"paused":false}"#);
        assert_eq!(patched(&json("{}"), false, "{}").unwrap(), r#"{"paused":false}"#);
        assert!(patched(&stored, true, "[]").is_err());
    }

    #[test]
    fn a_patch_with_another_rhythm_replaces_the_old_one() {
        let text = patched(&json(r#"{"task":"a","every":60}"#), false, r#"{"cron": "@daily"}"#).unwrap();
        assert_eq!(text, r#"{"task":"a","paused":false,"cron":"@daily"}"#);
    }

    #[test]
    fn every_name_has_its_place() {
        let text = r#"{"chain": [{"task": "a", "link": [{"task": "b"}]},
            {"chord": {"header": [{"task": "c"}], "body": {"task": "d"}}}]}"#;
        let signature = Submission::parse(text, Limits::default()).unwrap().signature;
        let mut found = Vec::new();
        visit_names(&signature, &mut String::new(), &mut |pointer, name| found.push(format!("{name} {pointer}")));
        found.sort();
        let expected = [
            "a /chain/0/task",
            "b /chain/0/link/0/task",
            "c /chain/1/chord/header/0/task",
            "d /chain/1/chord/body/task",
        ];
        assert_eq!(found, expected);
    }
}
