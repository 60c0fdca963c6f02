//! `canvas = { chain = [ … ] }`: one call of an entry is a whole chain, group, chord or DAG.
//!
//! In a DAG `{name}` is a field of the request, as everywhere; a result is read by `{{node}}`, which the request's filling leaves as
//! `{node}`.
//!
//! Its tasks are signatures as in `POST /v1/tasks`, with templates in every value except the task's name. `split` in a signature
//! repeats it for each chunk of the request: as members of a group or header, or as a group in place of a single step.
//! Structure, names and options are checked at start; values from a request are checked before anything is queued.

use serde_json::{Map, Value, json};

use super::ResolveError;
use super::split::Split;
use super::template::{Part, Template, parts};
use celery::task::reader::Reader;
use celery::task::signature::{FORMS, Limits};
use celery::task::{Signature, Submission, TaskName, json as text};

/// A canvas with templates.
#[derive(Debug)]
pub struct Canvas(Node);

#[derive(Debug)]
enum Node {
    Task {
        name: String,
        call: Template,
        split: Option<Split>,
    },
    Chain(Vec<Node>),
    Group(Vec<Node>),
    Chord {
        header: Vec<Node>,
        body: Box<Node>,
    },
    /// Name, node, what it waits for.
    Dag(Vec<(String, Node, Vec<String>)>),
}

impl Canvas {
    /// # Errors
    /// A sentence that says what is wrong, and where.
    pub(super) fn compile(value: &Value) -> Result<Self, String> {
        let node = node(value, "")?;
        if matches!(node, Node::Task { .. }) {
            return Err("must be a chain, a group, a chord or a DAG".to_owned());
        }
        Ok(Self(node))
    }

    /// Names that templates and splits read.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.0.visit(&mut |_, call, split| {
            names.extend(call.names());
            names.extend(split.into_iter().flat_map(Split::names));
        });
        names
    }

    /// Fields of the body that its splits read.
    pub(super) fn split_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.0.visit(&mut |_, _, split| names.extend(split.into_iter().flat_map(Split::names)));
        names
    }

    /// The tasks that it calls.
    pub fn tasks(&self) -> Vec<&str> {
        let mut tasks = Vec::new();
        self.0.visit(&mut |name, _, _| tasks.push(name));
        tasks
    }

    /// Whether it ends in a group, which has many results instead of one.
    pub(super) fn is_group(&self) -> bool {
        matches!(self.0, Node::Group(_))
    }

    /// The canvas of one request. `said` returns a field's value from the client, `mapped` the value for the workers.
    pub(super) fn fill(
        &self,
        said: &dyn Fn(&str) -> String,
        mapped: &dyn Fn(&str) -> String,
    ) -> Result<Signature, ResolveError> {
        let mut text = String::new();
        self.0.write(said, mapped, &mut text)?;
        let read = Submission::parse(&text, Limits::default());
        let told = |wrong: Vec<celery::task::Invalid>| {
            let first = wrong.into_iter().next().map(|fault| format!("{} {}", fault.pointer, fault.detail));
            ResolveError::invalid("", format!("makes no canvas: {}", first.unwrap_or_default().trim()))
        };
        read.map(|submission| submission.signature).map_err(told)
    }
}

impl Node {
    fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a Template, Option<&'a Split>)) {
        match self {
            Self::Task { name, call, split } => visit(name, call, split.as_ref()),
            Self::Chain(nodes) | Self::Group(nodes) => nodes.iter().for_each(|node| node.visit(visit)),
            Self::Chord { header, body } => {
                header.iter().for_each(|node| node.visit(visit));
                body.visit(visit);
            }
            Self::Dag(nodes) => nodes.iter().for_each(|(_, node, _)| node.visit(visit)),
        }
    }

    /// Writes a signature as JSON text.
    fn write(&self, said: ValueOf<'_>, mapped: ValueOf<'_>, out: &mut String) -> Result<(), ResolveError> {
        match self {
            Self::Task { call, split: None, .. } => call.fill(mapped, out),
            Self::Task { split: Some(_), .. } => list(&[self], "group", said, mapped, out)?,
            Self::Chain(nodes) => {
                out.push_str("{\"chain\": [");
                for (index, node) in nodes.iter().enumerate() {
                    comma(index, out);
                    node.write(said, mapped, out)?;
                }
                out.push_str("]}");
            }
            Self::Group(nodes) => list(&nodes.iter().collect::<Vec<_>>(), "group", said, mapped, out)?,
            Self::Chord { header, body } => {
                out.push_str("{\"chord\": ");
                list(&header.iter().collect::<Vec<_>>(), "header", said, mapped, out)?;
                out.pop();
                out.push_str(", \"body\": ");
                body.write(said, mapped, out)?;
                out.push_str("}}");
            }
            Self::Dag(nodes) => {
                out.push_str("{\"dag\": {\"nodes\": {");
                for (index, (name, node, after)) in nodes.iter().enumerate() {
                    comma(index, out);
                    out.push_str(&format!("{}: ", Value::from(name.as_str())));
                    node.write(said, mapped, out)?;
                    out.pop();
                    out.push_str(&format!(", \"after\": {}}}", Value::from(after.as_slice())));
                }
                out.push_str("}}}");
            }
        }
        Ok(())
    }

    /// Writes a signature for each chunk.
    fn write_members(
        &self,
        said: ValueOf<'_>,
        mapped: ValueOf<'_>,
        count: &mut usize,
        out: &mut String,
    ) -> Result<(), ResolveError> {
        let Self::Task { call, split: Some(split), .. } = self else {
            comma(*count, out);
            *count += 1;
            return self.write(said, mapped, out);
        };
        let chunks = split.cut(said)?;
        let most = u32::try_from(Limits::default().tasks).unwrap_or(u32::MAX);
        let chunk_count = chunks.total();
        if chunk_count > most {
            return Err(ResolveError::invalid(
                "",
                format!("would make {chunk_count} tasks, a canvas has at most {most}"),
            ));
        }
        for index in 0..chunk_count {
            comma(*count, out);
            *count += 1;
            call.fill(&|name| chunks.value_of(index, name).unwrap_or_else(|| mapped(name)), out);
        }
        Ok(())
    }
}

