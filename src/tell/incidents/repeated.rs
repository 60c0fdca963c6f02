//! Finds tasks that are delivered again and again, perhaps because they crash their workers.

use super::{Incident, Kind, Lookout, MOST, PAGE, REPEATED, Trouble};
use crate::reconcile::deliveries;
use celery::task::{Phase, TaskId};
use runtime::clock::Time;

impl Lookout {
    /// Unfinished tasks that are delivered again and again. A task that is between two workers is remembered.
    pub(super) async fn delivered_again(&mut self, now: Time) -> Result<Vec<Incident>, Trouble> {
        let mut after = 0;
        loop {
            let tasks =
                self.ledger.unfinished(&[Phase::Received, Phase::Running, Phase::Retrying], after, PAGE).await?;
            let Some(last) = tasks.last() else { break };
            after = last.no;
            for task in tasks.into_iter().filter(|task| task.delivery >= REPEATED) {
                if self.repeated.len() < MOST && !self.repeated.contains_key(&task.id) {
                    self.repeated.insert(task.id, now);
                }
            }
        }
        let ids: Vec<TaskId> = self.repeated.keys().cloned().collect();
        let tasks = if ids.is_empty() { Vec::new() } else { self.ledger.standing(&ids).await? };
        let open = |id: &TaskId| tasks.iter().any(|task| task.id == *id && !task.phase.is_final());
        self.repeated.retain(|id, _| open(id));
        let mut found = Vec::new();
        for task in tasks.iter().filter(|task| !task.phase.is_final()) {
            let count = deliveries::counted(&self.ledger, &task.id).await?;
            if i32::try_from(count).is_ok_and(|count| count + 1 < REPEATED) {
                continue;
            }
            let name = task.name.as_deref().unwrap_or("a task");
            let worker = task.worker.as_deref().unwrap_or("an unknown worker");
            found.push(Incident {
                kind: Kind::RepeatedDelivery,
                subject: task.id.to_string(),
                since: self.repeated.get(&task.id).copied().unwrap_or(now),
                detail: format!(
                    "{name} was delivered {} times and has not ended; it may crash its workers, the last of which was {worker}; \
                     recovery.max_deliveries ends it",
                    task.delivery
                ),
            });
        }
        Ok(found)
    }
}
