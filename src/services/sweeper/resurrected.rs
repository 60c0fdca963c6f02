//! Messages that came back from an older copy of Redis's data: of tasks that have ended, or that a worker has already.

use std::collections::{HashMap, HashSet};

use metrics::counter;
use tracing::warn;

use super::fleet::Fleet;
use super::{Sweeper, Trouble};
use crate::broker::Present;
use crate::store::Task;
use crate::task::TaskId;

/// Ids looked up in one statement.
const CHUNK: usize = 500;

impl Sweeper {
    /// Takes them out of their lists; reports those that a worker took meanwhile. Returns what stands there rightly.
    pub(super) async fn remove_resurrected(&self, present: Present, queues: &[String]) -> Result<Present, Trouble> {
        let ids: Vec<TaskId> = present
            .listed
            .iter()
            .chain(present.reserved.keys())
            .filter_map(|id| TaskId::parse(id.as_str()).ok())
            .collect();
        let mut tasks: HashMap<String, Task> = HashMap::new();
        for chunk in ids.chunks(CHUNK) {
            tasks.extend(self.ledger.standing(chunk).await?.into_iter().map(|task| (task.id.to_string(), task)));
        }
        let with_worker: Vec<&str> = tasks
            .values()
            .filter(|task| task.phase.is_at_worker() && present.listed.contains(task.id.as_str()))
            .map(|task| task.id.as_str())
            .collect();
        let fleet = Fleet::ask(&self.ledger, &self.broker, &with_worker).await?;
        let unwanted = |id: &str, retries: i64| {
            tasks.get(id).is_some_and(|task| {
                let runs = fleet.held.contains_key(id) && retries <= i64::from(task.retries);
                !task.adopted && (task.phase.is_final() || runs)
            })
        };
        let mut removed = HashSet::new();
        for queue in queues {
            removed.extend(self.broker.remove_listed(queue, unwanted).await?);
        }
        report(&removed, &tasks, &present);
        let listed = present.listed.into_iter().filter(|id| !removed.contains(id)).collect();
        Ok(Present { listed, reserved: present.reserved })
    }
}

fn report(removed: &HashSet<String>, tasks: &HashMap<String, Task>, present: &Present) {
    for id in removed {
        warn!(task.id = id, "an old message of task {id} came back and was removed");
    }
    counter!("taskgate_sweeper_repairs_total", "kind" => "removed").increment(removed.len() as u64);
    for task in tasks.values().filter(|task| task.phase.is_final() && present.reserved.contains_key(task.id.as_str())) {
        warn!(task.id = %task.id, "task {} had ended as {}, and a worker took an old message of it: it runs twice", task.id, task.phase);
        counter!("taskgate_duplicates_total").increment(1);
    }
}
