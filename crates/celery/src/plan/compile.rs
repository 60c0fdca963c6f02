//! Decides which nodes of a DAG are sent together, as chains and chords, and which the gateway must send.
//!
//! A worker can send a follower only if it has no other predecessor, and can pass it the result as its first argument, or nothing. So a
//! node joins its predecessor if it is the only follower, has no other predecessor, and reads either nothing or exactly that result
//! as its first argument. Nodes with the same predecessors and the same followers become a group, so the node after them becomes the
//! body of a chord. Every other node is a part of its own: the gateway sends it when all its predecessors have succeeded.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::task::dag::{Dag, reads};
use crate::task::{Signature, TaskSignature, json};

/// Nodes that are sent together.
#[derive(Debug)]
pub(super) struct Part {
    pub signature: Signature,
    pub nodes: BTreeSet<usize>,
    /// Nodes that start when it starts,
    first: Vec<usize>,
    /// and nodes whose end is its end.
    last: Vec<usize>,
    /// Nodes of other parts that it waits for.
    pub after: BTreeSet<usize>,
}

/// What Celery's messages can express in this fleet.
pub(super) struct Wire<'a> {
    /// The result backend counts the parts of a chord.
    pub has_chords: bool,
    /// The task stores no result, so no chord can count it.
    pub ignores: &'a dyn Fn(&TaskSignature) -> bool,
}

/// The parts, each after those that it waits for. Nodes kept from an earlier DAG are in none.
pub(super) fn compile(dag: &Dag, wire: &Wire<'_>) -> Vec<Part> {
    let mut parts: Vec<Part> = dag
        .order()
        .into_iter()
        .filter(|node| !dag.nodes[*node].kept)
        .map(|node| Part {
            signature: dag.nodes[node].signature.clone(),
            nodes: BTreeSet::from([node]),
            first: vec![node],
            last: vec![node],
            after: dag.nodes[node].after.iter().copied().collect(),
        })
        .collect();
    while join_pair(dag, wire, &mut parts) || join_siblings(dag, wire, &mut parts) {}
    parts
}

/// Joins parts to their predecessors where possible. False when nothing could be joined.
fn join_pair(dag: &Dag, wire: &Wire<'_>, parts: &mut Vec<Part>) -> bool {
    let mut joined = false;
    let mut at = 0;
    let mut followers = self::followers(parts);
    while at < parts.len() {
        let only = |part: usize| match followers[part].as_slice() {
            [follower] => Some(*follower),
            _ => None,
        };
        let Some(next) = only(at).filter(|next| may_join(dag, wire, &parts[at], &parts[*next])) else {
            at += 1;
            continue;
        };
        let next = parts.remove(next);
        let part = &mut parts[at];
        let (feeds, mut signature) = (reads_anything(dag, &next), next.signature);
        if feeds {
            take_first_argument(&mut signature)
        } else {
            make_immutable(&mut signature)
        }
        let before = std::mem::replace(&mut part.signature, Signature::Group(Vec::new()));
        part.signature = chain(before, signature);
        part.nodes.extend(next.nodes);
        part.last = next.last;
        joined = true;
        followers = self::followers(parts);
    }
    joined
}

/// Joins parts with the same predecessors and the same followers. False when nothing could be joined.
fn join_siblings(dag: &Dag, wire: &Wire<'_>, parts: &mut Vec<Part>) -> bool {
    if !wire.has_chords {
        return false;
    }
    let followers = followers(parts);
    let mut families: BTreeMap<(&BTreeSet<usize>, &[usize]), Vec<usize>> = BTreeMap::new();
    for (index, part) in parts.iter().enumerate() {
        let is_useful = part.after.len() == 1 || followers[index].len() == 1;
        if is_useful && !reads_anything(dag, part) && can_be_counted(wire, part) {
            families.entry((&part.after, &followers[index])).or_default().push(index);
        }
    }
    let Some(family) = families.into_values().find(|family| family.len() > 1) else { return false };
    let mut members = Vec::with_capacity(family.len());
    for index in family.iter().rev() {
        members.push(parts.remove(*index));
    }
    members.reverse();
    let mut joined = Part {
        signature: Signature::Group(Vec::new()),
        nodes: BTreeSet::new(),
        first: Vec::new(),
        last: Vec::new(),
        after: members[0].after.clone(),
    };
    let mut signatures = Vec::with_capacity(members.len());
    for member in members {
        signatures.push(member.signature);
        joined.nodes.extend(member.nodes);
        joined.first.extend(member.first);
        joined.last.extend(member.last);
    }
    joined.signature = Signature::Group(signatures);
    parts.insert(family[0], joined);
    true
}

