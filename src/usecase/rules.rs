//! Applies the rules of catalog entries to every task that a call names: each step of a canvas at any depth, links included.

use std::time::Duration;

use serde_json::Value;

use super::Gateway;
use super::waits::broken_pause;
use crate::catalog::{Admitted, Catalog, NamedCall};
use crate::live::learned::Learned;
use celery::task::dag::reads;
use celery::task::invalid::MAX_FOUND;
use celery::task::pause;
use celery::task::submission::{Submission, Unique};
use celery::task::{Invalid, QueueName, Signature, TaskSignature};

/// All places where the call breaks a rule; empty when there are none.
pub(super) fn broken(catalog: &Catalog, learned: &Learned, submission: &Submission, keep: Duration) -> Vec<Invalid> {
    let mut found = Vec::new();
    let is_dag = matches!(submission.signature, Signature::Dag(_));
    let mut judge = |at: &str, task: &TaskSignature, fed: bool| {
        if found.len() >= MAX_FOUND {
            return;
        }
        if pause::is_pause(task.task.as_str()) {
            found.extend(broken_pause(at, task, keep));
            return;
        }
        if let Some(fault) = wrapped(catalog, at, task) {
            found.push(fault);
            return;
        }
        if is_dag && !reads(task).is_empty() {
            found.extend(read_too_late(catalog, at, task));
            return;
        }
        let wrong = match catalog.admit(named(task, fed)) {
            Err(wrong) => wrong,
            Ok(_) => learned.hints(task.task.as_str()).map_or_else(Vec::new, |hints| hints.check(&task.kwargs)),
        };
        let room = MAX_FOUND - found.len();
        let placed =
            wrong.into_iter().map(|fault| Invalid { pointer: format!("{at}{}", fault.pointer), detail: fault.detail });
        found.extend(placed.take(room));
    };
    match &submission.signature {
        Signature::Chain(steps) if submission.bare => chain(steps, "/tasks", false, &mut judge),
        Signature::Group(members) if submission.bare => each(members, "/tasks", false, &mut judge),
        Signature::Chord { header, body } if submission.bare => {
            each(header, "/header", false, &mut judge);
            walk(body, "/body", true, &mut judge);
        }
        whole => walk(whole, "", false, &mut judge),
    }
    found
}

/// Celery's own tasks that run the signatures in their arguments. A worker would run them as they are, so an entry's rules would not hold.
const WRAPPERS: [&str; 7] = [
    "celery.map",
    "celery.starmap",
    "celery.chunks",
    "celery.group",
    "celery.chord",
    "celery.chain",
    "celery.chord_unlock",
];

/// Refuses a task of Celery's that would run a task with rules.
fn wrapped(catalog: &Catalog, at: &str, task: &TaskSignature) -> Option<Invalid> {
    if !WRAPPERS.contains(&task.task.as_str()) {
        return None;
    }
    let has_rules = |name: &str| catalog.entry(name).is_some_and(|entry| !entry.open);
    let inside = |text: &str| match serde_json::from_str::<Value>(text) {
        Ok(value) => named_in(&value).into_iter().find(|name| has_rules(name)),
        Err(_) => Some("a task that cannot be read".to_owned()),
    };
    let name = inside(task.args.get()).or_else(|| inside(task.kwargs.get()))?;
    let detail =
        format!("runs {name}, which the catalog has rules for: submit it itself, or in a chain, group or chord");
    Some(Invalid { pointer: format!("{at}/task"), detail })
}

/// The names of all signatures in a value, at any depth.
fn named_in(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => {
            let own = members.get("task").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(members.values().flat_map(named_in)).collect()
        }
        Value::Array(items) => items.iter().flat_map(named_in).collect(),
        _ => Vec::new(),
    }
}

/// Arguments that read results are checked when the results exist; values that are needed earlier must not depend on them.
fn read_too_late(catalog: &Catalog, at: &str, task: &TaskSignature) -> Option<Invalid> {
    let name = task.task.as_str();
    let computes = catalog.entry(name).is_some_and(|entry| entry.computes() || entry.computes_queue());
    let detail =
        format!("reads a result, but the catalog makes the queue, limits or labels of {name} from its arguments");
    computes.then(|| Invalid { pointer: format!("{at}/args"), detail })
}

