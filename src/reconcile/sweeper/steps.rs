//! Rebuilds canvas steps that are due but missing: a worker sent the message and Redis lost it before it was taken, or the worker died
//! before it sent it.
//!
//! A worker builds the message of a step from the previous step's message and result. Both are in the ledger, so the same message can
//! be built here, by the same rules ([`continuation`]). It is stored in the ledger and published like any other delivery. A step that
//! cannot be rebuilt (it takes a result that is stored nowhere) ends as lost, with the reason, because no worker would ever send it.
//! Chord bodies have rules of their own ([`super::bodies`]).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tracing::debug;

use super::decision::Taker;
use super::fleet::Fleet;
use super::{PAGE, Sweeper, Trouble, chords};
use celery::continuation::{self, Continuation, Sender};
use celery::task::{GroupId, Json, Phase, TaskId, json};
use celery::{Decoded, Envelope, Message, Properties, chord};
use ledger::{EdgeKind, Neighbour, Task};
use runtime::clock::{self, Time};

/// A worker sends the next step before it stores its own result. After this time the message has arrived.
const SENT: Duration = Duration::from_secs(5);
/// Maximum number of waiting steps in one pass.
const STEPS: usize = 50_000;
/// Maximum number of predecessors whose messages are rebuilt for a step.
pub(super) const DEPTH: usize = 1_000;

/// The waiting tasks of a survey.
#[derive(Default)]
pub(super) struct Waiting {
    /// Steps that are due.
    pub unsent: Vec<(Task, Due)>,
    /// Tasks that have replaced themselves.
    pub replaced: Vec<Task>,
}

/// Since when a step is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    /// Since when it may have been sent and taken.
    pub since: Time,
    /// Whether the worker that had to send it may have died before.
    pub sender_died: bool,
}

/// The outcome of rebuilding a step's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remade {
    /// The message is in the ledger now.
    Kept,
    /// The ledger already had a message: the task has changed meanwhile.
    NotNeeded,
    /// A worker may still send it.
    NotYet,
    /// It cannot be rebuilt, for this reason.
    Never(&'static str),
}

/// A rebuilt message, or the reason why there is none.
pub(super) enum Made {
    /// The message, with everything that is sent together with it.
    Message(Box<Message>, Continuation),
    NotYet,
    Never(&'static str),
}

/// The next step, as far as known.
pub(super) enum Next {
    Plan(Continuation),
    NotYet,
    Never(&'static str),
}

const NOT_DUE: &str = "what it waits for has not all succeeded";
const TOO_DEEP: &str = "more messages before it are missing than are made again";
const UNSEEN: &str = "the message of the step before it was never seen";
const UNSTORED: &str = "it takes a result that is stored nowhere";
const UNNAMED: &str = "nothing before it names it";

impl Sweeper {
    /// Waiting tasks whose predecessors have all succeeded a while ago, so that no worker is still about to send them; and tasks that wait
    /// for their replacements.
    pub(super) async fn waiting_steps(&self) -> Result<Waiting, Trouble> {
        let (mut after, mut found) = (0, Waiting::default());
        while found.unsent.len() + found.replaced.len() < STEPS {
            let waiting = self.ledger.unfinished(&[Phase::Waiting], after, PAGE).await?;
            let Some(last) = waiting.last() else { break };
            after = last.no;
            let (replaced, waiting) = waiting.into_iter().partition(Task::is_replaced);
            found.replaced.extend::<Vec<Task>>(replaced);
            found.unsent.extend(self.due(waiting).await?);
        }
        Ok(found)
    }

    async fn due(&self, waiting: Vec<Task>) -> Result<Vec<(Task, Due)>, Trouble> {
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
        let due = |task: Task| {
            let steps = before.get(&task.no)?;
            let since = steps.iter().filter_map(|step| step.task.finished_at).min()?.minus(SENT);
            let has_died = |step: &Neighbour| fleet.taker(&step.task, &self.patience()) == Taker::Died;
            Some((task, Due { since, sender_died: steps.iter().any(has_died) }))
        };
        Ok(waiting.into_iter().filter_map(due).collect())
    }

