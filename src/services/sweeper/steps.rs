//! Steps of canvases whose turn has come and that are nowhere: the worker sent them and Redis lost the message before anybody took
//! it, or the worker died in between.
//!
//! A worker makes the message of a step out of the message of the one before it and that one's result. Both are in the ledger, so
//! the same message can be made here, by the same rules ([`continuation`]). It is kept in the ledger and published like any other
//! delivery. Where a message cannot be made again (a result that is stored nowhere, a header with groups in it), the task is left
//! to wait, or ends as lost when it was queued before.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tracing::debug;

use super::fleet::Fleet;
use super::{PAGE, Sweeper, Trouble, chords};
use crate::celery::continuation::{self, Continuation, Sender};
use crate::celery::{Decoded, Envelope, Message, Properties, chord};
use crate::clock;
use crate::store::{self, EdgeKind, Neighbour, Task};
use crate::task::{GroupId, Json, Phase, TaskId, json};

/// A worker sends what follows before it stores its own end. After this the message is where it stays.
const SENT: Duration = Duration::from_secs(5);
/// Steps that wait for their turn and are looked at in one pass.
const STEPS: usize = 50_000;
/// Messages of this many steps before it are made for one.
const DEPTH: usize = 1_000;

/// What became of the message of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remade {
    /// The ledger has it now.
    Kept,
    /// The ledger had it before: the task has moved on.
    NotNeeded,
    /// Somebody may still send it.
    NotYet,
    /// Nobody can make it.
    Never,
}

impl Sweeper {
    /// Waiting tasks of which all they wait for has succeeded a while ago, with no worker that is still about to send them.
    pub(super) async fn unsent_steps(&self) -> Result<Vec<Task>, Trouble> {
        let (mut after, mut unsent) = (0, Vec::new());
        while unsent.len() < STEPS {
            let waiting = self.ledger.unfinished(&[Phase::Waiting], after, PAGE).await?;
            let Some(last) = waiting.last() else { break };
            after = last.no;
            unsent.extend(self.due(waiting).await?);
        }
        Ok(unsent)
    }

    async fn due(&self, waiting: Vec<Task>) -> Result<Vec<Task>, Trouble> {
        let numbers: Vec<i64> = waiting.iter().map(|task| task.no).collect();
        let mut before: HashMap<i64, Vec<Neighbour>> = HashMap::new();
        for step in self.ledger.predecessors(&numbers).await? {
            before.entry(step.of).or_default().push(step);
        }
        before.retain(|_, steps| is_due(steps));
        if before.is_empty() {
            return Ok(Vec::new());
        }
        let steps: HashSet<&str> = before.values().flatten().map(|step| step.task.id.as_str()).collect();
        let fleet = Fleet::ask(&self.ledger, &self.broker, &steps.into_iter().collect::<Vec<_>>()).await?;
        if !fleet.all_answered(&self.patience()) {
            return Ok(Vec::new());
        }
        let at_work = |step: &Neighbour| fleet.held.contains_key(step.task.id.as_str());
        before.retain(|_, steps| !steps.iter().any(at_work));
        Ok(waiting.into_iter().filter(|task| before.contains_key(&task.no)).collect())
    }

    /// Makes the message of a task that the ledger has none of, and keeps it.
    pub(super) async fn remake(&self, task: &Task) -> Result<Remade, Trouble> {
        let known = self.ledger.message(&task.id).await?;
        if known.is_some_and(|message| message.headers.is_some()) {
            return Ok(Remade::NotNeeded);
        }
        let Some((message, plan)) = Box::pin(self.make(task, DEPTH)).await? else {
            return Ok(if task.phase == Phase::Waiting { Remade::NotYet } else { Remade::Never });
        };
        for (group, structure) in &plan.saved_groups {
            self.backend.save_group(group, structure).await?;
        }
        for (id, size) in &plan.chord_sizes {
            let Ok(id) = GroupId::parse(id.as_str()) else { continue };
            let group = self.ledger.group(&id).await?;
            let parts: Vec<_> = group.iter().flat_map(chords::parts).collect();
            self.backend.rebuild_chord(id.as_str(), i32::try_from(*size).unwrap_or(i32::MAX), &parts).await?;
        }
        let message = store::Message { headers: Some(message.headers()), body: message.body() };
        let kept = self.ledger.keep_message(&task.id, &message).await?;
        debug!(task.id = %task.id, kept, "the message of step {} was made again", task.id);
        Ok(if kept { Remade::Kept } else { Remade::NotNeeded })
    }

