//! Keeps the reservations of live workers from running out (`unacked_index`): kombu never renews them, so it would deliver a
//! long task a second time while the first copy runs.
//!
//! A reservation is renewed well before its time while the worker that has the message sends heartbeats. Who that is says the
//! ledger; where it does not know, or knows one who is silent, the workers are asked. A reservation nobody answers for runs out as
//! kombu means it to.

use std::collections::HashMap;
use std::time::Duration;

use metrics::counter;

use super::fleet::Fleet;
use super::{Sweeper, Trouble};
use crate::clock;
use crate::task::TaskId;

/// Messages read at a time.
const PAGE: usize = 500;
/// Messages of one pass; more than a fleet holds at a time.
const MAX: usize = 50_000;
/// Messages whose worker is asked for in one pass.
const ASKED: usize = 1_000;

/// When leases are looked at, by the visibility timeout.
pub fn period(visibility_timeout: Duration) -> Duration {
    (visibility_timeout / 8).clamp(Duration::from_millis(200), Duration::from_secs(60))
}

impl Sweeper {
    /// One pass.
    pub(super) async fn renew_leases(&self) -> Result<(), Trouble> {
        let before = clock::now().minus(self.visibility_timeout / 4);
        let mut kept = 0;
        let mut unknown: Vec<(String, String)> = Vec::new();
        let workers = Fleet::read(&self.ledger).await?;
        while kept < MAX {
            let page = self.broker.reserved_before(before, kept, PAGE).await?;
            let (count, size) = self.renew_page(&page, &workers, &mut unknown).await?;
            kept += size - count;
            if size < PAGE {
                break;
            }
        }
        self.renew_unknown(unknown).await
    }

    /// Returns how many were renewed, and how many there were.
    async fn renew_page(
        &self,
        page: &[(String, String)],
        workers: &Fleet,
        unknown: &mut Vec<(String, String)>,
    ) -> Result<(usize, usize), Trouble> {
        let ids: Vec<TaskId> = page.iter().filter_map(|(_, id)| TaskId::parse(id.as_str()).ok()).collect();
        let owners: HashMap<String, Option<String>> = self
            .ledger
            .standing(&ids)
            .await?
            .into_iter()
            .map(|task| (task.id.to_string(), task.worker.filter(|_| task.phase.is_at_worker())))
            .collect();
        let mut renewed = Vec::new();
        for (tag, id) in page {
            match owners.get(id) {
                Some(Some(owner)) if workers.is_fresh(owner) => renewed.push(tag.clone()),
                // Nobody may have heard who took it after that one.
                _ if unknown.len() < ASKED => unknown.push((tag.clone(), id.clone())),
                _ => {}
            }
        }
        self.renew_tags(&renewed).await?;
        Ok((renewed.len(), page.len()))
    }

    /// Asks the workers who has these.
    async fn renew_unknown(&self, unknown: Vec<(String, String)>) -> Result<(), Trouble> {
        if unknown.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = unknown.iter().map(|(_, id)| id.as_str()).filter(|id| !id.is_empty()).collect();
        let mut fleet = Fleet::ask(&self.ledger, &self.broker, &ids).await?;
        fleet.ask_for_unseen(&self.broker).await?;
        let held: Vec<String> =
            unknown.iter().filter(|(_, id)| fleet.held.contains_key(id)).map(|(tag, _)| tag.clone()).collect();
        self.renew_tags(&held).await
    }

    async fn renew_tags(&self, tags: &[String]) -> Result<(), Trouble> {
        self.broker.renew(tags, clock::now()).await?;
        counter!("taskgate_leases_renewed_total").increment(tags.len() as u64);
        Ok(())
    }
}
