//! A cache of tasks that this process wrote last, so that an ordinary step needs no read and no lock before its write.
//!
//! It is only a guess: a writer that uses it states which `seq` the row must still have, and starts again with a read if the row has
//! another. Bounded: the older half is dropped when the younger half is full. Tasks whose rows may change without a step are not cached:
//! adopted ones, and those with a pending revoke.

use std::collections::HashMap;
use std::sync::Mutex;

use celery::task::{GroupId, Phase, TaskId};
use runtime::clock::Time;

use crate::applied::Applied;
use crate::types::{Event, Failure, News, TaskOptions};
use crate::{NewTask, Task};

use super::rows::Subject;

/// Tasks in each half: what a hash table with 32,768 places holds, so that two halves take some 30 MB at most.
const HALF: usize = 28_000;

#[derive(Default)]
pub(super) struct Known(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    young: Half,
    old: Half,
}

#[derive(Default)]
struct Half {
    tasks: HashMap<i64, Kept>,
    numbers: HashMap<TaskId, i64>,
}

/// What a transition and its event need of a task: a quarter of a [`Task`]. A step neither reads nor writes the rest.
struct Kept {
    no: i64,
    id: TaskId,
    /// `None` when it is its own id.
    root_id: Option<TaskId>,
    parent_id: Option<TaskId>,
    group_id: Option<GroupId>,
    name: Option<Box<str>>,
    queue: Option<Box<str>>,
    worker: Option<Box<str>>,
    /// `None` when it is the phase's own word.
    status: Option<Box<str>>,
    reason: Option<Box<str>>,
    failure: Option<Box<Failure>>,
    submitted_at: Time,
    queued_at: Option<Time>,
    received_at: Option<Time>,
    started_at: Option<Time>,
    finished_at: Option<Time>,
    runtime: Option<f64>,
    seq: i64,
    delivery: i32,
    retries: i32,
    phase: Phase,
    corrected: bool,
}

impl Kept {
    /// After a commit with this state.
    fn of(task: Task) -> Self {
        let is_own = task.status == task.phase.status();
        Self {
            no: task.no,
            root_id: task.root_id.filter(|root| *root != task.id),
            id: task.id,
            parent_id: task.parent_id,
            group_id: task.group_id,
            name: task.name.map(String::into_boxed_str),
            queue: task.queue.map(String::into_boxed_str),
            worker: task.worker.map(String::into_boxed_str),
            status: (!is_own).then(|| task.status.into_boxed_str()),
            reason: task.reason.map(String::into_boxed_str),
            failure: task.failure.map(Box::new),
            submitted_at: task.submitted_at,
            queued_at: task.queued_at,
            received_at: task.received_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            runtime: task.runtime,
            seq: task.seq,
            delivery: task.delivery,
            retries: task.retries,
            phase: task.phase,
            corrected: task.corrected,
        }
    }

    /// After its insert.
    fn inserted(task: &NewTask, no: i64, at: Time) -> Self {
        Self {
            no,
            id: task.id.clone(),
            root_id: Some(&task.root_id).filter(|root| **root != task.id).cloned(),
            parent_id: task.parent_id.clone(),
            group_id: task.group_id.clone(),
            name: Some(task.name.as_str().into()),
            queue: Some(task.queue.as_str().into()),
            worker: None,
            status: None,
            reason: None,
            failure: None,
            submitted_at: at,
            queued_at: None,
            received_at: None,
            started_at: None,
            finished_at: None,
            runtime: None,
            seq: 1,
            delivery: 1,
            retries: 0,
            phase: task.phase,
            corrected: false,
        }
    }

    fn task(&self) -> Task {
        let text = |kept: &Option<Box<str>>| kept.as_deref().map(str::to_owned);
        Task {
            no: self.no,
            id: self.id.clone(),
            name: text(&self.name),
            queue: text(&self.queue),
            priority: Default::default(),
            phase: self.phase,
            status: text(&self.status).unwrap_or_else(|| self.phase.status().to_owned()),
            seq: self.seq,
            delivery: self.delivery,
            retries: self.retries,
            worker: text(&self.worker),
            root_id: Some(self.root_id.as_ref().unwrap_or(&self.id).clone()),
            parent_id: self.parent_id.clone(),
            group_id: self.group_id.clone(),
            group_index: None,
            ignore_result: false,
            labels: Vec::new(),
            options: TaskOptions::default(),
            submitted_at: self.submitted_at,
            queued_at: self.queued_at,
            received_at: self.received_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            due_at: None,
            expires_at: None,
            runtime: self.runtime,
            result: None,
            failure: self.failure.as_deref().cloned(),
            traceback: None,
            progress: None,
            children: None,
            retry_of: None,
            retried_as: None,
            schedule: None,
            reason: text(&self.reason),
            adopted: false,
            corrected: self.corrected,
            argsrepr: None,
            kwargsrepr: None,
            revoke_requested_at: None,
        }
    }

