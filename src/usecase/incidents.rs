//! Lists closed incidents, acknowledges an incident, or mutes it for a while.

use std::time::Duration;

use super::Gateway;
use ledger::{Error, KeptIncident, Mark};
use runtime::clock::{self, Time};

/// The most open incidents that are read; no more are detected.
const OPEN: i64 = 2_000;
/// The longest mute; a longer one would hide the incident for good.
pub const LONGEST_MUTE: Duration = Duration::from_secs(30 * 86_400);
/// So long a mark waits for an incident that was found just now and is about to be written down,
const PATIENCE: Duration = Duration::from_secs(6);
/// and so often it looks.
const LOOK: Duration = Duration::from_millis(300);

/// Why an action on an incident failed.
#[derive(Debug, thiserror::Error)]
pub enum IncidentError {
    #[error("no incident {0} is open")]
    Unknown(String),
    #[error("the ledger failed")]
    Ledger(#[from] Error),
}

impl Gateway {
    /// As they are written down, oldest first.
    pub async fn open_incidents(&self) -> Result<Vec<KeptIncident>, Error> {
        self.ledger.open_incidents(OPEN).await
    }

    /// Those that are over, newest first, after this place; and the place of the last one when there are more.
    pub async fn past_incidents(
        &self,
        before: Option<i64>,
        limit: i64,
    ) -> Result<(Vec<KeptIncident>, Option<i64>), Error> {
        let mut past = self.ledger.ended_incidents(before, limit.saturating_add(1)).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_last = past.len() <= limit;
        past.truncate(limit);
        let next = past.last().filter(|_| !is_last).map(|one| one.no);
        Ok((past, next))
    }

    /// Somebody looks after it. `is_found`: it is on the list of now, and is written down in a moment if it is not yet.
    pub async fn acknowledge_incident(
        &self,
        id: &str,
        by: String,
        is_found: bool,
    ) -> Result<KeptIncident, IncidentError> {
        self.mark(id, &Mark::Acknowledged { by }, is_found).await
    }

    /// Nobody outside is told of it until then, or, with `None`, is told again.
    pub async fn mute_incident(
        &self,
        id: &str,
        until: Option<Time>,
        is_found: bool,
    ) -> Result<KeptIncident, IncidentError> {
        self.mark(id, &Mark::Muted { until }, is_found).await
    }

    async fn mark(&self, id: &str, mark: &Mark, is_found: bool) -> Result<KeptIncident, IncidentError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(marked) = self.ledger.mark_incident(id, mark, clock::now()).await? {
                return Ok(marked);
            }
            if !is_found || tokio::time::Instant::now() >= deadline {
                return Err(IncidentError::Unknown(id.to_owned()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
