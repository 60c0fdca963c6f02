//! `/v1/queues`: queues with their messages and workers; pause, resume, purge.

use axum::extract::{OriginalUri, State};

use super::tasks::linked;
use crate::edge::answer::{Answer, Body, Page, Query, Refused};
use crate::edge::cursor;
use crate::edge::extract::{JsonText, PathValues, messages_query, path_value, wishes};
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::edge::view::control::{MessageListView, MessageView, PurgedView, QueueChangeView, QueueListView, QueueView};
use crate::usecase::queues::QueueError;
use celery::task::QueueName;
use ledger::Cursor;
use runtime::clock;

/// All queues
///
/// Queues from the configuration, queues of unfinished tasks, and queues that online workers serve.
#[utoipa::path(get, path = "/v1/queues", tag = "control", operation_id = "list_queues")]
pub async fn list_queues(State(edge): State<Edge>) -> Result<Answer<QueueListView>, Refused<QueueError>> {
    let queues = edge.gateway.queues().await?;
    let now = clock::now();
    let view = QueueListView { queues: queues.into_iter().map(|queue| QueueView::of(queue, now)).collect() };
    Ok(Answer::of(&view))
}

/// The messages in a queue
///
/// Decoded, in the order in which they will be served; nothing is removed.
#[utoipa::path(
    get, path = "/v1/queues/{name}/messages", tag = "control", operation_id = "list_messages",
    params(
        ("name" = String, Path, description = "The queue"),
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
)]
pub async fn list_messages(
    State(edge): State<Edge>,
    values: PathValues,
    OriginalUri(uri): OriginalUri,
) -> Result<Page<MessageListView>, Refused<(Query, QueueError)>> {
    let queue = queue(&values)?;
    let (skip, limit) = messages_query(&uri)?;
    let mut found = edge.gateway.queue_messages(&queue, skip, limit).await?;
    // A short page may have been cut by size, so only an empty page is the last.
    let next = (!found.is_empty()).then(|| skip + i64::try_from(found.len()).unwrap_or(0));
    let next = match next {
        Some(after) if edge.gateway.queue_messages(&queue, after, 1).await?.is_empty() => None,
        next => next.map(|after| cursor::write(Cursor(after))),
    };
    let redact = |task: &str| edge.catalog.defaults_for(task).redact;
    let messages = found.drain(..).map(|message| MessageView::of(message, &redact)).collect();
    let view = MessageListView { messages, next };
    Ok(linked(Page::of(&view), &uri, view.next.as_deref()))
}

/// Pause a queue
///
/// Its tasks are held in the ledger, and the workers that serve it are told to stop consuming it, also those that come online
/// later. Tasks that a worker has reserved already still run.
#[utoipa::path(
    post, path = "/v1/queues/{name}/pause", tag = "control", operation_id = "pause_queue",
    params(("name" = String, Path, description = "The queue")),
)]
pub async fn pause_queue(
    State(edge): State<Edge>,
    values: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<QueueChangeView>, Refused<(Body, QueueError)>> {
    wishes(&body, &[], |_, _| ())?;
    let queue = queue(&values)?;
    let replies = edge.gateway.pause(&queue).await?;
    let view = QueueChangeView { queue: queue.to_string(), paused: true, replies };
    Ok(Answer::of(&view))
}

/// Resume a queue
///
/// The workers consume it again, and held tasks are published in the order of their acceptance.
#[utoipa::path(
    post, path = "/v1/queues/{name}/resume", tag = "control", operation_id = "resume_queue",
    params(("name" = String, Path, description = "The queue")),
)]
pub async fn resume_queue(
    State(edge): State<Edge>,
    values: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<QueueChangeView>, Refused<(Body, QueueError)>> {
    wishes(&body, &[], |_, _| ())?;
    let queue = queue(&values)?;
    let replies = edge.gateway.resume(&queue).await?;
    let view = QueueChangeView { queue: queue.to_string(), paused: false, replies };
    Ok(Answer::of(&view))
}

/// Purge a queue
///
/// Removes all messages that wait in it now; their tasks end as `revoked`. Held tasks stay.
#[utoipa::path(
    post, path = "/v1/queues/{name}/purge", tag = "control", operation_id = "purge_queue",
    params(("name" = String, Path, description = "The queue")),
)]
pub async fn purge_queue(
    State(edge): State<Edge>,
    values: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<PurgedView>, Refused<(Body, QueueError)>> {
    wishes(&body, &[], |_, _| ())?;
    let queue = queue(&values)?;
    let purged = edge.gateway.purge(&queue).await?;
    Ok(Answer::of(&PurgedView { queue: queue.to_string(), purged }))
}

fn queue(values: &PathValues) -> Result<QueueName, Problem> {
    path_value(values, "name", |text| QueueName::parse(text))
}
