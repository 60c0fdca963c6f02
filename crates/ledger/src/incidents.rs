//! The part of the ledger that keeps incidents: which are open, what people said about them, which are over, and who is still to be
//! told.
//!
//! Invariants: of an id at most one incident is open; a notice is written in the transaction that opens or ends its incident and goes
//! when it was sent or given up, so a crash in between tells twice and never not at all.

use async_trait::async_trait;

use super::Error;
use runtime::clock::Time;

/// An incident as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundIncident {
    /// The same for the same kind and subject, whenever and by whichever replica it is found.
    pub id: String,
    pub kind: String,
    pub subject: String,
    pub since: Time,
    pub detail: String,
    /// Names of the channels that are told when it begins and when it is over.
    pub channels: Vec<String>,
}

/// An incident as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptIncident {
    pub no: i64,
    pub found: FoundIncident,
    pub ended_at: Option<Time>,
    pub acknowledged_at: Option<Time>,
    pub acknowledged_by: Option<String>,
    /// Nobody outside is told of this kind and subject until then.
    pub muted_until: Option<Time>,
}

/// What a person says about an incident.
#[derive(Debug, Clone)]
pub enum Mark {
    /// Somebody looks after it. Only of an open one.
    Acknowledged { by: String },
    /// `None` ends the silence.
    Muted { until: Option<Time> },
}

/// What a channel is still to be told.
#[derive(Debug, Clone)]
pub struct Notice {
    pub no: i64,
    pub channel: String,
    /// That it is over; else that it began.
    pub is_end: bool,
    pub created_at: Time,
    /// Failed tries so far.
    pub tries: i32,
    pub incident: KeptIncident,
}

/// What became of a notice.
#[derive(Debug, Clone, Copy)]
pub struct SettledNotice {
    pub no: i64,
    /// When to try again; `None` when it was sent or given up.
    pub again_at: Option<Time>,
}

#[async_trait]
pub trait Incidents: Send + Sync {
    /// These are open now. Those that are new begin, with a notice for each of their channels; those that were open and are not among
    /// them end at `at`, with another. While an id is muted its end is told to nobody, and neither is a beginning that nobody was told of.
    async fn note_incidents(&self, open: &[FoundIncident], at: Time) -> Result<(), Error>;

    /// Oldest first.
    async fn open_incidents(&self, limit: i64) -> Result<Vec<KeptIncident>, Error>;

    /// Those that are over, newest first; `before` is the number of the last of the page before.
    async fn ended_incidents(&self, before: Option<i64>, limit: i64) -> Result<Vec<KeptIncident>, Error>;

    /// Notes what a person says about the newest incident of this id, and answers with it. `None` without one, and when one that is over
    /// is to be acknowledged.
    async fn mark_incident(&self, id: &str, mark: &Mark, at: Time) -> Result<Option<KeptIncident>, Error>;

    /// Of incidents that are not muted, oldest first.
    async fn due_notices(&self, now: Time, limit: i64) -> Result<Vec<Notice>, Error>;

    async fn settle_notices(&self, settled: &[SettledNotice]) -> Result<(), Error>;

    /// Removes incidents that ended before; at most so many, answers how many.
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

/// Whether somebody wants to hear nothing of it at this time.
pub(super) fn is_muted(incident: &KeptIncident, at: Time) -> bool {
    incident.muted_until.is_some_and(|until| until > at)
}

/// The channels as they are written down.
pub(super) fn written(channels: &[String]) -> String {
    serde_json::to_string(channels).expect("names are JSON")
}
