//! A DAG: named signatures, each with the names of its predecessors (`after`).
//!
//! Arguments may name results of predecessors: `"{fetch}"` is the value itself, `"{fetch.total}"` a member of it, `"{rows.0}"` an
//! element; inside a longer text the value is inserted. `{{` and `}}` stand for braces. A name may be that of any earlier node, not only
//! one in `after`.
//!
//! Invariants after reading (reader/dag.rs): names are unique, `after` makes no loop, and every name in an argument is that of an earlier
//! node. Pure.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::json::{self, Fields};
use super::{Json, Signature, TaskId, TaskSignature};
use crate::template::Template;

/// Maximum number of nodes in a DAG.
pub const MAX_NODES: usize = 1_000;

/// The nodes, in the order of the document.
#[derive(Debug, Clone)]
pub struct Dag {
    pub nodes: Vec<DagNode>,
}

#[derive(Debug, Clone)]
pub struct DagNode {
    pub name: String,
    pub signature: Signature,
    /// Indexes of its predecessors.
    pub after: Vec<usize>,
    /// Whether the node ran in an earlier DAG that this one resumes. Its tasks are in the ledger already.
    pub kept: bool,
}

/// The tasks whose results form the result of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    pub ids: Vec<TaskId>,
    /// The result is the list of these tasks' results.
    pub is_list: bool,
}

impl Dag {
    /// Every node that comes before this one.
    pub fn ancestors(&self, node: usize) -> BTreeSet<usize> {
        let (mut found, mut next) = (BTreeSet::new(), self.nodes[node].after.clone());
        while let Some(before) = next.pop() {
            if found.insert(before) {
                next.extend(&self.nodes[before].after);
            }
        }
        found
    }

    /// The nodes in an order in which each comes after its predecessors; fewer than all when there is a loop.
    pub fn order(&self) -> Vec<usize> {
        let mut waits: Vec<usize> = self.nodes.iter().map(|node| node.after.len()).collect();
        let mut followers = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            node.after.iter().for_each(|before| followers[*before].push(index));
        }
        let mut order: Vec<usize> = (0..self.nodes.len()).filter(|node| waits[*node] == 0).collect();
        let mut at = 0;
        while let Some(&node) = order.get(at) {
            at += 1;
            for &follower in &followers[node] {
                waits[follower] -= 1;
                if waits[follower] == 0 {
                    order.push(follower);
                }
            }
        }
        order
    }

    pub fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }
}

impl DagNode {
    /// Names of the nodes that its arguments read.
    pub fn reads(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        self.signature.visit(&mut |task| names.extend(reads(task)));
        names
    }
}

/// Names of the nodes that the arguments of one task read.
pub fn reads(task: &TaskSignature) -> BTreeSet<String> {
    let templates = [&task.args, &task.kwargs].into_iter().filter_map(|json| Template::read(json).ok());
    let names =
        |template: Template| template.names().into_iter().map(|name| split(name).0.to_owned()).collect::<Vec<_>>();
    templates.flat_map(names).collect()
}

/// Splits the name in a placeholder into the node's name and the path into its result.
pub fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once('.').map_or((name, None), |(node, path)| (node, Some(path)))
}

/// The tasks whose results form the result of a signature. All its tasks must have ids.
pub fn results(signature: &Signature) -> Results {
    match signature {
        Signature::Task(task) => Results { ids: task.task_id.iter().cloned().collect(), is_list: false },
        Signature::Chain(steps) => steps.last().map_or_else(|| Results { ids: Vec::new(), is_list: true }, results),
        Signature::Group(members) => {
            Results { ids: members.iter().flat_map(|member| results(member).ids).collect(), is_list: true }
        }
        Signature::Chord { body, .. } => results(body),
        Signature::Dag(dag) => {
            Results { ids: dag.nodes.iter().flat_map(|node| results(&node.signature).ids).collect(), is_list: true }
        }
    }
}

/// Replaces the placeholders in all arguments. `value_of` returns the JSON text for a placeholder's name.
///
/// # Errors
/// The first error of `value_of`.
pub fn fill(signature: &mut Signature, value_of: &dyn Fn(&str) -> Result<String, String>) -> Result<(), String> {
    let wrong = RefCell::new(None);
    let value = |name: &str| {
        value_of(name).unwrap_or_else(|error| {
            wrong.borrow_mut().get_or_insert(error);
            "null".to_owned()
        })
    };
    let filled = |json: &Json| {
        let template =
            Template::read(json).map_err(|error| wrong.borrow_mut().get_or_insert(error.to_string()).clone());
        template.map_or_else(
            |_| json.clone(),
            |template| {
                let mut out = String::with_capacity(json.get().len());
                template.fill(&value, &mut out);
                json::written(out)
            },
        )
    };
    signature.visit_mut(&mut |task| {
        (task.args, task.kwargs) = (filled(&task.args), filled(&task.kwargs));
    });
    wrong.into_inner().map_or(Ok(()), Err)
}

/// A member or an element of a value. `None` when it does not exist.
pub fn within<'a>(value: &'a RawValue, path: &str) -> Option<&'a RawValue> {
    path.split('.').try_fold(value, |value, step| match json::elements(value) {
        Some(items) => step.parse::<usize>().ok().and_then(|index| items.get(index).copied()),
        None => {
            let fields = Fields::parse(value.get()).ok()?;
            let found = fields.iter().filter(|(name, _)| *name == step).last();
            found.map(|(_, value)| value)
        }
    })
}

impl Serialize for Dag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("nodes", &Nodes(self))?;
        map.end()
    }
}

struct Nodes<'a>(&'a Dag);

impl Serialize for Nodes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.nodes.iter().map(|node| {
            let after = node.after.iter().map(|before| self.0.nodes[*before].name.as_str()).collect();
            (&node.name, Node { signature: &node.signature, after, kept: node.kept })
        }))
    }
}

#[derive(serde::Serialize)]
struct Node<'a> {
    #[serde(flatten)]
    signature: &'a Signature,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    kept: bool,
}

#[cfg(test)]
#[path = "dag_tests.rs"]
mod tests;
