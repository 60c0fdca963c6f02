//! What workers say of the signatures of their tasks, for the names of `learn`; and where two of them, or a worker and the catalog, differ.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use crate::catalog::{Annotations, Pattern};

#[derive(Default)]
struct Known {
    hints: HashMap<String, Annotations>,
    /// By task: what does not fit together.
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

    /// Whether anything is to be learned.
    pub fn is_wanted(&self) -> bool {
        !self.patterns.is_empty()
    }

    pub fn wants(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// The hints of a task, once some worker has told them.
    pub fn hints(&self, name: &str) -> Option<Annotations> {
        if !self.is_wanted() {
            return None;
        }
        self.known.read().expect("nothing panics under this lock").hints.get(name).cloned()
    }

    pub fn misfits(&self) -> BTreeMap<String, String> {
        self.known.read().expect("nothing panics under this lock").misfits.clone()
    }

    /// All that is known now; a task that no worker has told of this time keeps its hints.
    pub fn replace(&self, hints: HashMap<String, Annotations>, misfits: BTreeMap<String, String>) {
        let mut known = self.known.write().expect("nothing panics under this lock");
        known.hints.extend(hints);
        known.misfits = misfits;
    }
}
