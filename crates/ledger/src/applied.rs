//! The tasks of a transaction while news is applied to them. Pure, shared by both adapters.
//!
//! The adapter loads and locks the rows, applies the news here, and writes what changed: tasks, and their events
//! in order. Several news of a task in one batch have the same effect as if they came separately.

use std::collections::HashMap;

use celery::task::{Phase, TaskId};
use runtime::clock::Time;

use super::change::{self, Change, Facts, Verdict};
use super::rows::{cleaned, short};
use super::types::{Adoption, Event, News, Task, TaskOptions};

/// A task and its changes.
pub(super) struct Entry {
    pub task: Task,
    /// Whether some column of the task differs from the stored row.
    pub touched: bool,
    /// Whether result, failure and traceback must be written. If not, the row keeps its own, which were not loaded.
    pub outcome: bool,
    /// The phase before this transaction.
    pub before: Phase,
    /// The whole task before this transaction.
    pub was: Task,
    /// Whether the task is not in the ledger yet and must be inserted.
    pub new: bool,
    /// Set if the task was neither read nor locked: the `seq` that its row must still have.
    pub assumed: Option<i64>,
}

#[derive(Default)]
pub(super) struct Applied {
    pub entries: Vec<Entry>,
    pub events: Vec<Event>,
    by_id: HashMap<TaskId, usize>,
    /// Ends of unknown tasks, reported by records of the result backend. The worker's event that makes the task known may follow.
    early: HashMap<TaskId, News>,
}

impl Applied {
    pub fn new(tasks: Vec<Task>) -> Self {
        let mut applied = Self::default();
        for task in tasks {
            applied.enter(task, false);
        }
        applied
    }