type ValueOf<'a> = &'a dyn Fn(&str) -> String;

fn comma(index: usize, out: &mut String) {
    if index > 0 {
        out.push_str(", ");
    }
}

/// Writes `{"group": [ … ]}` with a member for each chunk.
fn list(
    nodes: &[&Node],
    form: &str,
    said: ValueOf<'_>,
    mapped: ValueOf<'_>,
    out: &mut String,
) -> Result<(), ResolveError> {
    out.push_str(&format!("{{\"{form}\": ["));
    let mut count = 0;
    for node in nodes {
        node.write_members(said, mapped, &mut count, out)?;
    }
    out.push_str("]}");
    Ok(())
}

fn node(value: &Value, at: &str) -> Result<Node, String> {
    let members = value.as_object().ok_or_else(|| format!("{at} must be a table").trim().to_owned())?;
    let Some(form) = FORMS.into_iter().find(|form| members.contains_key(*form)) else { return task(members, at) };
    if let Some(other) = members.keys().find(|key| *key != form) {
        return Err(format!("{at}/{other} is not allowed beside {form}"));
    }
    let inside = &members[form];
    match form {
        "chain" => Ok(Node::Chain(nodes(inside, &format!("{at}/chain"))?)),
        "group" => Ok(Node::Group(nodes(inside, &format!("{at}/group"))?)),
        "dag" => dag(inside, &format!("{at}/dag")),
        _ => {
            let body = inside.get("body").ok_or_else(|| format!("{at}/chord/body is required"))?;
            let header = inside.get("header").ok_or_else(|| format!("{at}/chord/header is required"))?;
            let (header, body) =
                (nodes(header, &format!("{at}/chord/header"))?, node(body, &format!("{at}/chord/body"))?);
            Ok(Node::Chord { header, body: Box::new(body) })
        }
    }
}

/// Names, loops and what nodes wait for are judged at start; so is, of the arguments, whether a place names a predecessor.
fn dag(value: &Value, at: &str) -> Result<Node, String> {
    let members = value.get("nodes").and_then(Value::as_object).ok_or_else(|| format!("{at}/nodes must be a table"))?;
    let mut nodes = Vec::with_capacity(members.len());
    for (name, value) in members {
        let at = format!("{at}/nodes/{name}");
        let mut value = value.clone();
        let after = value.as_object_mut().and_then(|members| members.remove("after")).unwrap_or_else(|| json!([]));
        let after = serde_json::from_value(after).map_err(|_| format!("{at}/after must be a list of names"))?;
        nodes.push((name.clone(), node(&value, &at)?, after));
    }
    let dag = Node::Dag(nodes);
    // Every chunk has the same places: one stands for all.
    let mut text = String::new();
    let said = |_: &str| "[0]".to_owned();
    if dag.write(&said, &said, &mut text).is_ok()
        && let Err(wrong) = Submission::parse(&text, Limits::default())
        && let Some(first) =
            wrong.iter().find(|problem| problem.pointer.contains("/after") || problem.detail.contains("predecessor"))
    {
        return Err(format!("{} {}", first.pointer, first.detail));
    }
    Ok(dag)
}

fn nodes(value: &Value, at: &str) -> Result<Vec<Node>, String> {
    let items = value.as_array().filter(|items| !items.is_empty());
    let items = items.ok_or_else(|| format!("{at} must be a list of at least one signature"))?;
    items.iter().enumerate().map(|(index, item)| node(item, &format!("{at}/{index}"))).collect()
}

