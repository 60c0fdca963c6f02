//! Type hints that workers report for tasks in `learn`, and contradictions between workers, or between a worker and the catalog.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use crate::catalog::{Annotations, Pattern};

/// What was learned up to now.
#[derive(Debug, Clone, Default)]
pub struct Lesson {
    /// Grows with every change; 0 while nothing is known.
    pub version: u64,
    /// Tasks with their hints, by name.
    pub hints: Vec<(String, Annotations)>,
}

impl Lesson {
    fn of(version: u64, known: &HashMap<String, Annotations>) -> Self {
        let mut hints: Vec<_> = known.iter().map(|(name, hints)| (name.clone(), hints.clone())).collect();
        hints.sort_unstable_by(|(name, _), (other, _)| name.cmp(other));
        Self { version, hints }
    }
}

#[derive(Default)]
struct Known {
    hints: HashMap<String, Annotations>,
    /// The same, sorted, for readers of the whole.
    lesson: Arc<Lesson>,
    /// Contradictions by task.
    misfits: BTreeMap<String, String>,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Learned {
    patterns: Arc<[Pattern]>,
    known: Arc<RwLock<Known>>,
}

impl Learned {
    pub fn new(patterns: &[String]) -> Self {
        Self { patterns: patterns.iter().map(Pattern::new).collect(), known: Arc::default() }
    }

    /// Whether there are tasks to learn.
    pub fn is_wanted(&self) -> bool {
        !self.patterns.is_empty()
    }

    pub fn wants(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// The hints of a task, once a worker has reported them.
    pub fn hints(&self, name: &str) -> Option<Annotations> {
        if !self.is_wanted() {
            return None;
        }
        self.known.read().expect("nothing panics under this lock").hints.get(name).cloned()
    }

    /// The tasks whose hints are known.
    pub fn lesson(&self) -> Arc<Lesson> {
        Arc::clone(&self.known.read().expect("nothing panics under this lock").lesson)
    }

    pub fn misfits(&self) -> BTreeMap<String, String> {
        self.known.read().expect("nothing panics under this lock").misfits.clone()
    }

    /// Replaces what is known; a task that no worker has reported this time keeps its hints.
    pub fn replace(&self, hints: HashMap<String, Annotations>, misfits: BTreeMap<String, String>) {
        let mut known = self.known.write().expect("nothing panics under this lock");
        let is_news = hints.iter().any(|(name, told)| known.hints.get(name) != Some(told));
        known.hints.extend(hints);
        known.misfits = misfits;
        if is_news {
            known.lesson = Arc::new(Lesson::of(known.lesson.version + 1, &known.hints));
        }
    }
}
