//! Incidents in the ledger: open ones, acknowledgements, closed ones, and pending notices.
//!
//! Invariants: at most one incident of an id is open; a notice is written in the transaction that opens or ends its incident, and is
//! deleted after it was sent or given up. So a crash may send a notice twice, but loses none.

use async_trait::async_trait;

use super::Error;
use runtime::clock::Time;

/// A detected incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundIncident {
    /// Derived from kind and subject, so every replica gives the same incident the same id at any time.
    pub id: String,
    pub kind: String,
    pub subject: String,
    pub since: Time,
    pub detail: String,
    /// Names of the channels to notify when the incident begins and ends.
    pub channels: Vec<String>,
}

/// A stored incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptIncident {
    pub no: i64,
    pub found: FoundIncident,
    pub ended_at: Option<Time>,
    pub acknowledged_at: Option<Time>,
    pub acknowledged_by: Option<String>,
    /// Until this time no notices of this kind and subject are sent.
    pub muted_until: Option<Time>,
}

/// A person's action on an incident.
#[derive(Debug, Clone)]
pub enum Mark {
    /// Acknowledges it; only for an open one.
    Acknowledged { by: String },
    /// Mutes it until this time; `None` ends the mute.
    Muted { until: Option<Time> },
}

/// A notice that is still to be sent to a channel.
#[derive(Debug, Clone)]
pub struct Notice {
    pub no: i64,
    pub channel: String,
    /// Whether the notice says that the incident ended; else it says that it began.
    pub is_end: bool,
    pub created_at: Time,
    /// Failed tries so far.
    pub tries: i32,
    pub incident: KeptIncident,
}

/// The outcome of a notice.
#[derive(Debug, Clone, Copy)]
pub struct SettledNotice {
    pub no: i64,
    /// When to try again; `None` when it was sent or given up.
    pub again_at: Option<Time>,
}

#[async_trait]
pub trait Incidents: Send + Sync {
    /// Replaces the open incidents. New ones begin, with a notice for each of their channels; open ones that are missing from `open` end at
    /// `at`, with another notice. While an id is muted, no notices of its beginning or end are sent.
    async fn note_incidents(&self, open: &[FoundIncident], at: Time) -> Result<(), Error>;

    /// Oldest first.
    async fn open_incidents(&self, limit: i64) -> Result<Vec<KeptIncident>, Error>;

    /// Closed incidents, newest first; `before` is the number of the last one on the previous page.
    async fn ended_incidents(&self, before: Option<i64>, limit: i64) -> Result<Vec<KeptIncident>, Error>;

    /// Records a person's action on the newest incident of this id, and returns the incident. `None` if there is none, and when a closed one
    /// is to be acknowledged.
    async fn mark_incident(&self, id: &str, mark: &Mark, at: Time) -> Result<Option<KeptIncident>, Error>;

    /// Notices of incidents that are not muted, oldest first.
    async fn due_notices(&self, now: Time, limit: i64) -> Result<Vec<Notice>, Error>;

    async fn settle_notices(&self, settled: &[SettledNotice]) -> Result<(), Error>;

    /// Removes at most `limit` incidents that ended before this time; returns how many.
    async fn prune_incidents(&self, before: Time, limit: i64) -> Result<i64, Error>;
}

macro_rules! incident_columns {
    () => {
        "i.incident_no, i.incident_id, i.kind, i.subject, i.since, i.detail, i.channels, i.ended_at, i.acknowledged_at, \
         i.acknowledged_by, i.muted_until"
    };
}
pub(super) use incident_columns;

/// Reads a [`KeptIncident`] from a row of either driver.
macro_rules! read_incident {
    ($row:expr) => {{
        let row = $row;
        let time = |at: Option<i64>| at.map(runtime::clock::Time);
        let channels: String = row.try_get("channels")?;
        Ok($crate::KeptIncident {
            no: row.try_get("incident_no")?,
            found: $crate::FoundIncident {
                id: row.try_get("incident_id")?,
                kind: row.try_get("kind")?,
                subject: row.try_get("subject")?,
                since: runtime::clock::Time(row.try_get("since")?),
                detail: row.try_get("detail")?,
                channels: serde_json::from_str(&channels).unwrap_or_default(),
            },
            ended_at: time(row.try_get("ended_at")?),
            acknowledged_at: time(row.try_get("acknowledged_at")?),
            acknowledged_by: row.try_get("acknowledged_by")?,
            muted_until: time(row.try_get("muted_until")?),
        })
    }};
}
pub(super) use read_incident;

/// Reads a [`Notice`] from a row of either driver.
macro_rules! read_notice {
    ($row:expr) => {{
        let row = $row;
        Ok($crate::Notice {
            no: row.try_get("notice_no")?,
            channel: row.try_get("channel")?,
            is_end: row.try_get("is_end")?,
            created_at: runtime::clock::Time(row.try_get("created_at")?),
            tries: row.try_get("tries")?,
            incident: incident(row)?,
        })
    }};
}
pub(super) use read_notice;

/// Whether the incident is muted at this time.
pub(super) fn is_muted(incident: &KeptIncident, at: Time) -> bool {
    incident.muted_until.is_some_and(|until| until > at)
}

/// The channels as they are stored.
pub(super) fn written(channels: &[String]) -> String {
    serde_json::to_string(channels).expect("names are JSON")
}
