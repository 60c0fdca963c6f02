//! The part of the ledger that says who may call: tokens by their hash, and tickets for streams.
//!
//! A token itself is nowhere in it, so a copy of the ledger lets nobody in.

use std::str::FromStr;

use async_trait::async_trait;

use super::Error;
use runtime::clock::Time;

/// SHA-256 of a secret of 256 random bits: nothing to guess, so no salt and no slow hash is needed.
pub type SecretHash = [u8; 32];

/// What a token lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Submit tasks.
    Submit,
    /// See tasks, results, events, queues, workers, figures.
    Read,
    /// Revoke, retry, pause, purge; write schedules; tell workers.
    Control,
    /// All of these, and what concerns the gateway itself.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 4] = [Self::Submit, Self::Read, Self::Control, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Control => "control",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// A UUID.
    pub id: String,
    /// For people; no two tokens that are not revoked share one.
    pub name: String,
    pub hash: SecretHash,
    pub scopes: Vec<Scope>,
    /// Patterns of task names (`tasks.crawl.*`): the holder submits, sees and controls only tasks of these names. Empty: no limit.
    pub tasks: Vec<String>,
    /// Whose words its keys are: tokens of one namespace share those of `limits`, `unique` and `Idempotency-Key`. `None`: its own, by
    /// its name.
    pub namespace: Option<String>,
    /// Who logged in, when this is a session of the dashboard. `None`: it was made by hand.
    pub person: Option<String>,
    /// Requests, as a task's rate limit (`100/m`). `None`: what the configuration says for all.
    pub rate: Option<String>,
    pub created_at: Time,
    pub expires_at: Option<Time>,
    pub revoked_at: Option<Time>,
    /// Written now and then, not with every request.
    pub last_used_at: Option<Time>,
}

impl Token {
    pub fn is_valid_at(&self, now: Time) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

#[async_trait]
pub trait Tokens: Send + Sync {
    /// False when a token of this name is valid; one of this name that has expired makes room.
    async fn create_token(&self, token: &Token) -> Result<bool, Error>;

    /// All of them, the revoked ones too, newest first.
    async fn tokens(&self) -> Result<Vec<Token>, Error>;

    /// Those of these hashes, the revoked ones too.
    async fn tokens_by_hash(&self, hashes: &[SecretHash]) -> Result<Vec<Token>, Error>;

    /// Grows with every token that is created or revoked, in the same transaction.
    async fn token_version(&self) -> Result<i64, Error>;

    /// Revokes by id or name; answers with the token, `None` when no token of this id or name is left to revoke.
    async fn revoke_token(&self, id_or_name: &str, at: Time) -> Result<Option<Token>, Error>;

    /// Notes the last uses; an earlier one does not replace a later one.
    async fn note_token_uses(&self, uses: &[(String, Time)]) -> Result<(), Error>;

    /// Keeps a ticket that stands for a token, and forgets those that have expired `now`.
    async fn add_ticket(
        &self,
        ticket: &SecretHash,
        token: &SecretHash,
        now: Time,
        expires_at: Time,
    ) -> Result<(), Error>;

    /// Takes a ticket, which is gone with this; answers with the token that it stands for. `None` when it is unknown, was
    /// taken before, or has expired.
    async fn take_ticket(&self, ticket: &SecretHash, now: Time) -> Result<Option<SecretHash>, Error>;
}

/// Scopes as a column has them.
pub(super) fn scopes_text(token: &Token) -> String {
    let names: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
    serde_json::to_string(&names).expect("a list of texts is JSON")
}

pub(super) fn tasks_text(token: &Token) -> String {
    serde_json::to_string(&token.tasks).expect("a list of texts is JSON")
}

/// Plain columns of `token`.
pub(super) struct TokenRow {
    pub token_id: String,
    pub name: String,
    pub hash: Vec<u8>,
    pub scopes: String,
    pub tasks: String,
    pub rate: Option<String>,
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub revoked_at: Option<i64>,
    pub last_used_at: Option<i64>,
    pub namespace: Option<String>,
    pub person: Option<String>,
}

/// Fills a [`TokenRow`] from a database row that has these columns by name.
macro_rules! read_token_row {
    ($row:expr) => {
        $crate::tokens::read_token_row!($row; token_id, name, hash, scopes, tasks, rate, created_at, expires_at,
            revoked_at, last_used_at, namespace, person)
    };
    ($row:expr; $($column:ident),+) => {
        $crate::tokens::TokenRow { $($column: $row.try_get(stringify!($column))?),+ }
    };
}
pub(super) use read_token_row;

impl TryFrom<TokenRow> for Token {
    type Error = Error;

    /// A scope that this release does not know comes from a later one: it grants nothing here.
    fn try_from(row: TokenRow) -> Result<Self, Error> {
        let corrupt = |column| Error::Corrupt { table: "token", column, row: row.token_id.clone() };
        let scopes: Vec<String> = serde_json::from_str(&row.scopes).map_err(|_| corrupt("scopes"))?;
        Ok(Self {
            hash: row.hash.as_slice().try_into().map_err(|_| corrupt("hash"))?,
            scopes: scopes.iter().filter_map(|scope| scope.parse().ok()).collect(),
            tasks: serde_json::from_str(&row.tasks).map_err(|_| corrupt("tasks"))?,
            id: row.token_id,
            name: row.name,
            rate: row.rate,
            namespace: row.namespace,
            person: row.person,
            created_at: Time(row.created_at),
            expires_at: row.expires_at.map(Time),
            revoked_at: row.revoked_at.map(Time),
            last_used_at: row.last_used_at.map(Time),
        })
    }
}