    /// The message as a worker makes it, with all that goes out together with it.
    async fn make(&self, task: &Task, depth: usize) -> Result<Option<(Message, Continuation)>, Trouble> {
        let before = self.ledger.predecessors(&[task.no]).await?;
        let Some(step) = before.first().filter(|_| is_due(&before) && depth > 0) else { return Ok(None) };
        let Some(parent) = self.message_of(&step.task, depth).await? else { return Ok(None) };
        let plan = if before.len() == 1 { self.after(&step.task, &parent).await? } else { None };
        let plan = match plan.filter(|plan| names(plan, task)) {
            Some(plan) => Some(plan),
            None => self.body(task, &before, &parent).await?,
        };
        Ok(plan.and_then(|plan| {
            let message = plan.sends.iter().find(|send| send.message.id == task.id)?.message.clone();
            Some((message, plan))
        }))
    }

    async fn message_of(&self, step: &Task, depth: usize) -> Result<Option<Message>, Trouble> {
        match self.ledger.message(&step.id).await? {
            Some(store::Message { headers: Some(headers), body }) => Ok(decoded(headers, body)),
            _ => Ok(Box::pin(self.make(step, depth - 1)).await?.map(|(message, _)| message)),
        }
    }

    /// What follows one task. A result that was not stored is no hindrance to steps that do not take it.
    async fn after(&self, step: &Task, parent: &Message) -> Result<Option<Continuation>, Trouble> {
        let result = self.ledger.task(&step.id).await?.and_then(|task| task.result);
        let plan = |value: &Json| self.plan(|sender| continuation::after_success(parent, value, sender));
        match result {
            Some(value) => Ok(plan(&value)),
            None if !step.ignore_result => Ok(plan(&json::null())),
            None => {
                let bodies =
                    |plan: &Continuation| plan.sends.iter().map(|send| send.message.body()).collect::<Vec<_>>();
                let (one, other) = (plan(&json::null()), plan(&chord::body_argument([])));
                let same = one.as_ref().map(bodies) == other.as_ref().map(bodies);
                Ok(one.filter(|_| same))
            }
        }
    }

    /// The body of a flat header. No worker has a member any more, so nobody is about to send it, unless somebody holds the claim;
    /// whoever comes late finds the chord ended.
    async fn body(&self, task: &Task, before: &[Neighbour], parent: &Message) -> Result<Option<Continuation>, Trouble> {
        let (Some(body), Some(id)) = (&parent.embed.chord, &parent.group) else { return Ok(None) };
        let Some(group) = self.ledger.group(id).await? else { return Ok(None) };
        let mut members: Vec<_> = group.members.iter().collect();
        members.sort_by_key(|member| member.index);
        let is_flat = members.len() == before.len()
            && before.iter().all(|step| members.iter().any(|member| member.task_id == step.task.id));
        if !is_flat {
            return Ok(None);
        }
        let null = json::null();
        let values = chord::body_argument(members.iter().map(|member| member.result.as_deref().unwrap_or(&null)));
        let plan = self.plan(|sender| continuation::chord_body(parent, body, &values, sender));
        let Some(plan) = plan.filter(|plan| names(plan, task)) else { return Ok(None) };
        Ok(self.backend.close_chord(id.as_str()).await?.then_some(plan))
    }

    fn plan<E>(&self, make: impl FnOnce(&mut Sender<'_>) -> Result<Continuation, E>) -> Option<Continuation> {
        let mut ids = || TaskId::from(clock::new_id());
        let now = jiff::Timestamp::from_microsecond(clock::now().as_micros()).unwrap_or_default();
        make(&mut Sender { now, origin: &self.holder, default_queue: "celery", ids: &mut ids }).ok()
    }
}

/// All that the step waits for has succeeded, a while ago.
fn is_due(before: &[Neighbour]) -> bool {
    let now = clock::now();
    !before.is_empty()
        && before.iter().all(|step| {
            step.kind != EdgeKind::LinkError
                && step.task.phase == Phase::Succeeded
                && step.task.finished_at.is_some_and(|at| now.since(at) >= SENT)
        })
}

fn names(plan: &Continuation, task: &Task) -> bool {
    plan.sends.iter().any(|send| send.message.id == task.id)
}

fn decoded(headers: String, body: String) -> Option<Message> {
    let envelope = Envelope {
        headers,
        content_type: Some("application/json".to_owned()),
        body: body.into_bytes(),
        properties: Properties::transient("", "", ""),
    };
    Decoded::from_envelope(envelope).ok().map(|decoded| decoded.message)
}
