//! Webhooks in the ledger: endpoints, and deliveries with their tries.
//!
//! Invariant: deliveries are derived from the feed, and the transaction that writes them also moves the position in the feed. So each event
//! that an endpoint asks for becomes exactly one delivery, even if replicas die.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Cursor, Error, Page, Task};
use runtime::clock::Time;

/// The endpoint whose secret signs the deliveries for catalog entries.
pub const CATALOG_ENDPOINT: &str = "catalog";
/// The endpoint whose secret signs the deliveries for submissions.
pub const SUBMISSIONS_ENDPOINT: &str = "submissions";

/// Which events to send to which URL. All fields are empty for the two built-in endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Events, named as in a submission's `webhooks`.
    #[serde(default)]
    pub on: Vec<String>,
    /// Patterns of task names; all tasks when empty.
    #[serde(default)]
    pub tasks: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Endpoint {
    pub id: String,
    /// Grows with every edit.
    pub version: i64,
    pub enabled: bool,
    pub disabled_reason: Option<String>,
    /// `whsec_…`
    pub secret: String,
    /// The previous secret, which also signs until this time.
    pub old_secret: Option<(String, Time)>,
    pub created_at: Time,
    pub updated_at: Time,
    pub document: EndpointDocument,
}

impl Endpoint {
    /// Whether it is one of the two built-in endpoints.
    pub fn is_built_in(&self) -> bool {
        matches!(self.id.as_str(), CATALOG_ENDPOINT | SUBMISSIONS_ENDPOINT)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    Pending,
    Delivered,
    /// It was given up.
    Failed,
}

impl DeliveryState {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A delivery to be written.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// The `webhook-id`: the same for every try.
    pub id: String,
    pub endpoint_id: String,
    pub task_no: i64,
    pub task_id: String,
    pub task_name: Option<String>,
    /// The `seq` of the event.
    pub seq: i64,
    /// `task.succeeded`
    pub kind: String,
    pub url: String,
    pub target: String,
    pub payload: String,
    pub created_at: Time,
    pub give_up_at: Time,
}

/// A delivery and its tries so far.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub no: i64,
    pub id: String,
    pub endpoint_id: String,
    pub task_id: String,
    pub task_name: Option<String>,
    pub seq: i64,
    pub kind: String,
    pub url: String,
    pub target: String,
    pub payload: String,
    pub state: DeliveryState,
    pub attempts: i32,
    pub created_at: Time,
    pub give_up_at: Time,
    pub next_at: Option<Time>,
    pub last_at: Option<Time>,
    pub last_status: Option<i32>,
    pub last_error: Option<String>,
    pub delivered_at: Option<Time>,
}

/// The outcome of one try.
#[derive(Debug, Clone)]
pub struct Tried {
    pub delivery_no: i64,
    /// The number of the try: the late outcome of an older try is ignored.
    pub attempt: i32,
    pub at: Time,
    pub state: DeliveryState,
    /// Only while pending.
    pub next_at: Option<Time>,
    pub status: Option<i32>,
    pub error: Option<String>,
}

/// Which deliveries to take for sending.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    pub now: Time,
    /// No other replica takes the deliveries until this time.
    pub until: Time,
    /// Targets that are busy and get no further deliveries now.
    pub busy: &'a [String],
    pub per_target: i64,
    pub limit: i64,
}

/// A delivery must match all given conditions.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    pub endpoint_id: String,
    pub task_id: Option<String>,
    pub state: Option<DeliveryState>,
}

#[async_trait]
pub trait Webhooks: Send + Sync {
    /// False when the id is taken.
    async fn create_endpoint(&self, endpoint: &Endpoint) -> Result<bool, Error>;

    async fn endpoint(&self, id: &str) -> Result<Option<Endpoint>, Error>;

    /// Endpoints by id, after this one.
    async fn endpoints(&self, after: Option<&str>, limit: i64) -> Result<Vec<Endpoint>, Error>;

    /// Writes the endpoint as version + 1, if the row still has its version. Pending deliveries go to the new URL.
    async fn edit_endpoint(&self, endpoint: &Endpoint, target: &str) -> Result<bool, Error>;

    /// Deletes an endpoint with its deliveries. False when it does not exist.
    async fn delete_endpoint(&self, id: &str) -> Result<bool, Error>;

    /// The feed position up to which deliveries were made.
    async fn noticed(&self) -> Result<i64, Error>;

    /// Whether any task in the ledger has webhooks from its own submission.
    async fn has_wishes(&self) -> Result<bool, Error>;

    /// Complete tasks, by number.
    async fn subjects(&self, task_nos: &[i64]) -> Result<Vec<Task>, Error>;

