//! A cache of tasks that this process wrote last, so that an ordinary step needs no read and no lock before its write.
//!
//! It is only a guess: a writer that uses it states which `seq` the row must still have, and starts again with a read if the row has
//! another. Bounded: the older half is dropped when the younger half is full. Tasks whose rows may change without a step are not cached:
//! adopted ones, and those with a pending revoke.

use std::collections::HashMap;
use std::sync::Mutex;

use celery::task::TaskId;

use crate::Task;
use crate::applied::Applied;
use crate::types::News;

/// Tasks in each half.
const HALF: usize = 8_192;

#[derive(Default)]
pub(super) struct Known(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    young: Half,
    old: Half,
}

#[derive(Default)]
struct Half {
    tasks: HashMap<i64, Task>,
    numbers: HashMap<TaskId, i64>,
}

impl Half {
    fn remove(&mut self, id: &TaskId) {
        if let Some(no) = self.numbers.remove(id) {
            self.tasks.remove(&no);
        }
    }
}

impl Halves {
    fn put(&mut self, task: Task) {
        if self.young.tasks.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.numbers.insert(task.id.clone(), task.no);
        self.young.tasks.insert(task.no, task);
    }

    fn numbered(&self, no: i64) -> Option<&Task> {
        self.young.tasks.get(&no).or_else(|| self.old.tasks.get(&no))
    }

    fn get(&self, id: &TaskId) -> Option<&Task> {
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
            if is_steady(&task) { halves.put(light(task)) } else { halves.remove(&task.id) }
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

    /// The cached tasks among these, by number.
    pub fn numbered(&self, numbers: &[i64]) -> HashMap<i64, Task> {
        let halves = self.halves();
        numbers.iter().filter_map(|no| halves.numbered(*no).map(|task| (*no, task.clone()))).collect()
    }

    /// The tasks for which the cached state is enough to apply this news: unfinished tasks, and ended ones that it does not change. By
    /// ascending number.
    pub fn enough_for(&self, news: &[News]) -> Vec<Task> {
        let mut tasks: HashMap<&TaskId, Task> = HashMap::new();
        {
            let halves = self.halves();
            for report in news {
                if let Some(task) = halves.get(&report.task_id) {
                    tasks.entry(&report.task_id).or_insert_with(|| task.clone());
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

/// The task without the large texts, as a transition reads it.
fn light(task: Task) -> Task {
    Task { result: None, traceback: None, progress: None, children: None, ..task }
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
        assert!(known.numbered(&[1, 2]).is_empty());
    }

    #[test]
    fn the_older_half_is_forgotten() {
        let known = Known::default();
        let last = 2 * HALF as i64 + 1;
        known.note((1..=last).map(|no| task(no, Phase::Queued)));
        let found = known.numbered(&[1, HALF as i64 + 1, last]);
        assert_eq!((found.contains_key(&1), found.len()), (false, 2));
        known.forget([&TaskId::parse(format!("t{last}")).unwrap()]);
        assert!(known.numbered(&[last]).is_empty());
        known.clear();
        assert!(known.numbered(&[last - 1]).is_empty());
    }
}
