//! Renews the reservations of live workers (`unacked_index`): kombu never does, so it would deliver a long task a second time
//! while the first copy runs.
//!
//! A reservation is renewed well before it expires while the worker with the message sends heartbeats. The ledger knows the worker;
//! if it does not, or the worker is silent, the workers are asked. A reservation that no worker confirms expires as kombu intends;
//! the ledger records that its message was taken, so that the next worker is known to be a different one.
//!
//! A message of ours that its worker has forgotten goes back to its queue by the sweeper. Messages of other clients only kombu puts back,
//! when their reservations expire. So these are renewed only while their worker may still have them: neither for a new process under its
//! name, nor for a worker that says that it does not have them.

use std::collections::HashMap;
use std::time::Duration;

use metrics::counter;

use super::fleet::Fleet;
use super::{Sweeper, Trouble};
use broker::Reservation;
use celery::task::TaskId;
use ledger::Task;
use runtime::clock::{self, Time};

/// Messages read at a time.
const PAGE: usize = 500;
/// Maximum number of messages in one pass; more than a fleet has at a time.
const MAX: usize = 50_000;
/// For how many messages workers are asked in one pass.
const ASKED: usize = 1_000;

/// A message whose worker is unknown to the ledger, or silent.
pub(super) struct Unclear {
    pub reservation: Reservation,
    pub id: String,
    /// `None` when the ledger does not know the task.
    pub task: Option<Task>,
}

/// Messages for which workers are asked.
#[derive(Default)]
struct Asked {
    unclear: Vec<Unclear>,
    /// Messages of other clients whose worker sends heartbeats, with their tags.
    others: Vec<(String, Task)>,
}

/// How often reservations are checked, depending on the visibility timeout.
pub fn period(visibility_timeout: Duration) -> Duration {
    (visibility_timeout / 8).clamp(Duration::from_millis(200), Duration::from_secs(60))
}

impl Sweeper {
    /// One pass. Which worker has what is recorded even while a full Redis refuses to renew.
    pub(super) async fn renew_leases(&self) -> Result<(), Trouble> {
        let before = clock::now().minus(self.settings.visibility_timeout / 4);
        let mut asked = Asked::default();
        let workers = Fleet::read(&self.ledger).await?;
        let renewed = self.renew_known(before, &workers, &mut asked).await;
        renewed.and(self.renew_unclear(&asked.unclear).await).and(self.renew_others(&asked.others).await)
    }

    async fn renew_known(&self, before: Time, workers: &Fleet, asked: &mut Asked) -> Result<(), Trouble> {
        let mut kept = 0;
        while kept < MAX {
            let page = self.broker.reserved_before(before, kept, PAGE).await?;
            let size = page.len();
            let count = self.renew_page(page, workers, asked).await?;
            kept += size - count;
            if size < PAGE {
                break;
            }
        }
        Ok(())
    }

    /// Renews a page of reservations; returns how many.
    async fn renew_page(
        &self,
        page: Vec<(Reservation, String)>,
        workers: &Fleet,
        asked: &mut Asked,
    ) -> Result<usize, Trouble> {
        let ids: Vec<TaskId> = page.iter().filter_map(|(_, id)| TaskId::parse(id.as_str()).ok()).collect();
        let found = self.ledger.standing(&ids).await?;
        let mut tasks: HashMap<String, Task> = found.into_iter().map(|task| (task.id.to_string(), task)).collect();
        let mut renewed = Vec::new();
        for (reservation, id) in page {
            let task = tasks.remove(&id);
            let owner = task.as_ref().filter(|task| task.phase.is_at_worker()).and_then(|task| task.worker.as_deref());
            let is_fresh = owner.is_some_and(|owner| workers.is_fresh(owner));
            let is_of_others = task.as_ref().is_some_and(|task| task.adopted);
            if is_fresh && is_of_others && asked.others.len() < ASKED {
                asked.others.extend(task.map(|task| (reservation.tag, task)));
            } else if is_fresh {
                renewed.push(reservation.tag);
            } else if asked.unclear.len() < ASKED {
                // Another worker may have taken it unreported after that one.
                asked.unclear.push(Unclear { reservation, id, task });
            }
        }
        self.renew_tags(&renewed).await?;
        Ok(renewed.len())
    }

    /// Asks the workers which of these messages they have.
    async fn renew_unclear(&self, unclear: &[Unclear]) -> Result<(), Trouble> {
        if unclear.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = unclear.iter().map(|delivery| delivery.id.as_str()).filter(|id| !id.is_empty()).collect();
        let mut fleet = Fleet::ask(&self.ledger, &self.broker, &ids).await?;
        fleet.ask_for_unseen(&self.broker).await?;
        let held = unclear.iter().filter(|delivery| fleet.held.contains_key(&delivery.id));
        let renewed = self.renew_tags(&held.map(|delivery| delivery.reservation.tag.clone()).collect::<Vec<_>>()).await;
        renewed.and(self.note_taken(unclear, &fleet).await)
    }

    async fn renew_others(&self, others: &[(String, Task)]) -> Result<(), Trouble> {
        if others.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = others.iter().map(|(_, task)| task.id.as_str()).collect();
        let mut fleet = Fleet::ask(&self.ledger, &self.broker, &ids).await?;
        fleet.ask_for_unseen(&self.broker).await?;
        let patience = self.patience();
        let kept = others.iter().filter(|(_, task)| fleet.may_still_have(task, &patience));
        self.renew_tags(&kept.map(|(tag, _)| tag.clone()).collect::<Vec<_>>()).await
    }

    async fn renew_tags(&self, tags: &[String]) -> Result<(), Trouble> {
        self.broker.renew(tags, clock::now()).await?;
        counter!("taskgate_leases_renewed_total").increment(tags.len() as u64);
        Ok(())
    }
}
