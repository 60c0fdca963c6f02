//! The caller, for handlers: its display name, its namespace, its visibility.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::config::Auth;
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::guard::namespace;
use crate::guard::tokens::{Identity, Visibility};
use crate::usecase::read::Found;
use crate::usecase::submit::SubmitError;
use celery::task::TaskId;
use ledger::Filter;

/// The caller that `authenticate` has identified.
#[derive(Debug, Clone)]
pub struct Caller(pub Identity);

impl FromRequestParts<Edge> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        match parts.extensions.get::<Identity>() {
            Some(identity) => Ok(Self(identity.clone())),
            None if edge.auth == Auth::None => Ok(Self(Identity::anybody())),
            None => Err(Problem::new(&slugs::INTERNAL).detail("nobody has looked who calls")),
        }
    }
}

impl Caller {
    pub fn visibility(&self) -> Visibility {
        self.0.visibility()
    }

    /// The caller's name in the audit log.
    pub fn shown(&self) -> String {
        self.0.shown()
    }

    /// The id of its token.
    pub fn id(&self) -> Option<String> {
        self.0.id().map(str::to_owned)
    }

    /// The namespace of its keys.
    pub fn namespace(&self) -> Option<&str> {
        self.0.namespace()
    }

    /// A refusal with the caller's keys as they gave them, without the namespace.
    pub fn in_own_words(&self, error: SubmitError) -> SubmitError {
        let own = |key: String| namespace::word(self.namespace(), &key).map(str::to_owned).unwrap_or(key);
        match error {
            SubmitError::Limited { key, retry_after } => SubmitError::Limited { key: own(key), retry_after },
            SubmitError::KeyHeld { key, holder, fought } => SubmitError::KeyHeld { key: own(key), holder, fought },
            other => other,
        }
    }

    /// The scope of its `Idempotency-Key`s: its namespace, or its token if it has none, so that callers do not share keys.
    pub fn keys(&self, kind: &str) -> String {
        match (self.0.namespace(), self.0.id()) {
            (Some(namespace), _) => format!("{kind}@/{namespace}"),
            (None, Some(id)) => format!("{kind}@{id}"),
            (None, None) => kind.to_owned(),
        }
    }

    /// The filter, limited to what the caller may see.
    pub fn narrow(&self, filter: Filter) -> Filter {
        Filter { task_patterns: self.visibility().patterns(), ..filter }
    }

    /// # Errors
    /// As for an unknown id, when the caller may not see the task.
    pub async fn must_see(&self, edge: &Edge, id: &TaskId) -> Result<(), Problem> {
        let visibility = self.visibility();
        if !visibility.is_limited() {
            return Ok(());
        }
        match edge.gateway.find_for(&visibility, id.as_str(), std::time::Duration::ZERO).await? {
            Found::Task(_) | Found::Group(_) => Ok(()),
            Found::Pruned(_) | Found::Unknown => Err(Problem::unknown(id)),
        }
    }
}
