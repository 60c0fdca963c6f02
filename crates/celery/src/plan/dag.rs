//! Encodes a DAG as messages: the parts that start at once get theirs now; the gateway builds those of the others by the same rules
//! when all their predecessors have succeeded ([`release`]).
//!
//! A waiting part is stored as its signature and the ids that were generated for it, in order: with the same ids it becomes the same
//! canvas again.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::compile::{Part, Wire, compile};
use super::{
    Canvas, Context, EMPTY_EMBED, Group, MAX_EDGES, NodeDefaults, Outcome, Plan, PlannedNode, encode, message,
};
use crate::task::canvas::EdgeKind;
use crate::task::dag::{Dag, Results, fill, reads, results};
use crate::task::reader::Reader;
use crate::task::{Expires, GroupId, Invalid, Json, Signature, TaskId, TaskSignature, json};

/// The stored data of a DAG, besides its tasks.
#[derive(Debug)]
pub struct PlannedDag {
    /// The whole DAG, with the ids of its tasks.
    pub document: String,
    pub parts: Vec<PlannedPart>,
    /// Tasks of an earlier DAG, each with a task of this one that follows it.
    pub joins: Vec<(TaskId, usize)>,
}

/// A part that the gateway must send.
#[derive(Debug)]
pub struct PlannedPart {
    /// The tasks that start it.
    pub entries: Vec<usize>,
    pub document: String,
}

/// A part as the ledger stores it.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredPart {
    pub root: String,
    /// The tasks that start it.
    pub entries: Vec<String>,
    signature: Json,
    /// The ids generated for it, in order.
    ids: Vec<String>,
    /// The group that its ends belong to, and the position of the first end.
    group: Option<(String, usize)>,
    /// The results that its arguments read.
    pub reads: BTreeMap<String, Read>,
}

/// The place of a result.
#[derive(Debug, Serialize, Deserialize)]
pub struct Read {
    pub ids: Vec<String>,
    /// The result is the list of these tasks' results.
    pub is_list: bool,
}

/// A part with its resolved canvas.
struct Resolved {
    part: Part,
    canvas: Canvas,
    drawn: Vec<TaskId>,
    group: Option<(GroupId, usize)>,
}

type Ids<'a> = &'a mut dyn FnMut() -> TaskId;
type Defaults<'a> = &'a dyn Fn(&TaskSignature) -> NodeDefaults;

pub(super) fn plan(
    mut dag: Dag,
    context: &Context<'_>,
    ids: Ids<'_>,
    defaults: Defaults<'_>,
) -> Result<Plan, Vec<Invalid>> {
    for node in &mut dag.nodes {
        node.signature.visit_mut(&mut |task| {
            task.task_id.get_or_insert_with(&mut *ids);
        });
    }
    let ignores = |task: &TaskSignature| task.ignore_result.or(defaults(task).ignore_result).unwrap_or(false);
    check_results(&dag, &ignores)?;
    let wire = Wire { has_chords: context.reply_to.is_none(), ignores: &ignores };
    let mut resolved = Vec::new();
    for part in compile(&dag, &wire) {
        resolved.push(Resolved::new(part, ids, defaults)?);
    }
    let outcome = gather_ends(&dag, &mut resolved, ids);
    let first =
        resolved.first().and_then(|part| part.canvas.top.entries().first().map(|&node| &part.canvas.nodes[node]));
    let root = first.map(|node| node.id.clone());
    let mut assembly = Assembly { dag: &dag, context, root: root.clone(), plan: empty(root), tasks: HashMap::new() };
    for part in resolved {
        assembly.add(part)?;
    }
    let Assembly { mut plan, tasks, .. } = assembly;
    plan.outcome = match outcome {
        End::Task(id) => Outcome::Task(tasks[&id]),
        End::Group(id) => Outcome::Group(id),
        End::Several(id, ids) => {
            plan.groups.push(Group { id: id.clone(), members: ids.iter().map(|id| tasks[id]).collect() });
            Outcome::Group(id)
        }
    };
    let document = Signature::Dag(dag).to_json();
    plan.dag.as_mut().expect("it was just made").document = document;
    Ok(plan)
}

/// Encodes a part whose arguments are known now.
///
/// # Errors
/// As [`super::plan`].
pub fn release(
    part: &StoredPart,
    signature: Signature,
    context: &Context<'_>,
    defaults: Defaults<'_>,
) -> Result<Plan, Vec<Invalid>> {
    let broken =
        || vec![Invalid { pointer: String::new(), detail: "is kept in a form that cannot be read".to_owned() }];
    let mut drawn = part.ids.iter().filter_map(|id| TaskId::parse(id).ok());
    let mut missing = false;
    let mut ids = || {
        drawn.next().unwrap_or_else(|| {
            missing = true;
            TaskId::from(uuid::Uuid::nil())
        })
    };
    let mut canvas = Canvas::resolve(signature, &mut ids, defaults)?;
    if missing {
        return Err(broken());
    }
    if let Some((group, first)) = &part.group {
        let group = GroupId::parse(group).map_err(|_| broken())?;
        into_group(&mut canvas, &group, *first);
    }
    let root = TaskId::parse(&part.root).map_err(|_| broken())?;
    Ok(encode(canvas, context, Some(root)))
}