/// By part: its followers.
fn followers(parts: &[Part]) -> Vec<Vec<usize>> {
    let mut part_of = BTreeMap::new();
    for (index, part) in parts.iter().enumerate() {
        part_of.extend(part.nodes.iter().map(|node| (*node, index)));
    }
    let mut followers = vec![Vec::new(); parts.len()];
    for (index, part) in parts.iter().enumerate() {
        let before: BTreeSet<usize> = part.after.iter().filter_map(|node| part_of.get(node).copied()).collect();
        before.into_iter().for_each(|before| followers[before].push(index));
    }
    followers
}

fn may_join(dag: &Dag, wire: &Wire<'_>, part: &Part, next: &Part) -> bool {
    if !next.after.iter().all(|node| part.nodes.contains(node)) || !is_sendable(dag, part, next) {
        return false;
    }
    let makes_chord = ends_in_group(&part.signature);
    !makes_chord || (wire.has_chords && can_be_counted(wire, part))
}

/// Whether a worker can build the messages of the nodes that start it.
fn is_sendable(dag: &Dag, part: &Part, next: &Part) -> bool {
    if !reads_anything(dag, next) {
        return true;
    }
    let ([before], [node]) = (part.last.as_slice(), next.first.as_slice()) else { return false };
    let Signature::Task(task) = &dag.nodes[*node].signature else { return false };
    let place = format!("\"{{{}}}\"", dag.nodes[*before].name);
    let is_first =
        json::elements(&task.args).is_some_and(|args| args.first().is_some_and(|first| first.get() == place));
    let has_links = !task.link.is_empty() || !task.link_error.is_empty();
    let mut rest = task.as_ref().clone();
    drop_first(&mut rest);
    is_first && !has_links && reads(&rest).is_empty()
}

/// Whether a node that starts it reads a result.
fn reads_anything(dag: &Dag, part: &Part) -> bool {
    part.first.iter().any(|node| !dag.nodes[*node].reads().is_empty())
}

/// Whether every end of it returns a result.
fn can_be_counted(wire: &Wire<'_>, part: &Part) -> bool {
    let mut counted = true;
    part.signature.visit(&mut |task| counted &= !(wire.ignores)(task));
    counted
}

fn ends_in_group(signature: &Signature) -> bool {
    match signature {
        Signature::Task(_) => false,
        Signature::Chain(steps) => steps.last().is_none_or(ends_in_group),
        Signature::Group(_) | Signature::Dag(_) => true,
        Signature::Chord { body, .. } => ends_in_group(body),
    }
}

fn chain(before: Signature, next: Signature) -> Signature {
    let steps = |signature| match signature {
        Signature::Chain(steps) => steps,
        other => vec![other],
    };
    let mut all = steps(before);
    all.extend(steps(next));
    Signature::Chain(all)
}

/// What starts first takes nothing from what came before.
fn make_immutable(signature: &mut Signature) {
    match signature {
        Signature::Task(task) => task.immutable = true,
        Signature::Chain(steps) => steps.first_mut().into_iter().for_each(make_immutable),
        Signature::Group(members) => members.iter_mut().for_each(make_immutable),
        Signature::Chord { header, .. } => header.iter_mut().for_each(make_immutable),
        Signature::Dag(dag) => dag.nodes.iter_mut().for_each(|node| make_immutable(&mut node.signature)),
    }
}

/// The worker puts it there.
fn take_first_argument(signature: &mut Signature) {
    match signature {
        Signature::Task(task) => drop_first(task),
        Signature::Chain(steps) => steps.first_mut().into_iter().for_each(take_first_argument),
        Signature::Group(_) | Signature::Chord { .. } | Signature::Dag(_) => {}
    }
}

fn drop_first(task: &mut TaskSignature) {
    let rest: Vec<&str> =
        json::elements(&task.args).unwrap_or_default().into_iter().skip(1).map(|argument| argument.get()).collect();
    task.args = json::written(format!("[{}]", rest.join(", ")));
    task.immutable = false;
}
