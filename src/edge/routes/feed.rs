//! `GET /v1/events`: the events of all tasks, in the order of the ledger's feed.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use futures_util::StreamExt;

use super::events::redacted;
use crate::edge::answer::{Described, Query, Refused};
use crate::edge::extract::{Caller, LastEventId, feed_filter};
use crate::edge::sse;
use crate::edge::state::Edge;
use crate::edge::view::EventView;

/// Events of all tasks
///
/// Server-sent events of all tasks that match the filters: `state`, `progress` and `end`. Ids are positions in the feed; with
/// `Last-Event-ID` the stream continues exactly there, without it the stream begins now.
#[utoipa::path(
    get, path = "/v1/events", tag = "tasks", operation_id = "watch_all",
    params(
        ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event received"),
        ("status" = Option<Vec<String>>, Query, description = "As in the list of tasks; likewise the other filters"),
        ("phase" = Option<Vec<String>>, Query),
        ("task" = Option<Vec<String>>, Query),
        ("queue" = Option<Vec<String>>, Query),
        ("worker" = Option<Vec<String>>, Query),
        ("label" = Option<Vec<String>>, Query, description = "`key:value`"),
        ("root_id" = Option<String>, Query),
        ("group_id" = Option<String>, Query),
        ("schedule" = Option<String>, Query),
        ("from" = Option<String>, Query, description = "Of tasks submitted at or after (RFC 3339)"),
        ("to" = Option<String>, Query, description = "Of tasks submitted before (RFC 3339)"),
        ("q" = Option<String>, Query),
        ("argument" = Option<String>, Query),
    ),
    responses(
        (status = 200, description = "The stream", content((String = "text/event-stream"))),
    )
)]
pub async fn watch_all(
    State(edge): State<Edge>,
    caller: Caller,
    LastEventId(after): LastEventId,
    OriginalUri(uri): OriginalUri,
) -> Result<Described, Refused<(Query, ledger::Error)>> {
    let filter = caller.narrow(feed_filter(&uri)?);
    let place = sse::admit(&edge, &caller)?;
    let catalog = Arc::clone(&edge.catalog);
    let frames = edge.gateway.feed(filter, after).await?.map(move |event| {
        let view = EventView::named(&event, redacted(&catalog, event.name.as_deref()));
        sse::frame(event.feed, view.kind(), &view)
    });
    Ok(Described(sse::answer(&edge, &caller, place, frames)))
}