    /// Rebuilds the message of a task that has none in the ledger, and stores it with those that are sent together with it, because their
    /// sources may be gone later.
    pub(super) async fn remake(&self, task: &Task) -> Result<Remade, Trouble> {
        let known = self.ledger.message(&task.id).await?;
        if known.is_some_and(|message| message.headers.is_some()) {
            return Ok(Remade::NotNeeded);
        }
        let plan = match Box::pin(self.make(task, DEPTH)).await? {
            Made::Message(_, plan) => plan,
            Made::NotYet => return Ok(Remade::NotYet),
            Made::Never(why) => return Ok(Remade::Never(why)),
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
        let mut kept = false;
        for send in &plan.sends {
            let is_new = self.ledger.keep_message(&send.message.id, &text_of(&send.message)).await?;
            kept |= is_new && send.message.id == task.id;
        }
        debug!(task.id = %task.id, kept, "the message of step {} was rebuilt", task.id);
        Ok(if kept { Remade::Kept } else { Remade::NotNeeded })
    }

    /// Builds the message as a worker does.
    async fn make(&self, task: &Task, depth: usize) -> Result<Made, Trouble> {
        let before = self.ledger.predecessors(&[task.no]).await?;
        let Some(step) = before.first().filter(|_| is_due(&before)) else {
            return Ok(if may_come(&before) { Made::NotYet } else { Made::Never(NOT_DUE) });
        };
        let Some(parent) = self.message_of(&step.task, depth).await? else {
            return Ok(Made::Never(if depth > 0 { UNSEEN } else { TOO_DEEP }));
        };
        let mut next = Next::Never(UNNAMED);
        if before.len() == 1 {
            next = self.after(task, &step.task, &parent).await?;
        }
        if matches!(next, Next::Never(UNNAMED)) && parent.embed.chord.is_some() {
            next = self.body(task, &before, &parent).await?;
        }
        Ok(match next {
            Next::Plan(plan) => match plan.sends.iter().find(|send| send.message.id == task.id) {
                Some(send) => Made::Message(Box::new(send.message.clone()), plan),
                None => Made::Never(UNNAMED),
            },
            Next::NotYet => Made::NotYet,
            Next::Never(why) => Made::Never(why),
        })
    }

    /// The message of a step: from the ledger, or rebuilt and stored, because later steps are built from it too. `None` when there is
    /// none.
    pub(super) async fn message_of(&self, step: &Task, depth: usize) -> Result<Option<Message>, Trouble> {
        match self.ledger.message(&step.id).await? {
            Some(ledger::Message { headers: Some(headers), body }) => Ok(decoded(headers, body)),
            _ if depth == 0 => Ok(None),
            _ => match Box::pin(self.make(step, depth - 1)).await? {
                Made::Message(message, _) => {
                    self.ledger.keep_message(&step.id, &text_of(&message)).await?;
                    Ok(Some(*message))
                }
                Made::NotYet | Made::Never(_) => Ok(None),
            },
        }
    }

    /// The step after a task.
    async fn after(&self, task: &Task, step: &Task, parent: &Message) -> Result<Next, Trouble> {
        let result = self.ledger.task(&step.id).await?.and_then(|task| task.result);
        let plan = |value: &Json| self.plan(|sender| continuation::after_success(parent, value, sender));
        Ok(planned(task, result.as_ref(), plan))
    }

    pub(super) fn plan<E>(
        &self,
        make: impl FnOnce(&mut Sender<'_>) -> Result<Continuation, E>,
    ) -> Option<Continuation> {
        let mut ids = || TaskId::from(clock::new_id());
        let now = jiff::Timestamp::from_microsecond(clock::now().as_micros()).unwrap_or_default();
        make(&mut Sender { now, origin: &self.holder, default_queue: "celery", ids: &mut ids }).ok()
    }
}

/// The continuation that sends the task. An unknown result only matters to a step that takes it.
pub(super) fn planned(task: &Task, value: Option<&Json>, make: impl Fn(&Json) -> Option<Continuation>) -> Next {
    let named = |value: &Json| make(value).filter(|plan| names(plan, task));
    let Some(value) = value else {
        let own = |plan: &Continuation| plan.sends.iter().map(|send| send.message.body()).collect::<Vec<_>>();
        let (with_null, with_argument) = (named(&json::null()), named(&chord::body_argument([])));
        return match with_null {
            None => Next::Never(UNNAMED),
            Some(plan) if with_argument.as_ref().map(own) == Some(own(&plan)) => Next::Plan(plan),
            Some(_) => Next::Never(UNSTORED),
        };
    };
    named(value).map_or(Next::Never(UNNAMED), Next::Plan)
}

/// Whether all predecessors of the step have succeeded, a while ago.
fn is_due(before: &[Neighbour]) -> bool {
    let now = clock::now();
    !before.is_empty()
        && before.iter().all(|step| {
            !matches!(step.kind, EdgeKind::LinkError | EdgeKind::After)
                && step.task.phase == Phase::Succeeded
                && step.task.finished_at.is_some_and(|at| now.since(at) >= SENT)
        })
}

/// Whether the step may still become due, or has only just become due.
fn may_come(before: &[Neighbour]) -> bool {
    let bad = |step: &Neighbour| step.task.phase.is_final() && step.task.phase != Phase::Succeeded;
    !before.is_empty() && !before.iter().any(|step| step.kind == EdgeKind::LinkError || bad(step))
}

fn text_of(message: &Message) -> ledger::Message {
    ledger::Message { headers: Some(message.headers()), body: message.body() }
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
