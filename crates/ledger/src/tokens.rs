//! Tokens in the ledger, by their hash, and tickets for streams.
//!
//! The tokens themselves are not stored, so a copy of the ledger gives no access.

use std::str::FromStr;

use async_trait::async_trait;

use super::Error;
use runtime::clock::Time;

/// SHA-256 of a secret of 256 random bits, which cannot be guessed, so neither a salt nor a slow hash is needed.
pub type SecretHash = [u8; 32];

/// What a token permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Submit tasks.
    Submit,
    /// See tasks, results, events, queues, workers, statistics.
    Read,
    /// Revoke, retry, pause, purge; write schedules; send commands to workers.
    Control,
    /// All of these, and operations on the gateway itself.
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
    /// Name for display; unique among valid tokens.
    pub name: String,
    pub hash: SecretHash,
    pub scopes: Vec<Scope>,
    /// Patterns of task names (`tasks.crawl.*`): the holder submits, sees and controls only tasks of these names. Empty: no limit.
    pub tasks: Vec<String>,
    /// The namespace of its keys: tokens of one namespace share keys of `limits`, `unique` and `Idempotency-Key`. `None`: its own name.
    pub namespace: Option<String>,
    /// The person who logged in, if this is a session of the dashboard. `None`: it was created by hand.
    pub person: Option<String>,
    /// Its rate limit (`100/m`). `None`: the configured default.
    pub rate: Option<String>,
    pub created_at: Time,
    pub expires_at: Option<Time>,
    pub revoked_at: Option<Time>,
    /// Updated periodically, not with every request.
    pub last_used_at: Option<Time>,
}

impl Token {
    pub fn is_valid_at(&self, now: Time) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

#[async_trait]
pub trait Tokens: Send + Sync {
    /// Creates a token. False when a valid token has this name; an expired one is replaced.
    async fn create_token(&self, token: &Token) -> Result<bool, Error>;

    /// Tokens that were created by hand, also revoked ones, newest first.
    async fn tokens(&self, limit: i64) -> Result<Vec<Token>, Error>;

    /// The token of this id, if it was created by hand.
    async fn token(&self, id: &str) -> Result<Option<Token>, Error>;

    /// Whether any token is valid now.
    async fn has_valid_token(&self, now: Time) -> Result<bool, Error>;

    /// The tokens with these hashes, also revoked ones.
    async fn tokens_by_hash(&self, hashes: &[SecretHash]) -> Result<Vec<Token>, Error>;

    /// A version that grows with every created or revoked token, in the same transaction.
    async fn token_version(&self) -> Result<i64, Error>;

    /// Revokes a token by id or name and returns it; `None` when there is no valid token of this id or name.
    async fn revoke_token(&self, id_or_name: &str, at: Time) -> Result<Option<Token>, Error>;

    /// Records times of last use; an earlier time does not replace a later one.
    async fn note_token_uses(&self, uses: &[(String, Time)]) -> Result<(), Error>;

    /// Stores a ticket for a token, and deletes tickets that have expired `now`.
    async fn add_ticket(
        &self,
        ticket: &SecretHash,
        token: &SecretHash,
        now: Time,
        expires_at: Time,
    ) -> Result<(), Error>;

    /// Redeems and deletes a ticket; returns its token. `None` when it is unknown, was redeemed before, or has expired.
    async fn take_ticket(&self, ticket: &SecretHash, now: Time) -> Result<Option<SecretHash>, Error>;
}

/// The scopes in the form of the column.
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

    /// Ignores unknown scopes, which come from a later release: they grant nothing here.
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
