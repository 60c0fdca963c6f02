//! Finds the replacements of tasks: `self.replace()` ends a task silently, and tasks with other ids end it later.
//!
//! A worker names the sending task in each message that it sends while it runs a task (`parent_id`). So a task goes on while it has an
//! unfinished descendant: a task in the ledger, or a message in Redis.

use std::collections::{HashMap, HashSet};

use super::{Sweeper, Trouble};
use broker::Present;
use celery::task::{Phase, TaskId};
use ledger::{Filter, Page, Task};

/// Maximum number of unfinished tasks of a canvas that are read.
const MEMBERS: i64 = 500;
/// Maximum depth of descent.
const DEPTH: usize = 64;

impl Sweeper {
    /// Which of these tasks go on in others, with the name and id of one of those.
    pub(super) async fn going_on(
        &self,
        tasks: &[&Task],
        present: &Present,
    ) -> Result<HashMap<TaskId, String>, Trouble> {
        let mut found = HashMap::new();
        let mut open: HashMap<TaskId, Vec<&Task>> = HashMap::new();
        for task in tasks {
            match present.sent_by.get(task.id.as_str()) {
                Some(child) => drop(found.insert(task.id.clone(), child.clone())),
                None => {
                    let root = task.root_id.clone().unwrap_or_else(|| task.id.clone());
                    open.entry(root).or_default().push(task);
                }
            }
        }
        for (root, tasks) in open {
            for (ancestor, child) in self.descendants(&root).await? {
                if tasks.iter().any(|task| task.id == ancestor) {
                    found.insert(ancestor, child);
                }
            }
        }
        Ok(found)
    }

    /// The tasks with unfinished descendants in a canvas, each with one of its descendants.
    async fn descendants(&self, root: &TaskId) -> Result<HashMap<TaskId, String>, Trouble> {
        let filter = Filter { root_id: Some(root.to_string()), phase: going_on_in(), ..Filter::default() };
        let (members, _) = self.ledger.tasks(&filter, &Page { limit: MEMBERS, after: None }).await?;
        let members: Vec<Task> = members.into_iter().filter(is_going_on).collect();
        let mut ancestors: HashMap<TaskId, String> = HashMap::new();
        let mut senders: HashMap<TaskId, String> =
            members.iter().filter_map(|task| Some((task.parent_id.clone()?, called(task)))).collect();
        let mut known: HashSet<TaskId> = HashSet::new();
        for _ in 0..DEPTH {
            senders.retain(|id, _| known.insert(id.clone()));
            if senders.is_empty() {
                break;
            }
            let ids: Vec<TaskId> = senders.keys().cloned().collect();
            let above = self.ledger.standing(&ids).await?;
            let mut next = HashMap::new();
            for task in above {
                let child = senders.get(&task.id).cloned().unwrap_or_default();
                if let Some(parent) = task.parent_id {
                    next.insert(parent, child);
                }
            }
            ancestors.extend(std::mem::replace(&mut senders, next));
        }
        Ok(ancestors)
    }
}

/// Phases in which a replacement may be.
fn going_on_in() -> Vec<Phase> {
    vec![Phase::Queued, Phase::Received, Phase::Running, Phase::Retrying, Phase::Waiting]
}

/// A step of a canvas that waits for its turn was sent by nobody yet, so it replaces nobody; one that replaced itself goes on.
fn is_going_on(task: &Task) -> bool {
    task.phase != Phase::Waiting || task.is_replaced()
}

fn called(task: &Task) -> String {
    format!("{} ({})", task.name.as_deref().unwrap_or("a task"), task.id)
}
