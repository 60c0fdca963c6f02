//! Who calls, as the handlers need it: what to show, what to count it on.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::config::Auth;
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::guard::tokens::{Identity, Visibility};
use crate::usecase::read::Found;
use celery::task::TaskId;
use ledger::Filter;

/// The caller whom `authenticate` let in.
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

    /// As the audit names it.
    pub fn shown(&self) -> String {
        self.0.shown()
    }

    /// The id of its token.
    pub fn id(&self) -> Option<String> {
        self.0.id().map(str::to_owned)
    }

    /// Whose words its keys are.
    pub fn namespace(&self) -> Option<&str> {
        self.0.namespace()
    }

    /// A scope of `Idempotency-Key`s: nobody meets the keys of another namespace. Who may name any has those of their token.
    pub fn keys(&self, kind: &str) -> String {
        match (self.0.namespace(), self.0.id()) {
            (Some(namespace), _) => format!("{kind}@/{namespace}"),
            (None, Some(id)) => format!("{kind}@{id}"),
            (None, None) => kind.to_owned(),
        }
    }

    /// The filter, of what the caller sees.
    pub fn narrow(&self, filter: Filter) -> Filter {
        Filter { task_patterns: self.visibility().patterns(), ..filter }
    }

    /// # Errors
    /// As for an id that was never seen, when the task is not the caller's.
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
