//! Who was seen absent, and since when. One look may miss a message that moved; two looks apart do not.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::Task;
use crate::task::TaskId;

/// More candidates wait for the next look: settling them takes longer than a grace period anyway.
const CAPACITY: usize = 50_000;

/// First sightings of absence, by task and delivery.
#[derive(Default)]
pub struct Absences(HashMap<(TaskId, i32), Instant>);

impl Absences {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the result of a whole look. Returns those absent for at least `grace`; who was found is forgotten.
    pub fn note(&mut self, absent: Vec<Task>, grace: Duration) -> Vec<Task> {
        let now = Instant::now();
        let mut next = HashMap::new();
        let mut certain = Vec::new();
        for task in absent {
            let key = (task.id.clone(), task.delivery);
            let since = self.0.get(&key).copied().unwrap_or(now);
            if self.0.contains_key(&key) && now.duration_since(since) >= grace {
                certain.push(task);
            } else if next.len() < CAPACITY {
                next.insert(key, since);
            }
        }
        self.0 = next;
        certain
    }
}