    /// Adds tasks that are not locked, in their assumed state.
    pub fn assume(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            let seq = task.seq;
            self.enter(task, false);
            self.entries.last_mut().expect("it was just entered").assumed = Some(seq);
        }
        self.entries.sort_by_key(|entry| entry.task.no);
        self.find_again();
    }

    /// Whether the task is among these.
    pub fn has(&self, id: &TaskId) -> bool {
        self.by_id.contains_key(id)
    }

    fn find_again(&mut self) {
        self.by_id = self.entries.iter().enumerate().map(|(index, entry)| (entry.task.id.clone(), index)).collect();
    }

    fn enter(&mut self, task: Task, new: bool) {
        self.by_id.insert(task.id.clone(), self.entries.len());
        let was = task.clone();
        self.entries.push(Entry { before: task.phase, was, touched: new, outcome: new, new, assumed: None, task });
    }

    /// Applies one piece of news. An unknown task needs an [`Adoption`], now or later in this transaction.
    pub fn learn(&mut self, news: &News) {
        let Some(&index) = self.by_id.get(&news.task_id) else {
            if let Some(adoption) = &news.adoption {
                self.meet(news, adoption);
            } else if news.phase.is_final() {
                self.early.insert(news.task_id.clone(), news.clone());
            }
            return;
        };
        let entry = &mut self.entries[index];
        if let Some(adoption) = &news.adoption {
            entry.touched |= fill(&mut entry.task, adoption);
        }
        match change::apply(&entry.task, news) {
            Verdict::Drop => {}
            Verdict::Facts(facts) => {
                note(&mut entry.task, facts);
                entry.touched = true;
            }
            Verdict::Remark(reason) => {
                entry.task.seq += 1;
                entry.task.reason = Some(reason.to_owned());
                entry.touched = true;
                self.events.push(event(&entry.task, news, None));
            }
            Verdict::Change(change) => {
                entry.outcome |= advance(&mut entry.task, change, news);
                entry.touched = true;
                self.events.push(event(&entry.task, news, None));
            }
        }
    }

    /// Adopts a task that another client submitted, at its first news. A record that came earlier is applied too.
    fn meet(&mut self, news: &News, adoption: &Adoption) {
        match self.early.remove(&news.task_id) {
            // The record is applied first, because it has the result.
            Some(record) if news.phase.is_final() => {
                let record = News { adoption: Some(adoption.clone()), ..record };
                self.adopt(&record, adoption);
                self.learn(news);
            }
            Some(record) => {
                self.adopt(news, adoption);
                self.learn(&record);
            }
            None => self.adopt(news, adoption),
        }
    }

    fn adopt(&mut self, news: &News, adoption: &Adoption) {
        let task = adopted(news, adoption);
        self.events.push(event(&task, news, Some(&task.status)));
        self.enter(task, true);
    }

    /// Moves a task to a phase that taskgate decides (parked, released, delivered again), without the rules for news.
    pub fn place(&mut self, id: &TaskId, phase: Phase, reason: Option<&str>, at: Time) {
        let Some(&index) = self.by_id.get(id) else { return };
        let entry = &mut self.entries[index];
        if entry.task.phase != phase {
            phase.status().clone_into(&mut entry.task.status);
        }
        entry.task.phase = phase;
        entry.task.seq += 1;
        entry.task.reason = cleaned(reason);
        entry.touched = true;
        let news =
            News { reason: entry.task.reason.clone(), ..News::new(id.clone(), super::Source::Ledger, phase, at) };
        self.events.push(event(&entry.task, &news, None));
    }

    /// Starts a further delivery of the tasks in `found` that are unfinished and unchanged since they were `chosen` (by `seq`). Returns
    /// their numbers and queues.
    pub fn requeued(
        mut found: Vec<Task>,
        chosen: &[(TaskId, i64)],
        reason: &str,
        at: Time,
    ) -> (Self, Vec<(i64, String)>) {
        let seqs: HashMap<&TaskId, i64> = chosen.iter().map(|(id, seq)| (id, *seq)).collect();
        found.retain(|task| !task.phase.is_final() && seqs.get(&task.id) == Some(&task.seq));
        let ids: Vec<TaskId> = found.iter().map(|task| task.id.clone()).collect();
        let places = found.iter().map(|task| (task.no, task.queue.clone().unwrap_or_default())).collect();
        let mut applied = Self::new(found);
        applied.entries.iter_mut().for_each(|entry| entry.task.redeliver());
        for id in &ids {
            applied.place(id, Phase::Accepted, Some(reason), at);
        }
        (applied, places)
    }

    /// Adds a remark to a task's history; the task does not change.
    pub fn remark(&mut self, id: &TaskId, reason: &str, at: Time) {
        if let Some(phase) = self.phase(id) {
            self.place(id, phase, Some(reason), at);
        }
    }

    /// Drops tasks and their events.
    pub fn forget(&mut self, ids: &[TaskId]) {
        if ids.is_empty() {
            return;
        }
        self.entries.retain(|entry| !ids.contains(&entry.task.id));
        self.events.retain(|event| !ids.contains(&event.task_id));
        self.find_again();
    }

    /// Sets the task numbers of events of new tasks, which the database has assigned.
    pub fn number_events(&mut self) {
        for event in self.events.iter_mut().filter(|event| event.task_no == 0) {
            if let Some(&index) = self.by_id.get(&event.task_id) {
                event.task_no = self.entries[index].task.no;
            }
        }
    }

    pub fn phase(&self, id: &TaskId) -> Option<Phase> {
        self.by_id.get(id).map(|&index| self.entries[index].task.phase)
    }
}

fn note(task: &mut Task, facts: Facts) {
    task.received_at = task.received_at.or(facts.received_at);
    task.started_at = task.started_at.or(facts.started_at);
    task.runtime = task.runtime.or(facts.runtime);
    task.retries = facts.retries.unwrap_or(task.retries);
    if task.worker.is_none() {
        task.worker = facts.worker.map(|worker| short(&worker));
    }
}

/// Applies a change. True when the outcome's columns changed.
fn advance(task: &mut Task, change: Change, news: &News) -> bool {
    if change.position.delivery > task.delivery {
        task.redeliver();
    }
    note(task, change.facts);
    let phase = change.position.phase;
    task.phase = phase;
    task.delivery = change.position.delivery;
    task.retries = change.position.retries;
    task.corrected = change.corrected;
    task.seq += 1;
    // Only running tasks have custom states: an ended task gets Celery's state, so that lists by status stay exact.
    task.status = if phase.is_final() { phase.status().to_owned() } else { short(&change.status) };
    task.reason = cleaned(news.reason.as_deref().or(change.reason));
    if let Some(worker) = &news.worker {
        task.worker = Some(short(worker));
    }
    if phase == Phase::Queued {
        task.queued_at = task.queued_at.or(Some(news.at));
    }
    if phase == Phase::Running && news.meta.is_some() {
        task.progress.clone_from(&news.meta);
    }
    if news.children.is_some() {
        task.children.clone_from(&news.children);
    }
    if phase.is_final() {
        task.finished_at = Some(news.at);
        task.runtime = news.runtime.or(task.runtime);
    }
    let outcome = phase.is_final() || phase == Phase::Retrying;
    if outcome {
        task.result = news.result.clone().filter(|_| phase == Phase::Succeeded);
        task.failure = news.failure.as_ref().map(clean_failure);
        task.traceback = cleaned(news.traceback.as_deref());
    }
    outcome
}

