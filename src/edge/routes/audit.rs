//! `/v1/audit`: who did what.

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::submission::{json_response, text};
use crate::edge::cursor;
use crate::edge::extract::page_query;
use crate::edge::problem::{Problem, ProblemDocument};
use crate::edge::state::Edge;
use crate::edge::view::{ActListView, ActView};
use ledger::Cursor;

/// Who did what, newest first
///
/// A row for each call that controls something, whether it was carried out or refused. The rows are chained by hashes;
/// `taskgate audit verify` holds the chain against them.
#[utoipa::path(
    get, path = "/v1/audit", tag = "operation", operation_id = "list_audit",
    params(
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = ActListView),
        (status = 400, description = "A parameter does not fit", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn list_audit(State(edge): State<Edge>, OriginalUri(uri): OriginalUri) -> Result<Response, Problem> {
    let (acts, next) = edge.gateway.acts(&page_query(&uri)?).await?;
    let next = next.map(|no| cursor::write(Cursor(no)));
    let view = ActListView { audit: acts.into_iter().map(ActView::from).collect(), next: next.clone() };
    let mut response = json_response(StatusCode::OK, text(&view));
    super::tasks::link_next(&mut response, &uri, next.as_deref());
    Ok(response)
}
