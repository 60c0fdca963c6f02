//! Builds the submission of a schedule's tick, or of a run by hand, with the row that records it.

use super::Gateway;
use super::keys::Dropping;
use super::offload::Roster;
use super::schedules::ScheduleError;
use super::submit::{Idempotency, SubmitError, SubmitRequest, Submitted};
use crate::guard::namespace;
use crate::guard::tokens::Visibility;
use crate::live::commit;
use celery::task::{Submission, TaskId};
use ledger::{Conflict, Inserted, NewRun, NextTick, Outcome, Schedule};
use runtime::clock::{self, Time};
use schedule::definition::Definition;
use schedule::tick;

impl Gateway {
    /// Submits the schedule's call now; its next tick does not change.
    pub async fn run_schedule(
        &self,
        visibility: &Visibility,
        name: &str,
        traceparent: Option<String>,
        idempotency: Option<Idempotency>,
    ) -> Result<Submitted, ScheduleError> {
        let schedule = self.find_schedule(visibility, name).await?;
        let definition = self.stored_definition(&schedule)?;
        let now = clock::now();
        let id = TaskId::from(clock::new_id());
        let request = SubmitRequest {
            traceparent,
            idempotency,
            schedule: Some(schedule.name.clone()),
            ..SubmitRequest::new(call_of(&schedule, &definition, id.clone()))
        };
        let (mut submission, submitted) = self.prepared(request, now)?;
        let _files = self.offload(&mut submission.tasks, &Roster::default()).await;
        let run = NewRun {
            scheduled_at: now,
            fired_at: now,
            outcome: Outcome::Fired,
            reason: Some("run by hand".to_owned()),
            task_id: Some(id),
            submission: Some(submission.clone()),
        };
        let fired = self.ledger.run_schedule(&schedule.id, &run).await?;
        let answer = fired.ok_or_else(|| ScheduleError::Unknown(name.to_owned()))?.into_iter().flatten().next();
        match answer {
            Some(Ok(inserted)) => {
                self.announce(vec![(submission, inserted)]).await;
                Ok(submitted)
            }
            Some(Err(Conflict::Replay(answer))) => Err(SubmitError::Replay(answer).into()),
            Some(Err(Conflict::KeyReused)) => Err(SubmitError::KeyReused.into()),
            Some(Err(Conflict::Joined(id))) => Ok(self.joined(&id).await?),
            Some(Err(Conflict::TaskId(id))) => Err(SubmitError::taken(id.as_str()).into()),
            Some(Err(Conflict::GroupId(id))) => Err(SubmitError::taken(id.as_str()).into()),
            Some(Err(Conflict::Limited { key, wait })) => Err(SubmitError::limited(key, wait).into()),
            None => Err(ScheduleError::Unknown(name.to_owned())),
        }
    }

    /// Parses a row's document, which was checked when it was written.
    pub fn stored_definition(&self, schedule: &Schedule) -> Result<Definition, ScheduleError> {
        Definition::parse(schedule.document.get(), self.signature_limits()).map_err(ScheduleError::Invalid)
    }

    /// The rows of one tick.
    pub fn plan_tick(
        &self,
        schedule: &Schedule,
        definition: &Definition,
        tick: Time,
        now: Time,
    ) -> Result<(TaskId, ledger::Submission), SubmitError> {
        let id = tick::task_id(&schedule.id, tick);
        let request = SubmitRequest {
            schedule: Some(schedule.name.clone()),
            ..SubmitRequest::new(call_of(schedule, definition, id.clone()))
        };
        Ok((id, self.prepared(request, now)?.0))
    }

    /// Informs the relay and the watchers of submissions that were committed without the committer, and drops older tasks for them.
    pub async fn announce(&self, committed: Vec<(ledger::Submission, Inserted)>) {
        let (mut offer, mut newer) = (Vec::new(), Vec::new());
        let mut held = false;
        for (submission, inserted) in committed {
            self.prepare_queue(&submission).await;
            held |= submission.tasks.iter().any(commit::needs_pass);
            self.hub.accepted(&submission, &inserted.task_nos);
            let dropping = Dropping::of(&submission, Visibility::default());
            offer.extend(commit::outgoing(submission, &inserted));
            if !dropping.is_empty() {
                newer.push((dropping, inserted));
            }
        }
        self.relay.offer(offer);
        if held {
            self.relay.nudge();
        }
        for (dropping, inserted) in newer {
            self.drop_older(&dropping, &inserted).await;
        }
    }
}

/// The submission of a tick, with its keys in the namespace of the schedule's author.
fn call_of(schedule: &Schedule, definition: &Definition, id: TaskId) -> Submission {
    let mut submission = definition.submission_for(id);
    namespace::enter(&mut submission, schedule.namespace.as_deref());
    submission
}

/// A tick with its due time.
pub fn next_tick(schedule_id: &str, tick: Time, jitter: i64) -> NextTick {
    NextTick { tick, due_at: tick::due(schedule_id, tick, jitter) }
}