fn clean_failure(failure: &super::Failure) -> super::Failure {
    super::Failure {
        kind: super::rows::clean(&failure.kind).into_owned(),
        message: super::rows::clean(&failure.message).into_owned(),
    }
}

fn event(task: &Task, news: &News, status: Option<&str>) -> Event {
    let told = Event::of(task, news.at);
    Event {
        status: status.map_or(told.status, str::to_owned),
        worker: news.worker.as_deref().map(short).or(told.worker),
        meta: news.meta.clone(),
        ..told
    }
}

/// Fills in missing facts of an adopted task. True when something was added.
fn fill(task: &mut Task, adoption: &Adoption) -> bool {
    if !task.adopted {
        return false;
    }
    let mut added = false;
    let mut set = |have: &mut Option<String>, said: Option<String>| {
        if have.is_none() && said.is_some() {
            *have = said;
            added = true;
        }
    };
    set(&mut task.name, adoption.name.as_deref().map(short));
    let shadow = adoption.shadow.as_deref().map(short);
    if shadow.is_some() && adoption.name.is_some() && shadow != adoption.name && shadow == task.name {
        task.name = None;
        set(&mut task.name, adoption.name.as_deref().map(short));
    }
    set(&mut task.queue, adoption.queue.as_deref().map(short));
    set(&mut task.argsrepr, cleaned(adoption.argsrepr.as_deref()));
    set(&mut task.kwargsrepr, cleaned(adoption.kwargsrepr.as_deref()));
    // Events have no priority, so one that has comes from the message itself.
    if let Some(priority) = adoption.priority.filter(|priority| *priority != task.priority) {
        task.priority = priority;
        added = true;
    }
    if task.root_id.is_none() && adoption.root_id.is_some() {
        task.root_id.clone_from(&adoption.root_id);
        added = true;
    }
    if task.parent_id.is_none() && adoption.parent_id.is_some() {
        task.parent_id.clone_from(&adoption.parent_id);
        added = true;
    }
    if task.group_id.is_none() && adoption.group_id.is_some() {
        task.group_id.clone_from(&adoption.group_id);
        added = true;
    }
    added
}

/// A task that another client submitted, as its first news describes it.
fn adopted(news: &News, adoption: &Adoption) -> Task {
    let phase = news.phase;
    let mut task = Task {
        no: 0,
        id: news.task_id.clone(),
        name: None,
        queue: None,
        priority: adoption.priority.unwrap_or_default(),
        phase,
        status: String::new(),
        seq: 0,
        delivery: 1,
        retries: 0,
        worker: None,
        root_id: None,
        parent_id: None,
        group_id: None,
        group_index: None,
        ignore_result: false,
        labels: Vec::new(),
        options: TaskOptions::default(),
        submitted_at: news.at,
        queued_at: None,
        received_at: (phase == Phase::Received).then_some(news.at),
        started_at: (phase == Phase::Running && news.source == super::Source::Event).then_some(news.at),
        finished_at: None,
        due_at: None,
        expires_at: None,
        runtime: news.runtime,
        result: None,
        failure: None,
        traceback: None,
        progress: None,
        children: None,
        retry_of: None,
        retried_as: None,
        schedule: None,
        reason: None,
        adopted: true,
        corrected: false,
        argsrepr: None,
        kwargsrepr: None,
        revoke_requested_at: None,
    };
    fill(&mut task, adoption);
    let position = celery::task::Position { delivery: 1, retries: news.retries.unwrap_or(0), phase };
    let status = news.status.clone().unwrap_or_else(|| phase.status().to_owned());
    advance(&mut task, Change { position, status, corrected: false, facts: Facts::default(), reason: None }, news);
    task
}