    fn subject(&self) -> Subject {
        Subject {
            task_no: self.no,
            task_id: self.id.clone(),
            name: self.name.as_deref().map(str::to_owned),
            queue: self.queue.as_deref().map(str::to_owned),
            group_id: self.group_id.clone(),
            root_id: Some(self.root_id.as_ref().unwrap_or(&self.id).clone()),
            adopted: false,
            submitted_at: self.submitted_at,
            first_phase: Phase::Accepted,
        }
    }

    /// The publication that this event tells.
    fn queue(&mut self, event: &Event) {
        self.phase = event.phase;
        self.status = None;
        self.reason = None;
        self.seq = event.seq;
        self.queued_at = self.queued_at.or(Some(event.at));
    }
}

impl Half {
    fn remove(&mut self, id: &TaskId) {
        if let Some(no) = self.numbers.remove(id) {
            self.tasks.remove(&no);
        }
    }
}

impl Halves {
    fn put(&mut self, task: Kept) {
        if self.young.tasks.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.numbers.insert(task.id.clone(), task.no);
        self.young.tasks.insert(task.no, task);
    }

    fn numbered(&self, no: i64) -> Option<&Kept> {
        self.young.tasks.get(&no).or_else(|| self.old.tasks.get(&no))
    }

    fn numbered_mut(&mut self, no: i64) -> Option<&mut Kept> {
        self.young.tasks.get_mut(&no).or_else(|| self.old.tasks.get_mut(&no))
    }

    fn get(&self, id: &TaskId) -> Option<&Kept> {
        let no = self.young.numbers.get(id).or_else(|| self.old.numbers.get(id))?;
        self.numbered(*no)
    }

    fn remove(&mut self, id: &TaskId) {
        self.young.remove(id);
        self.old.remove(id);
    }
}

impl Known {
    fn halves(&self) -> std::sync::MutexGuard<'_, Halves> {
        self.0.lock().expect("nothing panics under this lock")
    }

    /// Records the state of tasks after a commit.
    pub fn note(&self, tasks: impl IntoIterator<Item = Task>) {
        let mut halves = self.halves();
        for task in tasks {
            if is_steady(&task) { halves.put(Kept::of(task)) } else { halves.remove(&task.id) }
        }
    }

    /// Records new tasks after their commit: each with its number and the time of its submission.
    pub fn note_inserted<'a>(&self, tasks: impl IntoIterator<Item = (&'a NewTask, i64, Time)>) {
        let tasks: Vec<Kept> = tasks.into_iter().map(|(task, no, at)| Kept::inserted(task, no, at)).collect();
        let mut halves = self.halves();
        tasks.into_iter().for_each(|task| halves.put(task));
    }

    /// Records publications after their commit. What is cached of a task may be of later news, or of a state before that of the event.
    pub fn note_queued(&self, events: &[Event]) {
        let mut halves = self.halves();
        for event in events {
            let Some(task) = halves.numbered_mut(event.task_no) else { continue };
            if task.seq + 1 == event.seq {
                task.queue(event);
            } else if task.seq < event.seq {
                halves.remove(&event.task_id);
            }
        }
    }

    pub fn forget<'a>(&self, ids: impl IntoIterator<Item = &'a TaskId>) {
        let mut halves = self.halves();
        ids.into_iter().for_each(|id| halves.remove(id));
    }

    /// Empties the cache after an error, because it is unknown what was written: the commit may have failed, or a crash may have undone an
    /// earlier commit that was not on disk. The same `seq` may then be written again with other data.
    pub fn clear(&self) {
        *self.halves() = Halves::default();
    }

    /// What events need of the cached tasks among these, by number.
    pub fn subjects(&self, numbers: &[i64]) -> HashMap<i64, Subject> {
        let halves = self.halves();
        numbers.iter().filter_map(|no| halves.numbered(*no).map(|task| (*no, task.subject()))).collect()
    }

    /// The tasks for which the cached state is enough to apply this news: unfinished tasks, and ended ones that it does not change. By
    /// ascending number.
    pub fn enough_for(&self, news: &[News]) -> Vec<Task> {
        let mut tasks: HashMap<&TaskId, Task> = HashMap::new();
        {
            let halves = self.halves();
            for report in news {
                if let Some(task) = halves.get(&report.task_id) {
                    tasks.entry(&report.task_id).or_insert_with(|| task.task());
                }
            }
        }
        let mut trial = Applied::new(tasks.values().cloned().collect());
        news.iter().filter(|report| tasks.contains_key(&report.task_id)).for_each(|report| trial.learn(report));
        let is_enough = |entry: &crate::applied::Entry| entry.touched != entry.before.is_final();
        let fitting = trial.entries.iter().filter(|entry| is_enough(entry));
        let mut enough: Vec<Task> = fitting.filter_map(|entry| tasks.remove(&entry.task.id)).collect();
        enough.sort_by_key(|task| task.no);
        enough
    }
}