fn task(members: &Map<String, Value>, at: &str) -> Result<Node, String> {
    let mut call = members.clone();
    let split = call.remove("split").map(|split| Split::compile(&split)).transpose();
    let split = split.map_err(|message| format!("{at}/split {message}"))?;
    let call = Value::Object(call);
    let (name, call) = checked_call(&call, at)?;
    Ok(Node::Task { name, call, split })
}

/// Checks everything in a signature with templates that does not depend on a request.
pub(super) fn checked_call(call: &Value, at: &str) -> Result<(String, Template), String> {
    let name = call.get("task").and_then(Value::as_str).unwrap_or_default();
    TaskName::parse(name).map_err(|error| format!("{at}/task {error}"))?;
    if has_place(&Value::from(name)) {
        return Err(format!("{at}/task must be the name itself: a template there could call anything"));
    }
    let fixed = text::written(without_places(call).to_string());
    let mut reader = Reader::new(Limits::default());
    reader.signature(&fixed, 0);
    if let Some(wrong) = reader.problems.found.first() {
        return Err(format!("{at}{} {}", wrong.pointer, wrong.detail));
    }
    let template = Template::parse(call).map_err(|error| format!("{at} {error}"))?;
    Ok((name.to_owned(), template))
}

/// The signature without the options that depend on a request.
fn without_places(call: &Value) -> Value {
    let Value::Object(members) = call else { return call.clone() };
    let kept = members.iter().filter(|(key, value)| ["args", "kwargs"].contains(&key.as_str()) || !has_place(value));
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn has_place(value: &Value) -> bool {
    match value {
        Value::String(text) => parts(text).is_ok_and(|parts| parts.iter().any(|part| matches!(part, Part::Name(_)))),
        Value::Array(items) => items.iter().any(has_place),
        Value::Object(members) => members.values().any(has_place),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(canvas: &Value) -> Result<String, ResolveError> {
        let said = |name: &str| match name {
            "ids" => "[1, 2, 3]".to_owned(),
            "delay" => "\"soon\"".to_owned(),
            _ => "\"x\"".to_owned(),
        };
        Canvas::compile(canvas).unwrap().fill(&said, &said).map(|signature| signature.to_json())
    }

    #[test]
    fn a_chain_is_filled_and_a_split_step_is_a_group() {
        let list = json!({"list": {"field": "ids", "items": 2}});
        let chain = json!({"chain": [
            {"task": "extract", "args": ["{source}"], "queue": "q-{source}"},
            {"task": "load", "kwargs": {"ids": "{ids}"}, "split": list},
            {"task": "report"},
        ]});
        let text = filled(&chain).unwrap();
        assert!(text.contains(r#""args":["x"]"#) && text.contains(r#""queue":"q-x""#), "{text}");
        assert!(
            text.contains(r#"{"group":[{"task":"load""#) && text.contains("[1, 2]") && text.contains("[3]"),
            "{text}"
        );
        let chord = json!({"chord": {"header": [{"task": "one"}, {"task": "load", "args": ["{ids}"], "split": list}], "body": {"task": "sum"}}});
        let text = filled(&chord).unwrap();
        assert_eq!(text.matches("\"load\"").count(), 2, "{text}");
        assert!(text.contains(r#""body":{"task":"sum""#), "{text}");
    }

    #[test]
    fn what_can_be_wrong_at_start_is_wrong_at_start() {
        for (canvas, reason) in [
            (json!({"task": "a"}), "must be a chain"),
            (json!({"chain": []}), "at least one"),
            (json!({"chain": [{"task": "{name}"}]}), "/chain/0/task must be the name itself"),
            (json!({"chain": [{"task": "a", "argz": []}]}), "/chain/0/argz"),
            (json!({"chain": [{"task": "a", "countdown": -1}]}), "/chain/0/countdown"),
            (json!({"chain": [{"task": "a"}], "queue": "x"}), "/queue is not allowed beside chain"),
            (json!({"chord": {"header": [{"task": "a"}]}}), "/chord/body is required"),
            (json!({"group": [{"task": "a", "split": {"list": {}}}]}), "/group/0/split"),
        ] {
            let wrong = Canvas::compile(&canvas).unwrap_err();
            assert!(wrong.contains(reason), "{canvas}: {wrong}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_when_it_is_said() {
        let wrong = filled(&json!({"chain": [{"task": "a", "countdown": "{delay}"}]})).unwrap_err();
        let ResolveError::Invalid(wrong) = wrong else { panic!("{wrong:?}") };
        assert!(wrong[0].detail.contains("/chain/0/countdown"), "{wrong:?}");
    }
}
