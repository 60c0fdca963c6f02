//! Encodes a canvas as Celery does: which messages are published now, which later steps they contain, and which chord keys must
//! exist before.
//!
//! Only the first tasks get messages; the later ones are signatures inside these, and workers send them. Every signature names its
//! queue, because a worker would otherwise send it to its own default queue. All nodes have the same root, so the canvas can be
//! found from any of its tasks.

mod compile;
mod dag;

use jiff::Timestamp;

pub use dag::{PlannedDag, PlannedPart, Read, StoredPart, release};

use super::json::{self, Members};
use super::limits::Limits;
use super::message::{self, Embed, Message};
use super::options::Options;
use super::result::{ResultTuple, encode_saved_group};
use super::signature::{Form, Signature as Wire};
use crate::task::canvas::{Canvas, EdgeKind, Group, MAX_EDGES, Node, NodeDefaults, Outcome, Step};
use crate::task::{Expires, GroupId, Invalid, Json, Signature, TaskId, TaskSignature};

/// Values that all tasks of a submission share.
#[derive(Debug)]
pub struct Context<'a> {
    /// `expires` in seconds counts from here.
    pub now: Timestamp,
    /// The `origin` header, by convention `gen<pid>@<host>`.
    pub origin: &'a str,
    /// Custom headers of every task, such as `traceparent`.
    pub headers: &'a Members,
    /// The queue for results of steps that workers publish. Only Celery's `rpc://` uses it.
    pub reply_to: Option<&'a str>,
}

/// Everything that a submission writes into the ledger and, later, into Redis.
#[derive(Debug)]
pub struct Plan {
    pub nodes: Vec<PlannedNode>,
    pub edges: Vec<(usize, usize, EdgeKind)>,
    pub groups: Vec<Group>,
    /// Nodes whose messages are published now, in order.
    pub publish: Vec<usize>,
    /// For chords whose header is published now: the value that `celery-taskset-meta-<id>.s` must have before the first message.
    pub chord_sizes: Vec<(GroupId, usize)>,
    /// For headers with nested groups: the value that `celery-taskset-meta-<id>` must have, JSON text.
    pub saved_groups: Vec<(GroupId, String)>,
    pub outcome: Outcome,
    /// The first published task, which is the `root_id` of all. `None` for an empty group.
    pub root: Option<TaskId>,
    pub dag: Option<PlannedDag>,
}

/// One task and, if it is published now, its message.
#[derive(Debug)]
pub struct PlannedNode {
    pub node: Node,
    /// The message's headers. `None` for a node that a worker will send.
    pub headers: Option<String>,
    /// `[args, kwargs, embed]`; for a node that a worker will send, only its own part.
    pub body: String,
    /// When it expires, if that is known now.
    pub expires_at: Option<Timestamp>,
}

/// Resolves a signature and encodes what is published now.
///
/// # Errors
/// As [`Canvas::resolve`].
pub fn plan(
    signature: Signature,
    context: &Context<'_>,
    ids: &mut dyn FnMut() -> TaskId,
    defaults: &dyn Fn(&TaskSignature) -> NodeDefaults,
) -> Result<Plan, Vec<Invalid>> {
    let signature = match signature {
        Signature::Dag(whole) => return dag::plan(whole, context, ids, defaults),
        other => other,
    };
    let canvas = Canvas::resolve(signature, ids, defaults)?;
    let root = canvas.top.entries().first().map(|first| canvas.nodes[*first].id.clone());
    Ok(encode(canvas, context, root))
}

/// Some members of a group that is written in pieces.
#[derive(Debug)]
pub struct Piece<'a> {
    pub group: &'a GroupId,
    /// The root of all members.
    pub root: &'a TaskId,
    /// The index of the first of `tasks`.
    pub first: i32,
    pub tasks: Vec<TaskSignature>,
}

/// As [`plan`], for some members of a larger group.
///
/// # Errors
/// As [`Canvas::resolve`].
pub fn piece(
    piece: Piece<'_>,
    context: &Context<'_>,
    ids: &mut dyn FnMut() -> TaskId,
    defaults: &dyn Fn(&TaskSignature) -> NodeDefaults,
) -> Result<Plan, Vec<Invalid>> {
    let members = piece.tasks.into_iter().map(|task| Signature::Task(Box::new(task))).collect();
    let canvas = Canvas::resolve(Signature::Group(members), ids, defaults)?.as_part_of(piece.group, piece.first);
    Ok(encode(canvas, context, Some(piece.root.clone())))
}

fn encode(canvas: Canvas, context: &Context<'_>, root: Option<TaskId>) -> Plan {
    let entries = canvas.top.entries();
    let mut planner = Planner {
        nodes: &canvas.nodes,
        context,
        root: root.clone(),
        messages: vec![None; canvas.nodes.len()],
        chord_sizes: Vec::new(),
        saved_groups: Vec::new(),
    };
    planner.publish(&canvas.top, &[], Tail::default(), None);
    let Planner { messages, chord_sizes, saved_groups, .. } = planner;
    let outcome = canvas.top.outcome();
    let nodes = canvas
        .nodes
        .into_iter()
        .zip(messages)
        .map(|(node, message)| PlannedNode::new(node, message, context.now))
        .collect();
    Plan {
        nodes,
        edges: canvas.edges,
        groups: canvas.groups,
        publish: entries,
        chord_sizes,
        saved_groups,
        outcome,
        root,
        dag: None,
    }
}

