//! Reads a DAG and refuses what could never run: an unknown name, a loop, an argument that reads a node that is not a predecessor.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use super::Reader;
use crate::task::dag::{Dag, DagNode, MAX_NODES, results, split};
use crate::task::json::{self, Fields};
use crate::task::submission::walk;
use crate::task::{Invalid, Signature, TaskId, TaskSignature};
use crate::template::{Part, parts};

const MAX_NAME: usize = 100;
/// Maximum number of names in all `after` lists together.
const MAX_AFTER: usize = 10_000;

impl Reader {
    /// `{"nodes": {name: signature and "after"}}`.
    pub(super) fn dag(&mut self, value: &RawValue, depth: usize) -> Option<Signature> {
        if depth > 0 {
            self.problems.add("must not be part of another composition");
            return None;
        }
        let fields = self.problems.object(value)?;
        self.problems.refuse_unknown(&fields, &["nodes"]);
        let Some(nodes) = fields.get("nodes") else {
            self.problems.add_at("nodes", "is required");
            return None;
        };
        let dag = self.within("nodes", |reader| reader.nodes(nodes))?;
        if self.problems.found.is_empty() {
            self.check(&dag);
        }
        Some(Signature::Dag(dag))
    }

    /// Reads a DAG in the form that the ledger stores.
    pub fn stored_dag(text: &str) -> Option<Dag> {
        let mut reader = Self { node_extras: &["after", "kept"], ..Self::stored() };
        let whole = json::verbatim(text.to_owned()).ok()?;
        match reader.signature(&whole, 0) {
            Some(Signature::Dag(dag)) if reader.problems.found.is_empty() => Some(dag),
            _ => None,
        }
    }

    fn nodes(&mut self, value: &RawValue) -> Option<Dag> {
        let fields = self.problems.object(value)?;
        let names: Vec<&str> = fields.iter().map(|(name, _)| name).collect();
        if names.is_empty() || names.len() > MAX_NODES {
            self.problems.add(format!("must have 1 to {MAX_NODES} nodes"));
            return None;
        }
        let mut nodes = Vec::with_capacity(names.len());
        for (index, (name, value)) in fields.iter().enumerate() {
            if self.problems.is_full() {
                return None;
            }
            nodes.extend(self.within(name, |reader| {
                if names[..index].contains(&name) {
                    reader.problems.add("is there twice");
                }
                reader.node(name, value, &names)
            }));
        }
        if nodes.iter().map(|node: &DagNode| node.after.len()).sum::<usize>() > MAX_AFTER {
            self.problems.add(format!("has more than {MAX_AFTER} names in the nodes' after"));
            return None;
        }
        (nodes.len() == names.len()).then_some(Dag { nodes })
    }