impl StoredPart {
    /// `None` when it is none.
    pub fn parse(document: &str) -> Option<Self> {
        serde_json::from_str(document).ok()
    }

    /// Its signature with values in the places of its arguments.
    ///
    /// # Errors
    /// The error of `value_of`.
    pub fn filled(&self, value_of: &dyn Fn(&str) -> Result<String, String>) -> Result<Signature, String> {
        let mut reader = Reader::stored();
        let signature = reader.signature(&self.signature, 0);
        let mut signature = signature.ok_or_else(|| "its signature cannot be read any more".to_owned())?;
        fill(&mut signature, value_of)?;
        Ok(signature)
    }
}

impl Resolved {
    fn new(mut part: Part, ids: Ids<'_>, defaults: Defaults<'_>) -> Result<Self, Vec<Invalid>> {
        let mut drawn = Vec::new();
        let mut draw = || {
            let id = ids();
            drawn.push(id.clone());
            id
        };
        if part.after.is_empty() {
            // Nothing comes before it, so its braces are doubled ones.
            let nothing = |name: &str| Err(format!("{name} is read by what comes first"));
            fill(&mut part.signature, &nothing).map_err(|detail| vec![Invalid { pointer: String::new(), detail }])?;
        }
        let canvas = Canvas::resolve(part.signature.clone(), &mut draw, defaults)?;
        Ok(Self { part, canvas, drawn, group: None })
    }
}

/// The place of the whole DAG's result.
enum End {
    Task(TaskId),
    Group(GroupId),
    Several(GroupId, Vec<TaskId>),
}

/// The ends of a DAG that has several are the members of a group.
fn gather_ends(dag: &Dag, resolved: &mut [Resolved], ids: Ids<'_>) -> End {
    let waited_for = |node: &usize| dag.nodes.iter().any(|other| !other.kept && other.after.contains(node));
    let mut ends: Vec<&mut Resolved> =
        resolved.iter_mut().filter(|part| part.part.nodes.iter().any(|node| !waited_for(node))).collect();
    if let [end] = ends.as_mut_slice() {
        return match end.canvas.top.outcome() {
            Outcome::Task(node) => End::Task(end.canvas.nodes[node].id.clone()),
            Outcome::Group(id) => End::Group(id),
        };
    }
    let id = GroupId::parse(ids().as_str()).expect("what is a task id is a group id");
    let mut members = Vec::new();
    for end in ends {
        end.group = Some((id.clone(), members.len()));
        members.extend(into_group(&mut end.canvas, &id, members.len()));
    }
    End::Several(id, members)
}

/// Makes the ends of a canvas members of a group, from this place on.
fn into_group(canvas: &mut Canvas, id: &GroupId, first: usize) -> Vec<TaskId> {
    let exits = canvas.top.exits();
    for (index, exit) in exits.iter().enumerate() {
        let index = i32::try_from(first + index).unwrap_or(i32::MAX);
        if let Some((inner, _)) = canvas.nodes[*exit].group.replace((id.clone(), index)) {
            canvas.groups.retain(|group| group.id != inner);
        }
    }
    exits.into_iter().map(|exit| canvas.nodes[exit].id.clone()).collect()
}

fn empty(root: Option<TaskId>) -> Plan {
    Plan {
        nodes: Vec::new(),
        edges: Vec::new(),
        groups: Vec::new(),
        publish: Vec::new(),
        chord_sizes: Vec::new(),
        saved_groups: Vec::new(),
        outcome: Outcome::Task(0),
        root,
        dag: Some(PlannedDag { document: String::new(), parts: Vec::new(), joins: Vec::new() }),
    }
}

/// The plan of the whole, part by part.
struct Assembly<'a> {
    dag: &'a Dag,
    context: &'a Context<'a>,
    root: Option<TaskId>,
    plan: Plan,
    /// Indexes of the tasks that are in it.
    tasks: HashMap<TaskId, usize>,
}