impl PlannedNode {
    fn new(node: Node, message: Option<(String, String)>, now: Timestamp) -> Self {
        let expires_at = match node.task.expires {
            Some(Expires::At(at)) => Some(at),
            Some(Expires::After(seconds)) if message.is_some() => after(now, seconds),
            _ => None,
        };
        let (headers, body) = match message {
            Some((headers, body)) => (Some(headers), body),
            None => (None, message::body(&node.task.args, &node.task.kwargs, EMPTY_EMBED)),
        };
        Self { node, headers, body, expires_at }
    }
}

const EMPTY_EMBED: &str = r#"{"callbacks": null, "errbacks": null, "chain": null, "chord": null}"#;

/// The header that carries a retry policy to our worker.
pub const RETRY_HEADER: &str = "taskgate_retry";

/// What the last tasks of a step must contain when the step is in a chord's header.
#[derive(Clone, Copy, Default)]
struct Tail<'a> {
    chord: Option<&'a Wire>,
    group: Option<&'a GroupId>,
}

struct Planner<'a> {
    nodes: &'a [Node],
    context: &'a Context<'a>,
    root: Option<TaskId>,
    messages: Vec<Option<(String, String)>>,
    chord_sizes: Vec<(GroupId, usize)>,
    saved_groups: Vec<(GroupId, String)>,
}

