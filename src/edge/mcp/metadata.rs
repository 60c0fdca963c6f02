//! Who gives out what `/mcp` wants to see (RFC 9728), where people log in with an OpenID provider.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;

/// Below it the path of the resource may stand.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
const OF_MCP: &str = "/.well-known/oauth-protected-resource/mcp";

pub(super) fn router() -> Router<Edge> {
    Router::new().route(WELL_KNOWN, get(metadata)).route(OF_MCP, get(metadata))
}

async fn metadata(State(edge): State<Edge>) -> Result<Response, Problem> {
    let provider = edge.provider.as_ref().ok_or_else(|| Problem::new(&slugs::ROUTE_NOT_FOUND))?;
    let document = json!({
        "resource": provider.address("/mcp"),
        "resource_name": "taskgate",
        "authorization_servers": [provider.issuer()],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["submit", "read", "control", "admin"],
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response())
}

/// A refusal that says where the metadata is.
pub(super) fn challenged(edge: &Edge, problem: Problem) -> Problem {
    match &edge.provider {
        Some(provider) => problem.described_at(&provider.address(OF_MCP)),
        None => problem,
    }
}
