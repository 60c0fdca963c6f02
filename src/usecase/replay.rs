//! Builds a new submission from a message that was sent before: the same call under a new id.
//!
//! Embedded signatures (callbacks, errbacks, the rest of a chain) are copied under new ids too, because the old tasks have ended.
//! A member of a group or of a chord's header is run again alone, because the chord has already counted its part.

use std::collections::HashMap;

use celery::options::Options;
use celery::signature::{Form, Signature};
use celery::task::{GroupId, Phase, QueueName, TaskId, TaskName};
use celery::{Decoded, Envelope, Properties};
use ledger::{Edge, EdgeKind, Message, NewGroup, NewTask, SharedLedger, Task, Way};
use runtime::clock::{self, Time};

/// A canvas with more parts than this cannot be replayed; its client must submit it again.
const MAX_PARTS: usize = 2_000;

/// Why a message cannot be sent again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{0}")]
    NotReplayable(&'static str),
    #[error("the ledger failed")]
    Ledger(#[from] ledger::Error),
}

/// Maps old ids of tasks and groups to new ids.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn rename(&mut self, old: &str) -> String {
        self.0.entry(old.to_owned()).or_insert_with(|| clock::new_id().to_string()).clone()
    }

    fn of(&self, old: &str) -> Option<&str> {
        self.0.get(old).map(String::as_str)
    }
}

/// The submission, whose first task is the new one.
pub(super) async fn replay(ledger: &SharedLedger, task: &Task, at: Time) -> Result<ledger::Submission, ReplayError> {
    let message = ledger.message(&task.id).await?;
    let message = message.ok_or(ReplayError::NotReplayable("its message was never seen here"))?;
    let mut names = Names::default();
    let first = first(task, &message, &mut names, at)?;
    if names.0.len() > MAX_PARTS {
        return Err(ReplayError::NotReplayable("its canvas is too large, submit it again"));
    }
    let mut submission = ledger::Submission {
        at,
        tasks: vec![first],
        edges: Vec::new(),
        groups: Vec::new(),
        idempotency: None,
        fan_out: None,
        dag: None,
        unique: None,
    };
    if names.0.len() > 1 {
        followers(ledger, task, &names, &mut submission).await?;
    }
    Ok(submission)
}

fn first(task: &Task, message: &Message, names: &mut Names, at: Time) -> Result<NewTask, ReplayError> {
    let headers = message.headers.as_deref().ok_or(ReplayError::NotReplayable(
        "a worker made its message from its predecessor's result; submit its canvas again",
    ))?;
    let queue = task.queue.as_deref().unwrap_or_default();
    let envelope = Envelope {
        headers: headers.to_owned(),
        content_type: Some("application/json".to_owned()),
        body: message.body.clone().into_bytes(),
        properties: Properties {
            correlation_id: None,
            routing_key: queue.to_owned().into(),
            ..Properties::transient("", "", "")
        },
    };
    let decoded = Decoded::from_envelope(envelope)
        .map_err(|_| ReplayError::NotReplayable("its message cannot be read any more"))?;
    let mut message = decoded.message;
    let id = names.rename(task.id.as_str());
    message.id = TaskId::parse(&id).expect("a UUID is an id");
    message.root_id = Some(message.id.clone());
    message.parent_id = None;
    (message.group, message.group_index, message.embed.chord) = (None, None, None);
    message.retries = 0;
    let expires_at = task.expires_at.map(|until| at.plus(until.since(task.submitted_at)));
    message.expires = expires_at.and_then(|at| jiff::Timestamp::from_microsecond(at.as_micros()).ok());
    let embed = &mut message.embed;
    let lists = [Some(&mut embed.callbacks), Some(&mut embed.errbacks), embed.chain.as_mut()];
    for signature in lists.into_iter().flatten().flatten() {
        rename(signature, names, &id);
    }
    Ok(NewTask {
        headers: Some(message.headers()),
        body: message.body(),
        phase: Phase::Accepted,
        expires_at,
        ..row(task, message.id.clone(), message.id, String::new())?
    })
}

