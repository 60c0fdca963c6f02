//! Who was seen absent, and since when. One look may miss a message that moved; two looks apart do not.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::verdict::Remedy;
use celery::task::TaskId;
use ledger::Task;

/// More candidates wait for the next look: settling them takes longer than a grace period anyway.
const CAPACITY: usize = 50_000;

/// First sightings of absence, by task and `seq`: a task that moved meanwhile was not absent.
#[derive(Default)]
pub struct Absences(HashMap<(TaskId, i64), Instant>);

impl Absences {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the result of a whole look. Returns those absent for at least `grace`; who was found is forgotten.
    pub fn note(&mut self, absent: Vec<(Task, Remedy)>, grace: Duration) -> Vec<(Task, Remedy)> {
        let now = Instant::now();
        let mut next = HashMap::new();
        let mut certain = Vec::new();
        for (task, remedy) in absent {
            let key = (task.id.clone(), task.seq);
            let since = self.0.get(&key).copied().unwrap_or(now);
            if self.0.contains_key(&key) && now.duration_since(since) >= grace {
                certain.push((task, remedy));
            } else if next.len() < CAPACITY {
                next.insert(key, since);
            }
        }
        self.0 = next;
        certain
    }
}
