//! The structure of wire signatures that a worker is about to send: group memberships, the number of parts of a header, and where
//! its results are.

use super::options::Options;
use super::result::ResultTuple;
use super::signature::{Form, Signature};

/// Marks the results of a signature as members of a group and, in a header, as parts of its chord. Options that are set already stay.
pub(super) fn attach(signature: &mut Signature, group: Option<&str>, index: Option<i64>, chord: Option<&Signature>) {
    match &mut signature.form {
        Form::Chain(steps) => {
            if let Some(last) = steps.last_mut() {
                attach(last, group, index, chord);
            }
        }
        Form::Group(members) => {
            for (index, member) in members.iter_mut().enumerate() {
                attach(member, group, i64::try_from(index).ok(), chord);
            }
        }
        Form::Chord { body, .. } => attach(body, group, index, chord),
        Form::Task { .. } => {
            let options = &mut signature.options;
            options.group_id = options.group_id.take().or_else(|| group.map(str::to_owned));
            options.group_index = options.group_index.or(index);
            if let Some(chord) = chord {
                options.chord = Some(Box::new(chord.clone()));
            }
        }
    }
}

/// Members with nested groups flattened, in order.
pub(super) fn flat(members: Vec<Signature>) -> Vec<Signature> {
    let mut flattened = Vec::with_capacity(members.len());
    for member in members {
        match member.form {
            Form::Group(inner) => flattened.extend(flat(inner)),
            form => flattened.push(Signature { form, ..member }),
        }
    }
    flattened
}

/// How many parts a member of a header returns.
pub(super) fn size(signature: &Signature) -> usize {
    match &signature.form {
        Form::Task { .. } => 1,
        Form::Group(members) => members.iter().map(size).sum(),
        Form::Chain(steps) => steps.iter().rev().map(size).find(|size| *size > 0).unwrap_or(0),
        Form::Chord { body, .. } => size(body),
    }
}

/// The result of a signature whose ids are known.
pub(super) fn tuple(signature: &Signature) -> ResultTuple {
    let id = || signature.options.task_id.clone().unwrap_or_default();
    match &signature.form {
        Form::Task { .. } => ResultTuple::task(id()),
        Form::Chain(steps) => steps.last().map_or_else(|| ResultTuple::task(id()), tuple),
        Form::Group(members) => {
            ResultTuple { id: id(), parent: None, nodes: Some(members.iter().map(tuple).collect()) }
        }
        Form::Chord { body, .. } => tuple(body),
    }
}

/// The steps in reverse order, the first to run last. A group before another step becomes a chord's header, with that step as the body.
pub(super) fn following(steps: Vec<Signature>) -> Vec<Signature> {
    let mut follows: Vec<Signature> = Vec::with_capacity(steps.len());
    for step in steps.into_iter().rev() {
        let is_group = matches!(step.form, Form::Group(_));
        match if is_group { follows.pop() } else { None } {
            Some(body) => {
                let options = Options { task_id: step.options.task_id.clone(), ..Options::default() };
                let form = Form::Chord { header: Box::new(step), body: Box::new(body) };
                follows.push(Signature::wrapper(form, options));
            }
            None => follows.push(step),
        }
    }
    follows
}