/// Replaces all ids in a signature by new ones.
fn rename(signature: &mut Signature, names: &mut Names, root: &str) {
    let Options { task_id, group_id, root_id, parent_id, link, link_error, chord, chain, .. } = &mut signature.options;
    for id in [task_id, group_id].into_iter().flatten() {
        *id = names.rename(id);
    }
    if let Some(id) = root_id {
        root.clone_into(id);
    }
    *parent_id = None;
    let nested = link.iter_mut().chain(link_error).chain(chord.as_deref_mut()).chain(chain.iter_mut().flatten());
    nested.for_each(|inner| rename(inner, names, root));
    match &mut signature.form {
        Form::Task { .. } => {}
        Form::Chain(members) | Form::Group(members) => {
            members.iter_mut().for_each(|member| rename(member, names, root))
        }
        Form::Chord { header, body } => {
            rename(header, names, root);
            rename(body, names, root);
        }
    }
}

/// Rows for the embedded signatures: copies of the old nodes under new ids.
async fn followers(
    ledger: &SharedLedger,
    task: &Task,
    names: &Names,
    submission: &mut ledger::Submission,
) -> Result<(), ReplayError> {
    let Some((nodes, edges)) = ledger.graph(&task.id).await? else { return Ok(()) };
    let root = submission.tasks[0].id.clone();
    let mut places: HashMap<TaskId, usize> = HashMap::from([(task.id.clone(), 0)]);
    for node in nodes.iter().filter(|node| node.id != task.id) {
        let Some(new) = names.of(node.id.as_str()) else { continue };
        let body = ledger.message(&node.id).await?.map_or_else(|| "[[], {}, {}]".to_owned(), |message| message.body);
        let id = TaskId::parse(new).expect("a UUID is an id");
        let mut row = row(node, id, root.clone(), body)?;
        if let Some(group) = node.group_id.as_ref().and_then(|group| names.of(group.as_str())) {
            row.group_id = Some(GroupId::parse(group).expect("a UUID is an id"));
            row.group_index = node.group_index;
            add_group(ledger, node, row.group_id.as_ref(), &root, submission).await?;
        }
        places.insert(node.id.clone(), submission.tasks.len());
        submission.tasks.push(row);
    }
    let edge = |(from, to, kind): &(TaskId, TaskId, EdgeKind)| {
        Some(Edge { from: *places.get(from)?, to: *places.get(to)?, kind: *kind })
    };
    submission.edges = edges.iter().filter_map(edge).collect();
    Ok(())
}

/// Adds the group of a follower once. The worker that sends its header writes its chord keys.
async fn add_group(
    ledger: &SharedLedger,
    node: &Task,
    new: Option<&GroupId>,
    root: &TaskId,
    submission: &mut ledger::Submission,
) -> Result<(), ReplayError> {
    let (Some(old), Some(new)) = (&node.group_id, new) else { return Ok(()) };
    if submission.groups.iter().any(|group| group.id == *new) {
        return Ok(());
    }
    if let Some(group) = ledger.group(old).await? {
        let total = group.total;
        submission.groups.push(NewGroup {
            id: new.clone(),
            root_id: root.clone(),
            total,
            chord_size: None,
            structure: None,
        });
    }
    Ok(())
}

/// A waiting copy of a node.
fn row(task: &Task, id: TaskId, root_id: TaskId, body: String) -> Result<NewTask, ReplayError> {
    const NAMELESS: ReplayError = ReplayError::NotReplayable("its name or queue was never seen here");
    Ok(NewTask {
        id,
        name: TaskName::parse(task.name.as_deref().unwrap_or_default()).map_err(|_| NAMELESS)?,
        queue: QueueName::parse(task.queue.as_deref().unwrap_or_default()).map_err(|_| NAMELESS)?,
        priority: task.priority,
        phase: Phase::Waiting,
        headers: None,
        body,
        due_at: None,
        expires_at: None,
        root_id,
        parent_id: None,
        group_id: None,
        group_index: None,
        ignore_result: task.ignore_result,
        retry_of: Some(task.id.clone()),
        schedule: None,
        labels: task.labels.clone(),
        options: task.options.clone(),
        way: Way::Direct,
    })
}
