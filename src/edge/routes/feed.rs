//! `GET /v1/events`: everything that happens, in the order of the ledger's feed.

use std::time::Duration;

use async_stream::stream;
use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use futures_util::Stream;

use super::events::redacted;
use crate::edge::extract::{Caller, LastEventId, feed_filter};
use crate::edge::problem::{Problem, ProblemDocument};
use crate::edge::sse;
use crate::edge::state::Edge;
use crate::edge::view::EventView;
use ledger::Filter;
use runtime::lifecycle::Backoff;

/// Events read from the ledger at a time: bounds what waits for a slow reader.
const PAGE: i64 = 200;
/// Without a signal the feed is looked at this often: the bound on what a lost signal can cost.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const LEDGER_PAUSE: Duration = Duration::from_secs(2);

/// Everything that happens
///
/// Server-sent events of all tasks that the filters let through: `state`, `progress` and `end`. Ids are positions in the feed;
/// with `Last-Event-ID` the stream goes on exactly there, without one it begins now.
#[utoipa::path(
    get, path = "/v1/events", tag = "tasks", operation_id = "watch_all",
    params(
        ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event received"),
        ("status" = Option<Vec<String>>, Query, description = "As for the list of tasks; so are the other filters"),
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
    ),
    responses(
        (status = 200, description = "The stream", content((String = "text/event-stream"))),
        (status = 400, description = "A parameter does not fit", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn watch_all(
    State(edge): State<Edge>,
    caller: Caller,
    LastEventId(after): LastEventId,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let filter = caller.narrow(feed_filter(&uri)?);
    let place = sse::admit(&edge, &caller)?;
    let after = match after {
        Some(after) => after,
        None => edge.gateway.ledger.feed_end().await?,
    };
    let frames = frames(edge.clone(), filter, after);
    Ok(sse::answer(&edge, &caller, place, frames))
}

/// While the ledger is away the stream is silent, and goes on afterwards.
fn frames(edge: Edge, filter: Filter, mut after: i64) -> impl Stream<Item = Bytes> {
    stream! {
        let mut commits = edge.gateway.hub.watch_all();
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        loop {
            // What was committed until now is read below.
            commits = commits.resubscribe();
            match edge.gateway.ledger.feed(after, &filter, PAGE).await {
                Ok((events, end)) => {
                    backoff.reset();
                    let more = end > after;
                    for event in &events {
                        let view = EventView::named(event, redacted(&edge.catalog, event.name.as_deref()));
                        yield sse::frame(event.feed, view.kind(), &view);
                    }
                    after = end.max(after);
                    if more {
                        continue;
                    }
                }
                Err(_) => {
                    tokio::time::sleep(backoff.pause()).await;
                    continue;
                }
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, commits.recv()).await;
        }
    }
}