impl Planner<'_> {
    /// Encodes the tasks that start at once. `rest` are the next steps, reversed; `first` is an argument put before the tasks' own.
    fn publish(&mut self, step: &Step, rest: &[Wire], tail: Tail<'_>, first: Option<&str>) {
        match step {
            Step::Task(node) => self.messages[*node] = Some(self.message(*node, rest, tail, first)),
            Step::Chain(steps) => {
                let own_tail = if rest.is_empty() { tail } else { Tail::default() };
                let mut chain = rest.to_vec();
                chain.extend(self.steps(&steps[1..], own_tail).into_iter().rev());
                self.publish(&steps[0], &chain, Tail::default(), first);
            }
            Step::Group { members, .. } => members.iter().for_each(|member| self.publish(member, rest, tail, first)),
            Step::Chord { header, body, .. } if header.is_empty() => {
                // Celery sends the body of an empty header at once, with an empty list.
                self.publish(body, rest, tail, Some("[]"));
            }
            Step::Chord { id, header, body } => {
                let mut wire = self.signature(body, if rest.is_empty() { tail } else { Tail::default() });
                if !rest.is_empty() {
                    let own = wire.options.chain.take().unwrap_or_default();
                    wire.options.chain = Some(rest.iter().cloned().chain(own).collect());
                }
                self.chord_sizes.push((id.clone(), header.iter().map(size).sum()));
                if header.iter().any(|member| matches!(member.outcome(), Outcome::Group(_))) {
                    self.saved_groups.push((id.clone(), encode_saved_group(&self.group_tuple(id, header, None))));
                }
                let tail = Tail { chord: Some(&wire), group: Some(id) };
                header.iter().for_each(|member| self.publish(member, &[], tail, first));
            }
        }
    }

    fn message(&self, index: usize, rest: &[Wire], tail: Tail<'_>, first: Option<&str>) -> (String, String) {
        let node = &self.nodes[index];
        let task = &node.task;
        let args = match first {
            Some(first) if !task.immutable => prepend(first, &task.args),
            _ => task.args.clone(),
        };
        let mut message = Message::new(task.task.clone(), node.id.clone(), args, task.kwargs.clone());
        message.root_id = self.root.clone();
        (message.group, message.group_index) = match &node.group {
            Some((group, index)) => (Some(group.clone()), Some((*index).into())),
            None => (None, None),
        };
        message.expires = match task.expires {
            Some(Expires::At(at)) => Some(at),
            Some(Expires::After(seconds)) => after(self.context.now, seconds),
            None => None,
        };
        message.limits = Limits { hard: node.time_limit(), soft: node.soft_time_limit() };
        message.origin = self.context.origin.to_owned();
        message.ignore_result = node.ignore_result();
        message.custom = self.headers(node);
        message.embed = Embed {
            callbacks: self.steps(&node.link, Tail::default()),
            errbacks: self.steps(&node.link_error, Tail::default()),
            chain: (!rest.is_empty()).then(|| rest.to_vec()),
            chord: tail.chord.cloned().map(Box::new),
        };
        (message.headers(), message.body())
    }

    /// The signatures in order; the last one contains the tail.
    fn steps(&self, steps: &[Step], tail: Tail<'_>) -> Vec<Wire> {
        let last = steps.len().saturating_sub(1);
        let tail_of = |index| if index == last { tail } else { Tail::default() };
        steps.iter().enumerate().map(|(index, step)| self.signature(step, tail_of(index))).collect()
    }

    fn signature(&self, step: &Step, tail: Tail<'_>) -> Wire {
        match step {
            Step::Task(node) => self.task(*node, tail),
            Step::Chain(steps) => {
                let options = Options { task_id: Some(self.result_id(step)), ..Options::default() };
                Wire::wrapper(Form::Chain(self.steps(steps, tail)), options)
            }
            Step::Group { id, members } => {
                let mut group = self.group(id, members, tail);
                group.options.group_id = tail.group.map(|id| id.as_str().to_owned());
                group.options.chord = tail.chord.cloned().map(Box::new);
                group
            }
            Step::Chord { id, header, body } => {
                let header = Box::new(self.group(id, header, Tail::default()));
                let body = Box::new(self.signature(body, tail));
                Wire::wrapper(
                    Form::Chord { header, body },
                    Options { task_id: Some(id.as_str().to_owned()), ..Options::default() },
                )
            }
        }
    }

    fn group(&self, id: &GroupId, members: &[Step], tail: Tail<'_>) -> Wire {
        let members = members.iter().map(|member| self.signature(member, tail)).collect();
        Wire::wrapper(Form::Group(members), Options { task_id: Some(id.as_str().to_owned()), ..Options::default() })
    }

    fn task(&self, index: usize, tail: Tail<'_>) -> Wire {
        let node = &self.nodes[index];
        let task = &node.task;
        let headers = self.headers(node);
        let mut wire = Wire::task(task.task.as_str(), task.args.clone(), task.kwargs.clone());
        wire.immutable = task.immutable;
        wire.options = Options {
            task_id: Some(node.id.as_str().to_owned()),
            queue: Some(node.queue().as_str().to_owned()),
            priority: node.priority().map(|priority| priority.get().into()),
            countdown: task.countdown,
            eta: task.eta,
            expires: task.expires,
            link: self.steps(&node.link, Tail::default()),
            link_error: self.steps(&node.link_error, Tail::default()),
            chord: tail.chord.cloned().map(Box::new),
            group_id: node.group.as_ref().map(|(group, _)| group.as_str().to_owned()),
            group_index: node.group.as_ref().map(|(_, index)| (*index).into()),
            time_limit: node.time_limit(),
            soft_time_limit: node.soft_time_limit(),
            headers: (!headers.is_empty()).then(|| object(&headers)),
            ignore_result: node.ignore_result(),
            reply_to: self.context.reply_to.map(str::to_owned),
            ..Options::default()
        };
        wire
    }

    /// The custom headers of a node: its own, the submission's, and its retry policy.
    fn headers(&self, node: &Node) -> Members {
        let mut headers = node.task.headers.clone();
        let known = |headers: &Members, name: &str| headers.iter().any(|(known, _)| known == name);
        for (name, value) in self.context.headers {
            if !known(&headers, name) {
                headers.push((name.clone(), value.clone()));
            }
        }
        if let Some(retry) = &node.task.retry {
            let policy = serde_json::value::to_raw_value(retry).expect("a policy is plain numbers");
            headers.push((RETRY_HEADER.to_owned(), policy));
        }
        headers
    }

    fn result_id(&self, step: &Step) -> String {
        match step.outcome() {
            Outcome::Task(node) => self.nodes[node].id.as_str().to_owned(),
            Outcome::Group(id) => id.as_str().to_owned(),
        }
    }

    /// The result of a step, with its parent.
    fn tuple(&self, step: &Step, parent: Option<ResultTuple>) -> ResultTuple {
        match step {
            Step::Task(node) => {
                ResultTuple { id: self.nodes[*node].id.as_str().to_owned(), parent: parent.map(Box::new), nodes: None }
            }
            Step::Chain(steps) => {
                let before = steps.iter().fold(parent, |parent, step| Some(self.tuple(step, parent)));
                before.expect("a chain has steps")
            }
            Step::Group { id, members } => self.group_tuple(id, members, parent),
            Step::Chord { id, header, body } => self.tuple(body, Some(self.group_tuple(id, header, parent))),
        }
    }

    fn group_tuple(&self, id: &GroupId, members: &[Step], parent: Option<ResultTuple>) -> ResultTuple {
        let nodes = members.iter().map(|member| self.tuple(member, None)).collect();
        ResultTuple { id: id.as_str().to_owned(), parent: parent.map(Box::new), nodes: Some(nodes) }
    }
}

/// How many parts a member of a header returns.
fn size(step: &Step) -> usize {
    step.exits().len()
}

fn after(now: Timestamp, seconds: f64) -> Option<Timestamp> {
    let span = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    now.checked_add(span).ok()
}

/// A JSON array with one more element in front.
pub(super) fn prepend(first: &str, args: &Json) -> Json {
    let inside = args.get()[1..].trim_start();
    let separator = if inside.starts_with(']') { "" } else { ", " };
    json::written(["[", first, separator, inside].concat())
}

fn object(members: &Members) -> Json {
    let mut out = String::from("{");
    for (name, value) in members {
        if out.len() > 1 {
            out.push_str(", ");
        }
        json::push_string(&mut out, name);
        out.extend([": ", value.get()]);
    }
    out.push('}');
    json::written(out)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