    /// Moves the position and writes the deliveries. False when another replica moved it: then nothing is written.
    async fn notice(&self, from: i64, to: i64, deliveries: &[NewDelivery]) -> Result<bool, Error>;

    /// Takes deliveries that are due, oldest first, and counts the try that follows.
    async fn claim_deliveries(&self, claim: &Claim<'_>) -> Result<Vec<Delivery>, Error>;

    async fn settle_delivery(&self, tried: &Tried) -> Result<(), Error>;

    /// When the next delivery is due.
    async fn next_delivery(&self) -> Result<Option<Time>, Error>;

    /// Newest first.
    async fn deliveries(&self, filter: &DeliveryFilter, page: &Page) -> Result<(Vec<Delivery>, Option<Cursor>), Error>;

    /// Sends a delivery again, whatever its state. `None` when this endpoint has no such delivery.
    async fn resend(&self, endpoint_id: &str, id: &str, now: Time, give_up_at: Time)
    -> Result<Option<Delivery>, Error>;

    /// Removes up to `limit` settled deliveries made before `before`; returns how many.
    async fn prune_deliveries(&self, before: Time, limit: i64) -> Result<i64, Error>;
}

/// Plain columns of `webhook_delivery`, by name; both adapters read them.
macro_rules! delivery_columns {
    () => {
        "delivery_no, delivery_id, endpoint_id, task_id, task_name, seq, kind, url, target, payload, state, attempts, created_at, \
         give_up_at, next_at, last_at, last_status, last_error, delivered_at"
    };
}
pub(super) use delivery_columns;

macro_rules! read_delivery {
    ($row:expr) => {{
        let row = $row;
        let no: i64 = row.try_get("delivery_no")?;
        let state: String = row.try_get("state")?;
        let time = |at: Option<i64>| at.map(::runtime::clock::Time);
        Ok::<_, $crate::Error>($crate::Delivery {
            no,
            id: row.try_get("delivery_id")?,
            endpoint_id: row.try_get("endpoint_id")?,
            task_id: row.try_get("task_id")?,
            task_name: row.try_get("task_name")?,
            seq: row.try_get("seq")?,
            kind: row.try_get("kind")?,
            url: row.try_get("url")?,
            target: row.try_get("target")?,
            payload: row.try_get("payload")?,
            state: $crate::DeliveryState::parse(&state).ok_or_else(|| $crate::Error::Corrupt {
                table: "webhook_delivery",
                column: "state",
                row: no.to_string(),
            })?,
            attempts: row.try_get("attempts")?,
            created_at: ::runtime::clock::Time(row.try_get("created_at")?),
            give_up_at: ::runtime::clock::Time(row.try_get("give_up_at")?),
            next_at: time(row.try_get("next_at")?),
            last_at: time(row.try_get("last_at")?),
            last_status: row.try_get("last_status")?,
            last_error: row.try_get("last_error")?,
            delivered_at: time(row.try_get("delivered_at")?),
        })
    }};
}
pub(super) use read_delivery;

macro_rules! endpoint_columns {
    () => {
        "endpoint_id, version, enabled, disabled_reason, secret, old_secret, old_until, created_at, updated_at, document"
    };
}
pub(super) use endpoint_columns;

macro_rules! read_endpoint {
    ($row:expr) => {{
        let row = $row;
        let id: String = row.try_get("endpoint_id")?;
        let old_secret: Option<String> = row.try_get("old_secret")?;
        let old_until: Option<i64> = row.try_get("old_until")?;
        let document: String = row.try_get("document")?;
        Ok::<_, $crate::Error>($crate::Endpoint {
            version: row.try_get("version")?,
            enabled: row.try_get("enabled")?,
            disabled_reason: row.try_get("disabled_reason")?,
            secret: row.try_get("secret")?,
            old_secret: old_secret.zip(old_until.map(::runtime::clock::Time)),
            created_at: ::runtime::clock::Time(row.try_get("created_at")?),
            updated_at: ::runtime::clock::Time(row.try_get("updated_at")?),
            document: serde_json::from_str(&document).map_err(|_| $crate::Error::Corrupt {
                table: "webhook_endpoint",
                column: "document",
                row: id.clone(),
            })?,
            id,
        })
    }};
}
pub(super) use read_endpoint;

/// The endpoint's document as it is stored.
pub(super) fn document_text(endpoint: &Endpoint) -> String {
    serde_json::to_string(&endpoint.document).expect("a document is JSON")
}

/// Cuts a list that was read one row longer than the page.
pub(super) fn page_of(mut found: Vec<Delivery>, page: &Page) -> (Vec<Delivery>, Option<Cursor>) {
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| Cursor(last.no));
    (found, next)
}
