//! The filters of tasks, of their events and of dead letters: the same words for all.

use super::checked::Checked;
use super::parameters::Parameters;
use celery::spelling::distance;
use celery::task::{Phase, TaskId};
use ledger::Filter;

pub(super) const FILTERS: [&str; 13] = [
    "status", "phase", "task", "queue", "worker", "label", "root_id", "group_id", "schedule", "from", "to", "q",
    "argument",
];
/// Each label is a condition of its own in the statement.
const MAX_LABELS: usize = 20;
/// Search texts are matched against many rows.
const MAX_SEARCH: usize = 200;

impl Checked {
    pub(super) fn filter(&mut self, parameters: &Parameters) -> Filter {
        Filter {
            phase: self.phases(parameters),
            q: self.search(parameters, "q"),
            argument: self.search(parameters, "argument"),
            status: self.status(parameters),
            task: self.many(parameters, "task"),
            task_patterns: Vec::new(),
            queue: self.many(parameters, "queue"),
            worker: self.many(parameters, "worker"),
            labels: self.labels(parameters),
            root_id: self.single(parameters, "root_id").map(usual),
            group_id: self.single(parameters, "group_id").map(usual),
            schedule: self.single(parameters, "schedule").map(str::to_owned),
            from: self.time(parameters, "from"),
            to: self.time(parameters, "to"),
            dead_letters: false,
        }
    }

    fn phases(&mut self, parameters: &Parameters) -> Vec<Phase> {
        let mut phases = Vec::new();
        for text in self.many(parameters, "phase").iter().filter(|text| !text.is_empty()) {
            match text.parse::<Phase>() {
                Ok(phase) => phases.push(phase),
                Err(_) => {
                    let known = Phase::ALL.map(Phase::as_str);
                    self.refuse("phase", format!("{text:?} is none of {}", known.join(", ")));
                }
            }
        }
        phases
    }

    fn search(&mut self, parameters: &Parameters, name: &'static str) -> Option<String> {
        let text = self.single(parameters, name).map(str::to_owned);
        if text.as_ref().is_some_and(|text| text.is_empty() || text.chars().count() > MAX_SEARCH) {
            self.refuse(name, format!("must have 1 to {MAX_SEARCH} characters"));
        }
        text
    }

    /// Any state that a task may have named itself, but no slip of the pen in Celery's words and no phase: an empty list would say
    /// that there are no such tasks.
    fn status(&mut self, parameters: &Parameters) -> Vec<String> {
        let words = self.many(parameters, "status");
        for word in words.iter().filter(|word| !word.is_empty()) {
            if let Some(meant) = misspelt(word) {
                self.refuse("status", format!("{word:?} is no state of a task: {meant}"));
            }
        }
        words
    }

    fn labels(&mut self, parameters: &Parameters) -> Vec<(String, String)> {
        let (mut labels, given) = (Vec::new(), parameters.all("label"));
        if given.len() > MAX_LABELS {
            self.refuse("label", format!("has {} values, at most {MAX_LABELS} are allowed", given.len()));
            return labels;
        }
        for text in given {
            match text.split_once(':') {
                Some((key, value)) if !key.is_empty() => labels.push((key.to_owned(), value.to_owned())),
                _ => self.refuse("label", format!("{text:?} is not key:value")),
            }
        }
        labels
    }
}

/// What was probably meant by a status that no task has.
fn misspelt(word: &str) -> Option<String> {
    let known = Phase::ALL.map(Phase::status);
    if known.contains(&word) {
        return None;
    }
    if word.parse::<Phase>().is_ok() {
        return Some(format!("write phase={word}"));
    }
    let is_near = |status: &&&str| distance(word, status) <= 1;
    known.iter().find(is_near).map(|near| format!("did you mean {near}?"))
}

/// An id in the usual spelling of a UUID, if it is one.
fn usual(id: &str) -> String {
    TaskId::parse_uuid(id).map_or_else(|_| id.to_owned(), |id| id.to_string())
}
