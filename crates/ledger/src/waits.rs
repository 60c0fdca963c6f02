//! Waiting steps in the ledger: who submitted them, until when they wait, the answer, and whether the next step was sent.
//!
//! Invariants: only the first end of a wait counts ([`Waits::end_wait`]); an ended wait is settled once (its next step is sent), by the
//! holder of its claim ([`Waits::claim_waits`]). The step's message is stored as it arrived, so the next step can be sent even if the broker
//! has lost its data.

use async_trait::async_trait;

use super::Error;
use celery::task::pause::OnTimeout;
use celery::task::{Json, TaskId};
use runtime::clock::Time;

/// A new waiting step.
#[derive(Debug, Clone)]
pub struct NewWait {
    pub task_id: TaskId,
    /// Whether it is a sleep, which ends by itself and takes no answer.
    pub is_sleep: bool,
    pub name: String,
    pub since: Time,
    pub expires_at: Time,
    pub schema: Option<Json>,
    pub on_timeout: OnTimeout,
    /// The result of the previous step.
    pub input: Option<Json>,
    /// The id of the token that submitted the step.
    pub token: Option<String>,
    /// The message as it arrived.
    pub headers: String,
    pub body: String,
}

/// The state of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitState {
    Open,
    Answered,
    Refused,
    /// There was no answer in time; for a sleep, its time has passed.
    Expired,
    Revoked,
}

impl WaitState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Open, Self::Answered, Self::Refused, Self::Expired, Self::Revoked];
        all.into_iter().find(|state| state.as_str() == text)
    }
}

/// A wait with its state.
#[derive(Debug, Clone)]
pub struct Wait {
    pub new: NewWait,
    pub state: WaitState,
    /// The answer, or the reason (a JSON string) of a refusal.
    pub answer: Option<Json>,
    pub ended_at: Option<Time>,
}

/// The result of an attempt to end a wait.
#[derive(Debug, Clone)]
pub struct EndedWait {
    /// Whether this call ended it; else it had ended before, and `wait` has its end.
    pub is_first: bool,
    pub wait: Wait,
}

#[async_trait]
pub trait Waits: Send + Sync {
    /// Inserts new waits. Known ones are not changed.
    async fn begin_waits(&self, waits: &[NewWait]) -> Result<(), Error>;

    async fn wait(&self, id: &TaskId) -> Result<Option<Wait>, Error>;

    /// Open waits that take an answer, oldest first, after this position; only those of this token, or of all.
    async fn open_waits(
        &self,
        after: Option<(Time, &TaskId)>,
        token: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Wait>, Error>;

    /// Ends an open wait. `None` when there is none with this id.
    async fn end_wait(
        &self,
        id: &TaskId,
        state: WaitState,
        answer: Option<&Json>,
        at: Time,
    ) -> Result<Option<EndedWait>, Error>;

    /// Ends waits whose timeout has passed. Returns how many.
    async fn expire_waits(&self, now: Time) -> Result<u64, Error>;

    /// When the next open wait times out.
    async fn next_expiry(&self) -> Result<Option<Time>, Error>;

    /// Claims ended waits that are not settled yet, exclusively for `holder` until `until`.
    async fn claim_waits(&self, holder: &str, now: Time, until: Time, limit: i64) -> Result<Vec<Wait>, Error>;

    /// Marks a wait as settled, because the next step was sent.
    async fn settle_wait(&self, id: &TaskId) -> Result<(), Error>;

    /// Removes settled waits that ended before this time. Returns how many.
    async fn forget_waits(&self, before: Time, limit: i64) -> Result<u64, Error>;

    /// A secret that all replicas share; `fresh` becomes the secret if there is none of this name yet.
    async fn shared_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>, Error>;
}

/// Columns of `wait` as both databases give them.
pub(crate) struct WaitRow {
    pub task_id: String,
    pub is_sleep: bool,
    pub name: String,
    pub since: i64,
    pub expires_at: i64,
    pub schema: Option<String>,
    pub on_timeout: String,
    pub input: Option<String>,
    pub token: Option<String>,
    pub headers: String,
    pub body: String,
    pub state: String,
    pub answer: Option<String>,
    pub ended_at: Option<i64>,
}

macro_rules! wait_columns {
    () => {
        "task_id, is_sleep, name, since, expires_at, schema, on_timeout, input, token, headers, body, state, answer, ended_at"
    };
}
pub(crate) use wait_columns;

macro_rules! read_wait_row {
    ($row:expr) => {
        $crate::waits::read_wait_row!($row; task_id, is_sleep, name, since, expires_at, schema, on_timeout, input, token,
            headers, body, state, answer, ended_at)
    };
    ($row:expr; $($column:ident),+) => {
        $crate::waits::WaitRow { $($column: $row.try_get(stringify!($column))?),+ }
    };
}
pub(crate) use read_wait_row;

impl TryFrom<WaitRow> for Wait {
    type Error = Error;

    fn try_from(row: WaitRow) -> Result<Self, Error> {
        let id = row.task_id.clone();
        let corrupt = |column| Error::Corrupt { table: "wait", column, row: id.clone() };
        let json = |text: Option<String>, column| {
            text.map(|text| celery::task::json::verbatim(text).map_err(|_| corrupt(column))).transpose()
        };
        Ok(Self {
            new: NewWait {
                task_id: TaskId::parse(&row.task_id).map_err(|_| corrupt("task_id"))?,
                is_sleep: row.is_sleep,
                name: row.name,
                since: Time(row.since),
                expires_at: Time(row.expires_at),
                schema: json(row.schema, "schema")?,
                on_timeout: OnTimeout::parse(&row.on_timeout).ok_or_else(|| corrupt("on_timeout"))?,
                input: json(row.input, "input")?,
                token: row.token,
                headers: row.headers,
                body: row.body,
            },
            state: WaitState::parse(&row.state).ok_or_else(|| corrupt("state"))?,
            answer: json(row.answer, "answer")?,
            ended_at: row.ended_at.map(Time),
        })
    }
}
