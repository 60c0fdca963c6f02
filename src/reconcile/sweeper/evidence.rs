//! Gathers the evidence about a task: where its message is, whether its worker lives, which tasks it sent, how often it was delivered.

use std::collections::{HashMap, HashSet};

use super::absence::Absent;
use super::decision::{self, Decision, Evidence, Place, Policy, Reached, Taker, Why};
use super::fleet::Fleet;
use super::steps::Due;
use super::survey::State;
use super::{Sweeper, Trouble};
use crate::reconcile::deliveries;
use broker::Present;
use celery::task::{Phase, TaskId};
use ledger::Task;
use runtime::clock::Time;

/// What was found for all tasks of a survey.
pub(super) struct Found<'a> {
    pub present: &'a Present,
    pub fleet: &'a Fleet,
    /// Steps of canvases whose turn has come.
    pub due: &'a HashMap<TaskId, Due>,
}

impl Found<'_> {
    /// Since when the message may have been taken: since a step was due, since the previous attempt, or since its publication.
    fn since(&self, task: &Task) -> Time {
        let attempt = task.started_at.max(task.received_at).filter(|_| task.phase == Phase::Retrying);
        let turn = self.due.get(&task.id).map(|due| due.since);
        turn.or(attempt).or(task.queued_at).unwrap_or(task.submitted_at)
    }
}

/// What was looked up for some of them only.
#[derive(Default)]
struct Asked {
    exhausted: HashSet<TaskId>,
    going_on: HashMap<TaskId, String>,
}

impl Sweeper {
    /// Decides about each of these; tasks to leave alone are not returned.
    pub(super) async fn decide(
        &self,
        tasks: &[Task],
        found: &Found<'_>,
        state: &State,
    ) -> Result<Vec<Absent>, Trouble> {
        let mut asked = Asked { exhausted: self.exhausted(tasks, found.present).await?, ..Asked::default() };
        let open = |task: &&Task| {
            let is_taken = task.phase.is_at_worker() || task.is_replaced();
            let known = self.evidence(task, found, state, &asked);
            is_taken && known.place == Place::Nowhere && !known.held
        };
        let taken: Vec<&Task> = tasks.iter().filter(open).collect();
        asked.going_on = self.going_on(&taken, found.present).await?;
        let decided = |task: &Task| {
            let known = self.evidence(task, found, state, &asked);
            let decision = decision::decide(&known);
            (decision != Decision::Leave).then(|| Absent {
                about: self.about(task, decision, found, &asked),
                decision,
                is_held: false,
                reservation: found.present.reserved.get(task.id.as_str()).cloned(),
                task: task.clone(),
            })
        };
        Ok(tasks.iter().filter_map(decided).collect())
    }

    fn evidence(&self, task: &Task, found: &Found<'_>, state: &State, asked: &Asked) -> Evidence {
        let (fleet, patience) = (found.fleet, self.patience());
        let reached = reached(task);
        let since = found.since(task);
        let is_queued = reached == Reached::Queue;
        let mute = is_queued && fleet.has_mute_taker(task, since);
        let may_keep = fleet.may_hold_unseen(task, task.received_at.or(task.queued_at).unwrap_or(since), &patience);
        let busy_solo = is_queued && fleet.may_run_at_solo(task, &patience);
        Evidence {
            place: place(task, found.present),
            reached,
            taker: self.taker(task, found),
            held: fleet.may_have(task, &patience) || may_keep || busy_solo,
            answered: fleet.answered_for(task, &patience),
            loss: state.lost_since(since, mute),
            goes_on: asked.going_on.contains_key(&task.id),
            idle: fleet.is_idle_owner(task),
            may_have_run: fleet.may_have_run_at_solo(task, &patience),
            policy: policy(task),
            acks_late: state.acks_late(task),
            exhausted: asked.exhausted.contains(&task.id),
            adopted: task.adopted,
            enabled: self.settings.recovery.enabled,
        }
    }

    fn taker(&self, task: &Task, found: &Found<'_>) -> Taker {
        let (fleet, patience) = (found.fleet, self.patience());
        match reached(task) {
            Reached::Queue if found.due.get(&task.id).is_some_and(|due| due.sender_died) => Taker::Died,
            Reached::Queue => fleet.takers(task, found.since(task), &patience),
            Reached::Worker | Reached::Start | Reached::Replacement => fleet.taker(task, &patience),
        }
    }

    /// The names of workers for the reason.
    fn about(&self, task: &Task, decision: Decision, found: &Found<'_>, asked: &Asked) -> String {
        let since = found.since(task);
        match decision {
            Decision::Await => asked.going_on.get(&task.id).cloned().unwrap_or_default(),
            Decision::Ignore(Why::NeverReported) => found.fleet.silent_takers(task, since).join(", "),
            _ => found.fleet.named(task),
        }
    }

    /// The tasks that were delivered as often as allowed. Histories are read only for tasks with enough deliveries.
    async fn exhausted(&self, tasks: &[Task], present: &Present) -> Result<HashSet<TaskId>, Trouble> {
        let mut exhausted = HashSet::new();
        for task in tasks.iter().filter(|task| deliveries::may_be_exhausted(task, &self.settings.recovery)) {
            let reserved = present.reserved.get(task.id.as_str());
            // A task that replaces itself with the same id is announced repeatedly, but with new messages.
            if reserved.is_some_and(|reservation| !reservation.redelivered) {
                continue;
            }
            if deliveries::is_exhausted(&self.ledger, task, &self.settings.recovery, reserved.is_some()).await? {
                exhausted.insert(task.id.clone());
            }
        }
        Ok(exhausted)
    }
}

fn reached(task: &Task) -> Reached {
    match task.phase {
        _ if task.is_replaced() => Reached::Replacement,
        Phase::Received => Reached::Worker,
        Phase::Running => Reached::Start,
        // For a retry the next attempt is meant.
        _ => Reached::Queue,
    }
}

fn place(task: &Task, present: &Present) -> Place {
    let id = task.id.as_str();
    if present.listed.contains(id) {
        Place::Listed
    } else if present.reserved_unread {
        Place::Unread
    } else if present.reserved.contains_key(id) {
        Place::Reserved
    } else if task.queue.as_ref().is_some_and(|queue| present.left_out.contains(queue)) {
        Place::Unread
    } else {
        Place::Nowhere
    }
}

fn policy(task: &Task) -> Policy {
    match task.options.recovery.as_deref() {
        Some("rerun") => Policy::Rerun,
        Some("report") => Policy::Report,
        _ => Policy::Unsaid,
    }
}
