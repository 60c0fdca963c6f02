//! Lists closed incidents, acknowledges an incident, or mutes it for a while.

use std::time::Duration;

use super::Gateway;
use ledger::{Error, KeptIncident, Mark};
use runtime::clock::{self, Time};

/// Maximum number of open incidents to read; no more are detected.
const OPEN: i64 = 2_000;
/// The longest mute; a longer one would hide the incident for good.
pub const LONGEST_MUTE: Duration = Duration::from_secs(30 * 86_400);
/// How long an action waits for an incident that was just detected and is not recorded yet,
const PATIENCE: Duration = Duration::from_secs(6);
/// and how often it checks meanwhile.
const CHECK_PERIOD: Duration = Duration::from_millis(300);

/// Why an action on an incident failed.
#[derive(Debug, thiserror::Error)]
pub enum IncidentError {
    #[error("no incident {0} is open")]
    Unknown(String),
    #[error("the ledger failed")]
    Ledger(#[from] Error),
}

impl Gateway {
    /// The recorded open incidents, oldest first.
    pub async fn open_incidents(&self) -> Result<Vec<KeptIncident>, Error> {
        self.ledger.open_incidents(OPEN).await
    }

    /// Closed incidents, newest first, after this position; and the position of the last one if there are more.
    pub async fn past_incidents(
        &self,
        before: Option<i64>,
        limit: i64,
    ) -> Result<(Vec<KeptIncident>, Option<i64>), Error> {
        let mut past = self.ledger.ended_incidents(before, limit.saturating_add(1)).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_last = past.len() <= limit;
        past.truncate(limit);
        let next = past.last().filter(|_| !is_last).map(|incident| incident.no);
        Ok((past, next))
    }

    /// Acknowledges an incident. `is_found`: it is in the current list, so it will be recorded in a moment if it is not yet.
    pub async fn acknowledge_incident(
        &self,
        id: &str,
        by: String,
        is_found: bool,
    ) -> Result<KeptIncident, IncidentError> {
        self.mark(id, &Mark::Acknowledged { by }, is_found).await
    }

    /// Sends no notices about it until this time; `None` ends the mute.
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
            tokio::time::sleep(CHECK_PERIOD).await;
        }
    }
}