fn named(task: &TaskSignature, fed: bool) -> NamedCall<'_> {
    NamedCall {
        name: task.task.as_str(),
        args: &task.args,
        kwargs: &task.kwargs,
        queue: task.queue.as_ref(),
        soft_time_limit: task.soft_time_limit,
        time_limit: task.time_limit,
        fed: fed && !task.immutable,
    }
}

type Judge<'a> = dyn FnMut(&str, &TaskSignature, bool) + 'a;

/// Visits every task with its place. `fed`: the task gets the previous result as its first argument.
fn walk(signature: &Signature, at: &str, fed: bool, judge: &mut Judge<'_>) {
    match signature {
        Signature::Task(task) => {
            judge(at, task, fed);
            // A link gets the result, an errback the id of the failed task.
            each(&task.link, &format!("{at}/link"), true, judge);
            each(&task.link_error, &format!("{at}/link_error"), true, judge);
        }
        Signature::Chain(steps) => chain(steps, &format!("{at}/chain"), fed, judge),
        Signature::Group(members) => each(members, &format!("{at}/group"), fed, judge),
        Signature::Chord { header, body } => {
            each(header, &format!("{at}/chord/header"), fed, judge);
            walk(body, &format!("{at}/chord/body"), true, judge);
        }
        Signature::Dag(dag) => {
            for node in &dag.nodes {
                walk(&node.signature, &format!("{at}/dag/nodes/{}", node.name), false, judge);
            }
        }
    }
}

fn each(members: &[Signature], at: &str, fed: bool, judge: &mut Judge<'_>) {
    for (index, member) in members.iter().enumerate() {
        walk(member, &format!("{at}/{index}"), fed, judge);
    }
}

fn chain(steps: &[Signature], at: &str, fed: bool, judge: &mut Judge<'_>) {
    for (index, step) in steps.iter().enumerate() {
        walk(step, &format!("{at}/{index}"), fed || index > 0, judge);
    }
}

/// Adds the links of the catalog entries of all tasks. The added tasks get no links themselves.
pub(super) fn add_links(catalog: &Catalog, signature: &mut Signature, fed: bool) {
    match signature {
        Signature::Task(task) => {
            if catalog.entries_of(task.task.as_str()).any(|entry| entry.has_links())
                && let Ok(admitted) = catalog.admit(NamedCall { queue: None, ..named(task, fed) })
            {
                task.link.extend(admitted.links.after_success);
                task.link_error.extend(admitted.links.after_failure);
            }
        }
        Signature::Chain(steps) => {
            for (index, step) in steps.iter_mut().enumerate() {
                add_links(catalog, step, fed || index > 0);
            }
        }
        Signature::Group(members) => members.iter_mut().for_each(|member| add_links(catalog, member, fed)),
        Signature::Chord { header, body } => {
            header.iter_mut().for_each(|member| add_links(catalog, member, fed));
            add_links(catalog, body, true);
        }
        Signature::Dag(dag) => dag.nodes.iter_mut().for_each(|node| add_links(catalog, &mut node.signature, fed)),
    }
}

impl Gateway {
    /// What the catalog adds to a task that a call names.
    fn admitted(&self, task: &TaskSignature, fed: bool) -> Option<Admitted> {
        self.catalog.admit(NamedCall { queue: None, ..named(task, fed) }).ok()
    }

    /// Limits, fair share and labels that its entry computes from the arguments.
    pub(super) fn declared(&self, task: &TaskSignature, fed: bool) -> Admitted {
        self.admitted(task, fed).unwrap_or_default()
    }

    /// The unique key of its entry.
    pub(super) fn declared_unique(&self, task: &TaskSignature) -> Option<Unique> {
        let is_unique = self.catalog.entry(task.task.as_str()).is_some_and(|entry| entry.is_unique());
        is_unique.then(|| self.admitted(task, false)).flatten()?.unique
    }

    /// The queue that its entry computes from its arguments.
    pub(super) fn declared_queue(&self, task: &TaskSignature) -> Option<QueueName> {
        let is_computed = self.catalog.entry(task.task.as_str()).is_some_and(|entry| entry.computes_queue());
        let admitted = || self.admitted(task, false).or_else(|| self.admitted(task, true));
        is_computed.then(admitted).flatten()?.queue
    }
}