/// Whether only steps change its row.
fn is_steady(task: &Task) -> bool {
    !task.adopted && task.revoke_requested_at.is_none() && task.retried_as.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;
    use crate::types::sample_task;
    use celery::task::Phase;
    use runtime::clock::Time;

    fn task(no: i64, phase: Phase) -> Task {
        Task { no, ..sample_task(&format!("t{no}"), phase, Time(0)) }
    }

    fn heard(no: i64, phase: Phase) -> News {
        News::new(TaskId::parse(format!("t{no}")).unwrap(), Source::Event, phase, Time(9))
    }

    fn numbers(tasks: &[Task]) -> Vec<i64> {
        tasks.iter().map(|task| task.no).collect()
    }

    #[test]
    fn a_step_of_a_known_task_needs_no_look_and_a_repeated_word_of_its_end_neither() {
        let known = Known::default();
        known.note([
            task(2, Phase::Queued),
            task(1, Phase::Queued),
            task(3, Phase::Succeeded),
            task(4, Phase::Running),
        ]);
        let news = [
            heard(2, Phase::Running),
            heard(1, Phase::Succeeded),
            heard(3, Phase::Succeeded),
            heard(9, Phase::Running),
        ];
        assert_eq!(numbers(&known.enough_for(&news)), [1, 2, 3]);
        assert_eq!(
            numbers(&known.enough_for(&[heard(4, Phase::Queued)])),
            [0i64; 0],
            "news that changes nothing is checked against the row"
        );
    }

    #[test]
    fn what_may_change_without_a_step_is_not_kept() {
        let known = Known::default();
        known.note([task(1, Phase::Running)]);
        known.note([Task { revoke_requested_at: Some(Time(5)), ..task(1, Phase::Running) }]);
        assert!(known.enough_for(&[heard(1, Phase::Succeeded)]).is_empty());
        known.note([Task { adopted: true, ..task(2, Phase::Running) }]);
        assert!(known.subjects(&[1, 2]).is_empty());
    }

    #[test]
    fn the_older_half_is_forgotten() {
        let known = Known::default();
        let last = 2 * HALF as i64 + 1;
        known.note((1..=last).map(|no| task(no, Phase::Queued)));
        let found = known.subjects(&[1, HALF as i64 + 1, last]);
        assert_eq!((found.contains_key(&1), found.len()), (false, 2));
        known.forget([&TaskId::parse(format!("t{last}")).unwrap()]);
        assert!(known.subjects(&[last]).is_empty());
        known.clear();
        assert!(known.subjects(&[last - 1]).is_empty());
    }

    #[test]
    fn what_is_kept_of_a_task_is_all_that_a_step_reads() {
        let known = Known::default();
        let failure = Some(crate::Failure { kind: "E".to_owned(), message: "m".to_owned() });
        let whole = Task {
            status: "PROGRESS".to_owned(),
            worker: Some("w".to_owned()),
            reason: Some("why".to_owned()),
            group_id: Some(celery::task::GroupId::parse("g").unwrap()),
            root_id: Some(TaskId::parse("r").unwrap()),
            started_at: Some(Time(3)),
            runtime: Some(0.5),
            retries: 2,
            failure,
            ..task(1, Phase::Running)
        };
        known.note([whole.clone()]);
        assert_eq!(format!("{:?}", known.enough_for(&[heard(1, Phase::Succeeded)])), format!("{:?}", [whole]));
    }

    #[test]
    fn a_publication_does_not_undo_later_news() {
        let known = Known::default();
        known.note([task(1, Phase::Accepted), Task { seq: 9, ..task(2, Phase::Running) }, task(3, Phase::Accepted)]);
        let told = |no: i64, seq| Event { seq, ..Event::of(&task(no, Phase::Queued), Time(5)) };
        known.note_queued(&[told(1, 2), told(2, 2), told(3, 7)]);
        let kept = known.enough_for(&[1, 2, 3].map(|no| heard(no, Phase::Succeeded)));
        let states: Vec<_> = kept.iter().map(|task| (task.no, task.phase, task.seq, task.queued_at)).collect();
        assert_eq!(states, [(1, Phase::Queued, 2, Some(Time(5))), (2, Phase::Running, 9, None)]);
    }
}
