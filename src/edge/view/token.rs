//! Tokens and inboxes as the API shows them.

use serde::Serialize;
use utoipa::ToSchema;

use ledger::Token;
use runtime::clock::Time;

/// A token, without itself: only its hash is kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenView {
    pub id: String,
    #[schema(example = "ci")]
    pub name: String,
    /// `valid`, `expired` or `revoked`.
    #[schema(value_type = String, example = "valid")]
    pub state: &'static str,
    /// `submit`, `read`, `control`, `admin`.
    #[schema(value_type = Vec<String>, example = json!(["submit", "read"]))]
    pub scopes: Vec<&'static str>,
    /// Patterns of the tasks that it is limited to; empty without a limit.
    pub tasks: Vec<String>,
    pub namespace: String,
    pub rate_limit: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Time>,
    /// Written now and then, not with every request.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Time>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenList)]
pub struct TokenListView {
    pub tokens: Vec<TokenView>,
}

/// A database whose transactions make tasks.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Inbox)]
pub struct InboxView {
    /// Its address without a password.
    #[schema(example = "postgres://shop:***@db/shop")]
    pub name: String,
    /// It could not be read at the last look; null while it answers.
    pub trouble: Option<String>,
    /// Calls that are committed and no tasks yet; null while that is not known.
    pub waiting: Option<i64>,
    /// Age of the oldest of them.
    pub oldest_seconds: Option<f64>,
    /// How often it is looked at when nothing is heard of it.
    pub poll_seconds: f64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InboxList)]
pub struct InboxListView {
    pub inboxes: Vec<InboxView>,
}

impl TokenView {
    pub fn of(token: Token, now: Time) -> Self {
        let state = match token.revoked_at {
            Some(_) => "revoked",
            None if token.is_valid_at(now) => "valid",
            None => "expired",
        };
        Self {
            state,
            scopes: token.scopes.iter().map(|scope| scope.as_str()).collect(),
            namespace: token.namespace.unwrap_or_else(|| token.name.clone()),
            id: token.id,
            name: token.name,
            tasks: token.tasks,
            rate_limit: token.rate,
            created_at: token.created_at,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
            last_used_at: token.last_used_at,
        }
    }
}
