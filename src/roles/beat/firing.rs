//! Turns a due schedule into what the ledger must write: each of its ticks fired, skipped, missed or failed.

use crate::usecase::Gateway;
use crate::usecase::schedules::ScheduleError;
use crate::usecase::ticks::next_tick;
use celery::task::TaskId;
use ledger::{Firing, NewRun, NextTick, Outcome, Schedule, Submission};
use runtime::clock::Time;
use schedule::decide::{Decision, decide};
use schedule::definition::{Definition, Overlap};
use schedule::tick;

/// A schedule that is due soon.
pub struct Planned {
    pub schedule: Schedule,
    pub tick: Time,
    pub due_at: Time,
    /// The plan, or why the document can no longer be read. The tick then fails, and the schedule waits for an edit.
    plan: Result<Plan, String>,
}

struct Plan {
    definition: Definition,
    /// The next tick's submission; taken when it fires.
    ready: Option<Result<(TaskId, Submission), String>>,
}

impl Planned {
    /// `None` for a schedule without a next tick.
    pub fn new(gateway: &Gateway, schedule: Schedule) -> Option<Self> {
        let NextTick { tick, due_at } = schedule.next?;
        let plan = match gateway.stored_definition(&schedule) {
            Ok(definition) => {
                let ready = Some(planned(gateway, &schedule, &definition, tick, due_at));
                Ok(Plan { definition, ready })
            }
            Err(error) => Err(told(&error)),
        };
        Some(Self { schedule, tick, due_at, plan })
    }

    /// Whether the plan still matches the row, including the last firing, because its running tasks decide about the next tick.
    pub fn is_of(&self, schedule: &Schedule) -> bool {
        self.schedule.version == schedule.version
            && schedule.next == Some(NextTick { tick: self.tick, due_at: self.due_at })
            && self.schedule.last_tasks == schedule.last_tasks
    }

    /// Whether a decision made shortly before the due time is the same as at the due time.
    pub fn may_be_early(&self) -> bool {
        self.overlap() == Overlap::Allow
    }

    pub fn overlap(&self) -> Overlap {
        self.plan.as_ref().map_or(Overlap::Allow, |plan| plan.definition.overlap)
    }
}

fn told(error: &ScheduleError) -> String {
    match error {
        ScheduleError::Invalid(found) => {
            let places: Vec<String> =
                found.iter().map(|problem| format!("{} {}", problem.pointer, problem.detail)).collect();
            format!("the schedule cannot be read: {}", places.join("; "))
        }
        other => format!("the schedule cannot be read: {other}"),
    }
}

fn planned(
    gateway: &Gateway,
    schedule: &Schedule,
    definition: &Definition,
    tick: Time,
    now: Time,
) -> Result<(TaskId, Submission), String> {
    gateway.plan_tick(schedule, definition, tick, now).map_err(|error| format!("could not be submitted: {error}"))
}

/// Decides about all past ticks. `running` are tasks of the last firing that have not ended.
pub fn decided(gateway: &Gateway, planned: Planned, running: &[TaskId], now: Time) -> Firing {
    let Planned { schedule, tick, plan, .. } = planned;
    let (runs, last_tick_at, next) = match plan {
        Ok(plan) => {
            let due = |tick| tick::due(&schedule.id, tick, plan.definition.jitter);
            let table = &plan.definition.timetable;
            let decision = decide(table, schedule.anchor_at, tick, now, plan.definition.catch_up, due);
            let next = decision.next.map(|next| next_tick(&schedule.id, next, plan.definition.jitter));
            let last = decision.last().unwrap_or(tick);
            (runs(gateway, &schedule, tick, plan, decision, running, now), last, next)
        }
        Err(reason) => (vec![NewRun { outcome: Outcome::Failed, ..missed_run(tick, now, &reason) }], tick, None),
    };
    Firing { schedule_id: schedule.id, version: schedule.version, expected: tick, last_tick_at, next, runs }
}

fn runs(
    gateway: &Gateway,
    schedule: &Schedule,
    expected: Time,
    plan: Plan,
    decision: Decision,
    running: &[TaskId],
    now: Time,
) -> Vec<NewRun> {
    let Plan { definition, mut ready } = plan;
    let count = decision.fire.len();
    let mut runs: Vec<NewRun> =
        decision.missed.iter().map(|missed| missed_run(missed.tick, now, &missed.reason)).collect();
    for (index, tick) in decision.fire.into_iter().enumerate() {
        runs.push(match held_back(definition.overlap, running, index, count) {
            Some(reason) => NewRun { outcome: Outcome::Skipped, ..missed_run(tick, now, &reason) },
            None => {
                let ready = if tick == expected { ready.take() } else { None };
                let ready = ready.unwrap_or_else(|| planned(gateway, schedule, &definition, tick, now));
                fired_run(tick, tick::due(&schedule.id, tick, definition.jitter), now, ready)
            }
        });
    }
    runs
}

/// Why the overlap policy skips a tick. When several ticks fire at once, each counts as running for the next.
fn held_back(overlap: Overlap, running: &[TaskId], index: usize, count: usize) -> Option<String> {
    match overlap {
        Overlap::Skip if !running.is_empty() => Some(format!("{} is still running (overlap is skip)", running[0])),
        Overlap::Skip if index > 0 => Some("the tick before it fired just now (overlap is skip)".to_owned()),
        Overlap::Replace if index + 1 < count => Some("the next tick takes its place (overlap is replace)".to_owned()),
        Overlap::Allow | Overlap::Skip | Overlap::Replace => None,
    }
}

fn missed_run(tick: Time, now: Time, reason: &str) -> NewRun {
    NewRun {
        scheduled_at: tick,
        fired_at: now,
        outcome: Outcome::Missed,
        reason: Some(reason.to_owned()),
        task_id: None,
        submission: None,
    }
}

fn fired_run(tick: Time, due: Time, now: Time, ready: Result<(TaskId, Submission), String>) -> NewRun {
    match ready {
        Ok((id, mut submission)) => {
            submission.at = now;
            let late = now.since(due);
            let reason = (late > schedule::decide::ON_TIME).then(|| format!("{} s late", late.as_secs()));
            NewRun {
                outcome: Outcome::Fired,
                reason,
                task_id: Some(id),
                submission: Some(submission),
                ..missed_run(tick, now, "")
            }
        }
        Err(reason) => NewRun { outcome: Outcome::Failed, ..missed_run(tick, now, &reason) },
    }
}
