//! `/v1/audit`: who did what.

use axum::extract::{OriginalUri, State};

use super::tasks::linked;
use crate::edge::answer::{Page, Query, Refused};
use crate::edge::cursor;
use crate::edge::extract::page_query;
use crate::edge::state::Edge;
use crate::edge::view::{ActListView, ActView};
use ledger::Cursor;

/// Who did what, newest first
///
/// A row for each control call, whether it was carried out or refused. The rows form a hash chain, which
/// `taskgate audit verify` checks.
#[utoipa::path(
    get, path = "/v1/audit", tag = "operation", operation_id = "list_audit",
    params(
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
)]
pub async fn list_audit(
    State(edge): State<Edge>,
    OriginalUri(uri): OriginalUri,
) -> Result<Page<ActListView>, Refused<(Query, ledger::Error)>> {
    let (acts, next) = edge.gateway.acts(&page_query(&uri)?).await?;
    let next = next.map(|no| cursor::write(Cursor(no)));
    let view = ActListView { audit: acts.into_iter().map(ActView::from).collect(), next: next.clone() };
    Ok(linked(Page::of(&view), &uri, next.as_deref()))
}