    fn node(&mut self, name: &str, value: &RawValue, names: &[&str]) -> Option<DagNode> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
            self.problems.add(format!("a node's name has 1 to {MAX_NAME} letters, digits, - and _"));
        }
        if self.tasks >= self.limits.tasks {
            self.problems.add(format!("the canvas has more than {} tasks", self.limits.tasks));
            return None;
        }
        let fields = self.problems.object(value)?;
        let signature = self.fields(&fields, self.node_extras, 1);
        let after = self.member(&fields, "after", |reader, value| reader.after(value, name, names)).unwrap_or_default();
        let kept = self.node_extras.contains(&"kept") && fields.boolean("kept").unwrap_or(false);
        let signature = signature?;
        if !has_result(&signature) {
            self.problems.add("has no task at its end, so nothing could follow it");
        }
        Some(DagNode { name: name.to_owned(), signature, after, kept })
    }

    fn after(&mut self, value: &RawValue, name: &str, names: &[&str]) -> Option<Vec<usize>> {
        let mut after = BTreeSet::new();
        for (index, element) in self.problems.array(value)?.into_iter().enumerate() {
            self.within(&index.to_string(), |reader| {
                let before = reader.problems.text(element)?;
                if before == name {
                    reader.problems.add("a node cannot wait for itself");
                }
                match names.iter().position(|known| *known == before) {
                    Some(found) => after.insert(found),
                    None => {
                        let near = crate::spelling::nearest(&before, names);
                        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
                        reader.problems.add(format!("there is no node {before}{hint}"));
                        false
                    }
                };
                Some(())
            });
        }
        Some(after.into_iter().collect())
    }

    fn check(&mut self, dag: &Dag) {
        if let Some(path) = a_loop(dag) {
            let names: Vec<&str> = path.iter().map(|node| dag.nodes[*node].name.as_str()).collect();
            let first = names[0];
            self.problems.add_below(
                &["nodes".to_owned(), first.to_owned(), "after".to_owned()],
                format!("makes a loop: {} waits for {first}", names.join(" waits for ")),
            );
            return;
        }
        for (index, node) in dag.nodes.iter().enumerate() {
            let before: Vec<&str> =
                dag.ancestors(index).into_iter().map(|node| dag.nodes[node].name.as_str()).collect();
            let here = format!("{}/nodes/{}", self.problems.pointer(), node.name);
            walk(&node.signature, &here, &mut |at, task| self.check_arguments(task, at, &before));
        }
    }

    fn check_arguments(&mut self, task: &TaskSignature, at: &str, before: &[&str]) {
        for (member, json) in [("args", &task.args), ("kwargs", &task.kwargs)] {
            texts(json, &format!("{at}/{member}"), &mut |pointer, text| {
                for detail in wrong_places(&text, before) {
                    if !self.problems.is_full() {
                        self.problems.found.push(Invalid { pointer: pointer.to_owned(), detail });
                    }
                }
            });
        }
    }
}

/// Every string in a JSON value that contains a brace, with its place.
fn texts(value: &RawValue, at: &str, visit: &mut dyn FnMut(&str, String)) {
    if !value.get().contains(['{', '}']) {
        return;
    }
    if let Some(items) = json::elements(value) {
        items.into_iter().enumerate().for_each(|(index, item)| texts(item, &format!("{at}/{index}"), visit));
    } else if let Ok(fields) = Fields::parse(value.get()) {
        for (name, value) in fields.iter() {
            texts(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), visit);
        }
    } else if let Some(text) = json::text(value) {
        visit(at, text);
    }
}

fn wrong_places(text: &str, before: &[&str]) -> Vec<String> {
    let parts = match parts(text) {
        Ok(parts) => parts,
        Err(error) => return vec![error.to_string()],
    };
    let wrong = |part: &Part| match part {
        Part::Text(_) => None,
        Part::Name(name) if !before.contains(&split(name).0) => {
            Some(format!("{{{name}}} names no predecessor: add the node to after, or write {{{{ for a brace"))
        }
        Part::Name(name) if name.split('.').any(str::is_empty) => {
            Some(format!("{{{name}}} has an empty step in its path"))
        }
        Part::Name(_) => None,
    };
    parts.iter().filter_map(wrong).collect()
}

/// The nodes of a loop, if there is one: each waits for the next, and the last for the first.
fn a_loop(dag: &Dag) -> Option<Vec<usize>> {
    let order: BTreeSet<usize> = dag.order().into_iter().collect();
    let mut path = vec![(0..dag.nodes.len()).find(|node| !order.contains(node))?];
    loop {
        let last = *path.last().expect("it starts with one");
        // A node that is not in `order` waits for another such node, so the path ends in a loop.
        let next = dag.nodes[last].after.iter().copied().find(|before| !order.contains(before))?;
        if let Some(start) = path.iter().position(|node| *node == next) {
            return Some(path.split_off(start));
        }
        path.push(next);
    }
}

/// Whether the signature ends in a single task. The tasks have no ids yet.
fn has_result(signature: &Signature) -> bool {
    let mut numbered = signature.clone();
    numbered.visit_mut(&mut |task| {
        task.task_id.get_or_insert_with(|| TaskId::parse("0").expect("a digit is an id"));
    });
    !results(&numbered).ids.is_empty()
}
