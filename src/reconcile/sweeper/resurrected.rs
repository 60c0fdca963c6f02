//! Handles messages that came back with an older copy of Redis's data: of tasks that have ended, or that a worker has already.

use std::collections::HashMap;
use std::time::Duration;

use metrics::counter;
use tracing::warn;

use super::fleet::Fleet;
use super::{Sweeper, Trouble};
use broker::Present;
use celery::task::TaskId;
use ledger::Task;
use ledger::change::DUPLICATE;
use runtime::clock;

/// How many ids are looked up in one statement.
const CHUNK: usize = 500;

/// By this time after its result, a worker has acknowledged the message.
const ACKNOWLEDGED: Duration = Duration::from_secs(3);

const REMOVED: &str = "an old message of it came back with Redis's data and was removed";

impl Sweeper {
    /// Removes such messages from lists and from `unacked`, and reports those that a worker took meanwhile. `queues` are queues with
    /// unfinished tasks; a message of an ended task may be in any queue that Redis or a worker knows.
    pub(super) async fn remove_resurrected(&self, queues: &[String]) -> Result<(), Trouble> {
        let mut queues = queues.to_vec();
        queues.extend(self.broker.bound_queues().await?);
        queues.extend(self.ledger.workers().await?.into_iter().flat_map(|worker| worker.facts.queues));
        queues.sort_unstable();
        queues.dedup();
        let present = self.broker.present(&queues).await?;
        let tasks = self.tasks_of(&present).await?;
        let mut in_question: Vec<&str> = Vec::new();
        for task in tasks.values().filter(|task| task.phase.is_at_worker() || task.phase.is_final()) {
            in_question.push(task.id.as_str());
        }
        let fleet = Fleet::ask(&self.ledger, &self.broker, &in_question).await?;
        let removed = self.remove_listed(&queues, &tasks, &fleet).await?;
        self.hub.publish(&self.ledger.remark(&removed, REMOVED, clock::now()).await?);
        self.clear_reserved(&present, &tasks, &fleet).await
    }

    async fn tasks_of(&self, present: &Present) -> Result<HashMap<String, Task>, Trouble> {
        let found = present.listed.iter().chain(present.reserved.keys());
        let ids: Vec<TaskId> = found.filter_map(|id| TaskId::parse(id.as_str()).ok()).collect();
        let mut tasks = HashMap::new();
        for chunk in ids.chunks(CHUNK) {
            let ours = self.ledger.standing(chunk).await?.into_iter().filter(|task| !task.adopted);
            tasks.extend(ours.map(|task| (task.id.to_string(), task)));
        }
        Ok(tasks)
    }

    async fn remove_listed(
        &self,
        queues: &[String],
        tasks: &HashMap<String, Task>,
        fleet: &Fleet,
    ) -> Result<Vec<TaskId>, Trouble> {
        let unwanted = |id: &str, retries: i64| {
            tasks.get(id).is_some_and(|task| {
                let runs = fleet.held.contains_key(id) && retries <= i64::from(task.retries);
                task.phase.is_final() || runs
            })
        };
        let mut removed = Vec::new();
        for queue in queues {
            removed.extend(self.broker.remove_listed(queue, unwanted).await?);
        }
        for id in &removed {
            warn!(task.id = id, "an old message of task {id} came back and was removed");
        }
        counter!("taskgate_repairs_total", "kind" => "removed").increment(removed.len() as u64);
        Ok(removed.into_iter().filter_map(|id| TaskId::parse(id).ok()).collect())
    }

    /// Removes reserved messages that no worker has; they would be delivered when their reservations expire.
    async fn clear_reserved(
        &self,
        present: &Present,
        tasks: &HashMap<String, Task>,
        fleet: &Fleet,
    ) -> Result<(), Trouble> {
        let (mut removed, mut twice) = (Vec::new(), Vec::new());
        for (id, reservation) in &present.reserved {
            // A worker acknowledges a moment after it stores the record.
            let ended = |task: &&Task| task.finished_at.is_some_and(|at| clock::now().since(at) > ACKNOWLEDGED);
            let Some(task) = tasks.get(id).filter(ended) else { continue };
            if fleet.held.contains_key(id) {
                if task.reason.as_deref() != Some(DUPLICATE) {
                    warn!(task.id = %task.id, "task {} had ended as {}, and a worker took an old message of it: it runs twice", task.id, task.phase);
                    twice.push(task.id.clone());
                }
            } else if fleet.all_answered(&self.patience()) && self.broker.discard_reservation(reservation).await? {
                warn!(task.id = %task.id, "an old message of task {} was reserved, but no worker has it: it was removed", task.id);
                removed.push(task.id.clone());
            }
        }
        counter!("taskgate_duplicates_total").increment(twice.len() as u64);
        counter!("taskgate_repairs_total", "kind" => "removed").increment(removed.len() as u64);
        let now = clock::now();
        self.hub.publish(&self.ledger.remark(&twice, DUPLICATE, now).await?);
        self.hub.publish(&self.ledger.remark(&removed, REMOVED, now).await?);
        Ok(())
    }
}
