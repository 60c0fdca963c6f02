//! The history of an ordinary task is not stored, because it can be derived from the times, the worker and the phase of its row.
//!
//! An event is ordinary when it is only a step of the first delivery, at the row's time for that step, by the row's worker. As long as
//! all events of a task are ordinary, its `history` is null and [`derived`] computes them; the first other event stores the events
//! derived until then. Writers decide with [`is_derivable`], by the same rule. Pure.

use celery::task::Phase;
use runtime::clock::Time;

use crate::applied::Entry;
use crate::history::Told;
use crate::types::{Event, Task};

/// The events after the first of a task whose row has no history. `None` when the columns do not determine them; then the row has one.
pub(crate) fn derived(task: &Task) -> Option<Vec<Told>> {
    if task.adopted || task.delivery != 1 || task.retries != 0 || task.corrected {
        return None;
    }
    let end = task.finished_at.filter(|_| task.phase.is_final()).map(|at| (task.phase, at));
    let received = task.received_at.map(|at| (Phase::Received, at));
    let started = task.started_at.map(|at| (Phase::Running, at));
    let mut steps: Vec<(Phase, Time)> = received.into_iter().chain(started).chain(end).collect();
    let count = usize::try_from(task.seq).ok()?.checked_sub(1)?;
    if count == steps.len() + 1 {
        // `queued_at` may also have been added later without an event; then there is one event fewer.
        steps.insert(0, (Phase::Queued, task.queued_at?));
    }
    let told = |(place, (phase, at)): (usize, (Phase, Time))| Told {
        seq: i64::try_from(place).unwrap_or(i64::MAX).saturating_add(2),
        delivery: 1,
        retries: 0,
        phase,
        corrected: false,
        at,
        status: phase.status().to_owned(),
        worker: task.worker.clone().filter(|_| phase != Phase::Queued),
        reason: None,
        meta: None,
    };
    (count == steps.len()).then(|| steps.into_iter().enumerate().map(told).collect())
}

/// Whether the columns still determine the whole history after these events, if they did before.
pub(crate) fn is_derivable<'a>(entry: &Entry, events: impl Iterator<Item = &'a Event>) -> bool {
    let Some(mut told) = derived(&entry.was) else { return false };
    for event in events {
        if event.meta.is_some() {
            return false;
        }
        told.push(said(event));
    }
    derived(&entry.task).is_some_and(|after| after.len() == told.len() && after.iter().zip(&told).all(is_same))
}

fn said(event: &Event) -> Told {
    Told {
        seq: event.seq,
        delivery: event.delivery,
        retries: event.retries,
        phase: event.phase,
        corrected: event.corrected,
        at: event.at,
        status: event.status.clone(),
        worker: event.worker.clone(),
        reason: event.reason.clone(),
        meta: None,
    }
}

fn is_same((left, right): (&Told, &Told)) -> bool {
    let place = |told: &Told| (told.seq, told.delivery, told.retries, told.phase, told.corrected, told.at);
    place(left) == place(right)
        && left.status == right.status
        && left.worker == right.worker
        && left.reason == right.reason
        && left.meta.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::applied::Applied;
    use crate::types::sample_task;
    use crate::{News, Source};
    use celery::task::TaskId;

    fn queued() -> Task {
        Task { seq: 2, queued_at: Some(Time(2)), ..sample_task("t", Phase::Queued, Time(1)) }
    }

    fn heard(phase: Phase, at: i64) -> News {
        let news = News::new(TaskId::parse("t").unwrap(), Source::Event, phase, Time(at));
        News { worker: Some("w".to_owned()), ..news }
    }

    fn phases(task: &Task) -> Option<Vec<(i64, Phase, i64)>> {
        Some(derived(task)?.iter().map(|told| (told.seq, told.phase, told.at.0)).collect())
    }

    fn after(task: Task, news: &[News]) -> (Task, bool) {
        let mut applied = Applied::new(vec![task]);
        news.iter().for_each(|news| applied.learn(news));
        let entry = applied.entries.pop().unwrap();
        let is_derivable = is_derivable(&entry, applied.events.iter());
        (entry.task, is_derivable)
    }

    #[test]
    fn an_ordinary_life_is_said_by_its_columns() {
        let (task, is_derivable) = after(queued(), &[heard(Phase::Received, 3), heard(Phase::Running, 4)]);
        assert!(is_derivable);
        let (task, is_derivable) = after(task, &[heard(Phase::Succeeded, 5)]);
        assert!(is_derivable);
        let life = [(2, Phase::Queued, 2), (3, Phase::Received, 3), (4, Phase::Running, 4), (5, Phase::Succeeded, 5)];
        assert_eq!(phases(&task).as_deref(), Some(&life[..]));
        assert_eq!(derived(&task).unwrap()[3].worker.as_deref(), Some("w"));
    }

    #[test]
    fn a_publication_that_was_noted_late_is_no_event() {
        let accepted = Task { seq: 1, ..sample_task("t", Phase::Accepted, Time(1)) };
        let (mut task, is_derivable) = after(accepted, &[heard(Phase::Received, 3)]);
        assert!(is_derivable);
        task.queued_at = Some(Time(2));
        assert_eq!(phases(&task).as_deref(), Some(&[(2, Phase::Received, 3)][..]));
    }

    #[test]
    fn whatever_says_more_is_written_down() {
        let report = News { status: Some("PROGRESS".to_owned()), ..heard(Phase::Running, 4) };
        assert!(!after(queued(), &[report]).1);
        let elsewhere = News { worker: Some("other".to_owned()), ..heard(Phase::Running, 4) };
        assert!(!after(queued(), &[heard(Phase::Received, 3), elsewhere]).1);
        assert!(!after(queued(), &[News { reason: Some("late".to_owned()), ..heard(Phase::Failed, 4) }]).1);
        // A time that was added without an event: from it, an event would be derived that never happened.
        assert!(!after(queued(), &[heard(Phase::Running, 4), heard(Phase::Received, 3)]).1);
        assert!(!after(Task { delivery: 2, ..queued() }, &[heard(Phase::Received, 3)]).1);
    }
}
