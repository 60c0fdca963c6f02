//! Incidents as the API shows them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::tell::incidents::Incident;
use ledger::KeptIncident;
use runtime::clock::Time;

/// Something that a person should look at.
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentView {
    /// The same for the same kind and subject, every time.
    #[schema(example = "c1f8a2b9d07e44c5a1b2")]
    pub id: String,
    /// `silent_worker`, `no_consumer`, `over_budget`, `outbox_stuck`, `canvas_stuck`, `wrong_key`, `other_options`, `mute_worker`, `deaf_worker`,
    /// `no_queue`, `other_signature`, `ledger_down`, `redis_down`, `redis_evicts`, `repeated_delivery`, `repair-suspended`, `undecided`, `unreadable_row`,
    /// `no_progress`, `short_tasks`, `large_results` or `large_worker`
    #[schema(example = "no_consumer")]
    pub kind: String,
    /// The worker, queue or task; `outbox`, `ledger` or `redis`
    #[schema(example = "mail")]
    pub subject: String,
    #[schema(value_type = String, format = DateTime)]
    pub since: Time,
    pub detail: String,
    /// Who looks after it.
    #[schema(example = "user kim")]
    pub acknowledged_by: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub acknowledged_at: Option<Time>,
    /// Until then nobody outside is told of this kind and subject.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub muted_until: Option<Time>,
    /// Null while it is open.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Time>,
}

/// What is wrong now
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentListView {
    pub incidents: Vec<IncidentView>,
}

/// What was wrong, newest first
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentHistoryView {
    pub incidents: Vec<IncidentView>,
    pub next: Option<String>,
}

impl IncidentView {
    /// As it is kept. A silence that is over is none.
    pub fn of(kept: KeptIncident, now: Time) -> Self {
        Self {
            id: kept.found.id,
            kind: kept.found.kind,
            subject: kept.found.subject,
            since: kept.found.since,
            detail: kept.found.detail,
            acknowledged_by: kept.acknowledged_by,
            acknowledged_at: kept.acknowledged_at,
            muted_until: kept.muted_until.filter(|until| *until > now),
            ended_at: kept.ended_at,
        }
    }

    /// As it was found just now, with what people said about it.
    pub fn found(incident: Incident, kept: &[KeptIncident], now: Time) -> Self {
        let id = incident.id();
        let known = kept.iter().find(|kept| kept.found.id == id);
        Self {
            id,
            kind: incident.kind.as_str().to_owned(),
            subject: incident.subject,
            since: incident.since,
            detail: incident.detail,
            acknowledged_by: known.and_then(|known| known.acknowledged_by.clone()),
            acknowledged_at: known.and_then(|known| known.acknowledged_at),
            muted_until: known.and_then(|known| known.muted_until).filter(|until| *until > now),
            ended_at: None,
        }
    }
}