impl Assembly<'_> {
    fn add(&mut self, resolved: Resolved) -> Result<(), Vec<Invalid>> {
        let Resolved { part, canvas, drawn, group } = resolved;
        let offset = self.plan.nodes.len();
        let entries: Vec<usize> = canvas.top.entries();
        let names: Vec<String> = entries.iter().map(|entry| canvas.nodes[*entry].id.to_string()).collect();
        let mut piece = encode(canvas, self.context, self.root.clone());
        let waits = !part.after.is_empty();
        if waits {
            piece.nodes.iter_mut().for_each(unsent);
        }
        for (index, planned) in piece.nodes.iter().enumerate() {
            self.tasks.insert(planned.node.id.clone(), offset + index);
        }
        let entries: Vec<usize> = entries.into_iter().map(|entry| entry + offset).collect();
        self.plan.edges.extend(piece.edges.into_iter().map(|(from, to, kind)| (from + offset, to + offset, kind)));
        let moved = |group: Group| Group { members: group.members.iter().map(|node| node + offset).collect(), ..group };
        self.plan.groups.extend(piece.groups.into_iter().map(moved));
        self.plan.chord_sizes.extend(piece.chord_sizes);
        self.plan.saved_groups.extend(piece.saved_groups);
        self.plan.nodes.extend(piece.nodes.into_iter().map(|mut planned| {
            planned.node.parent = planned.node.parent.map(|parent| parent + offset);
            planned
        }));
        if !waits {
            self.plan.publish.extend(entries);
            return Ok(());
        }
        self.follow(&part, &entries)?;
        let stored = StoredPart {
            root: self.root.as_ref().map(ToString::to_string).unwrap_or_default(),
            entries: names,
            reads: self.reads(&part),
            signature: json::written(part.signature.to_json()),
            ids: drawn.iter().map(ToString::to_string).collect(),
            group: group.map(|(id, first)| (id.as_str().to_owned(), first)),
        };
        let document = serde_json::to_string(&stored).expect("texts and numbers are JSON");
        self.beside().parts.push(PlannedPart { entries, document });
        Ok(())
    }

    /// Edges from what the part waits for.
    fn follow(&mut self, part: &Part, entries: &[usize]) -> Result<(), Vec<Invalid>> {
        for &node in &part.after {
            let before = &self.dag.nodes[node];
            let ids = results(&before.signature).ids;
            if ids.len().saturating_mul(entries.len()) + self.plan.edges.len() > MAX_EDGES {
                let detail = "large groups follow each other: the DAG has more than 250,000 edges".to_owned();
                return Err(vec![Invalid { pointer: String::new(), detail }]);
            }
            for id in ids {
                if before.kept {
                    let joins = entries.iter().map(|entry| (id.clone(), *entry)).collect::<Vec<_>>();
                    self.beside().joins.extend(joins);
                } else {
                    let from = self.tasks[&id];
                    self.plan.edges.extend(entries.iter().map(|entry| (from, *entry, EdgeKind::After)));
                }
            }
        }
        Ok(())
    }

    fn reads(&self, part: &Part) -> BTreeMap<String, Read> {
        let mut names = std::collections::BTreeSet::new();
        part.signature.visit(&mut |task| names.extend(reads(task)));
        let read = |name: String| {
            let Results { ids, is_list } = results(&self.dag.nodes[self.dag.find(&name)?].signature);
            Some((name, Read { ids: ids.iter().map(ToString::to_string).collect(), is_list }))
        };
        names.into_iter().filter_map(read).collect()
    }

    fn beside(&mut self) -> &mut PlannedDag {
        self.plan.dag.as_mut().expect("it was made with one")
    }
}

/// It is not sent now.
fn unsent(planned: &mut PlannedNode) {
    if planned.headers.take().is_some() {
        let task = &planned.node.task;
        planned.body = message::body(&task.args, &task.kwargs, EMPTY_EMBED);
        planned.expires_at = match task.expires {
            Some(Expires::At(at)) => Some(at),
            Some(Expires::After(_)) | None => None,
        };
    }
}

/// A result that is read has to be stored.
fn check_results(dag: &Dag, ignores: &dyn Fn(&TaskSignature) -> bool) -> Result<(), Vec<Invalid>> {
    let mut wrong = Vec::new();
    for node in dag.nodes.iter().filter(|node| !node.kept) {
        for name in node.reads() {
            let Some(before) = dag.find(&name) else { continue };
            let ids = results(&dag.nodes[before].signature).ids;
            let mut ignored = false;
            dag.nodes[before].signature.visit(&mut |task| {
                ignored |= task.task_id.as_ref().is_some_and(|id| ids.contains(id)) && ignores(task);
            });
            if ignored {
                let detail = format!("reads the result of {name}, which stores none (ignore_result)");
                wrong.push(Invalid { pointer: format!("/dag/nodes/{}", node.name), detail });
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

#[cfg(test)]
#[path = "dag_tests.rs"]
mod tests;
