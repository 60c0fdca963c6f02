//! Path parameters: a task's or group's id, and the values of a catalog endpoint.

use std::time::Duration;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::usecase::read::Found;
use celery::task::TaskId;

/// `{id}` of a path: the id of a task or of a group (their texts obey the same rules).
#[derive(Debug)]
pub struct IdPath(pub TaskId);

/// All parameters of a path, in order, percent-decoded.
#[derive(Debug)]
pub struct PathValues(pub Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for PathValues {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::new(&slugs::INVALID_PATH).detail(error.body_text()))?;
        Ok(Self(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }
}

impl FromRequestParts<Edge> for IdPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        let PathValues(values) = PathValues::from_request_parts(parts, edge).await?;
        let id = values.into_iter().find(|(name, _)| name == "id").map(|(_, value)| value).unwrap_or_default();
        let id = TaskId::parse(id).map_err(|error| {
            Problem::new(&slugs::INVALID_PATH).detail(format!("the id {error}")).error("id", error.to_string())
        })?;
        Ok(Self(as_kept(edge, id).await?))
    }
}

/// Finds the stored spelling of an id: a UUID in capitals or braces is the same task, unless a task was stored under that spelling.
async fn as_kept(edge: &Edge, id: TaskId) -> Result<TaskId, Problem> {
    let Some(usual) = id.respelled() else { return Ok(id) };
    match edge.gateway.find(id.as_str(), Duration::ZERO).await? {
        Found::Unknown => Ok(usual),
        Found::Task(_) | Found::Group(_) | Found::Pruned(_) => Ok(id),
    }
}
