//! `/v1/stats/…`: throughput, wait and run times, groups of failures.

use axum::extract::{OriginalUri, State};

use crate::edge::answer::{Answer, Query, Refused};
use crate::edge::extract::{Caller, feed_filter, queue_history_query, stats_query, worker_history_query};
use crate::edge::state::Edge;
use crate::edge::view::standings::{QueueHistoryView, WorkerHistoryView};
use crate::edge::view::stats::{FailuresView, LatencyView, OutcomesView, ThroughputView};
use crate::usecase::stats::Question;
use runtime::clock;

/// How many tasks were submitted and ended
///
/// Counts by step from the ledger's roll-ups, so they are the same at every replica and survive restarts. Minutes are kept for two
/// days; older figures are by the hour.
#[utoipa::path(
    get, path = "/v1/stats/throughput", tag = "operation", operation_id = "throughput",
    params(
        ("from" = Option<String>, Query, description = "RFC 3339; default an hour ago"),
        ("to" = Option<String>, Query, description = "RFC 3339, exclusive; default now"),
        ("step" = Option<u32>, Query, description = "Seconds, a multiple of 60; default so that there are at most 120 points"),
        ("task" = Option<Vec<String>>, Query, description = "Task names"),
        ("queue" = Option<Vec<String>>, Query),
    ),
)]
pub async fn throughput(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<ThroughputView>, Refused<(Query, ledger::Error)>> {
    let now = clock::now();
    let question = Question { visibility: caller.visibility(), ..stats_query(&uri, now)? };
    let points = edge.gateway.throughput(&question, now).await?;
    Ok(Answer::of(&ThroughputView::of(question.effective_step(now), &points)))
}

/// How long tasks waited and ran
///
/// Percentiles of started and ended tasks: by step, and by task over the whole time.
#[utoipa::path(
    get, path = "/v1/stats/latency", tag = "operation", operation_id = "latency",
    params(
        ("from" = Option<String>, Query, description = "RFC 3339; default an hour ago"),
        ("to" = Option<String>, Query, description = "RFC 3339, exclusive; default now"),
        ("step" = Option<u32>, Query, description = "Seconds, a multiple of 60"),
        ("task" = Option<Vec<String>>, Query, description = "Task names"),
        ("queue" = Option<Vec<String>>, Query),
    ),
)]
pub async fn latency(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<LatencyView>, Refused<(Query, ledger::Error)>> {
    let now = clock::now();
    let question = Question { visibility: caller.visibility(), ..stats_query(&uri, now)? };
    let points = edge.gateway.latency(&question, now).await?;
    let tasks = edge.gateway.latency_by_task(&question, now).await?;
    Ok(Answer::of(&LatencyView::of(question.effective_step(now), &points, &tasks)))
}

/// Failures, grouped
///
/// Failed and lost tasks grouped by task, error type and innermost frame, with their trend.
#[utoipa::path(
    get, path = "/v1/stats/errors", tag = "operation", operation_id = "errors",
    params(
        ("from" = Option<String>, Query, description = "RFC 3339; default an hour ago"),
        ("to" = Option<String>, Query, description = "RFC 3339, exclusive; default now"),
        ("step" = Option<u32>, Query, description = "Seconds, a multiple of 60"),
        ("task" = Option<Vec<String>>, Query, description = "Task names"),
    ),
)]
pub async fn errors(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<FailuresView>, Refused<(Query, ledger::Error)>> {
    let now = clock::now();
    let question = Question { visibility: caller.visibility(), ..stats_query(&uri, now)? };
    let groups = edge.gateway.failures(&question, now).await?;
    Ok(Answer::of(&FailuresView::of(question.effective_step(now), groups)))
}

/// How much waited in queues, and for how long
///
/// Averages of a look every 15 seconds. Without `queue` those in which something waited. RabbitMQ tells no ages.
#[utoipa::path(
    get, path = "/v1/stats/queues", tag = "operation", operation_id = "queue_history",
    params(
        ("from" = Option<String>, Query, description = "RFC 3339; default an hour ago"),
        ("to" = Option<String>, Query, description = "RFC 3339, exclusive; default now"),
        ("step" = Option<u32>, Query, description = "Seconds, a multiple of 60"),
        ("queue" = Option<Vec<String>>, Query, description = "Queues by name"),
    ),
)]
pub async fn queue_history(
    State(edge): State<Edge>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<QueueHistoryView>, Refused<(Query, ledger::Error)>> {
    let now = clock::now();
    let question = queue_history_query(&uri, now)?;
    let queues = edge.gateway.queue_history(&question, now).await?;
    Ok(Answer::of(&QueueHistoryView::of(question.effective_step(now), queues)))
}

/// How busy workers were, and how much memory they had
///
/// Averages of a look every 15 seconds at the workers that were online.
#[utoipa::path(
    get, path = "/v1/stats/workers", tag = "operation", operation_id = "worker_history",
    params(
        ("from" = Option<String>, Query, description = "RFC 3339; default an hour ago"),
        ("to" = Option<String>, Query, description = "RFC 3339, exclusive; default now"),
        ("step" = Option<u32>, Query, description = "Seconds, a multiple of 60"),
        ("worker" = Option<Vec<String>>, Query, description = "Workers by name"),
    ),
)]
pub async fn worker_history(
    State(edge): State<Edge>,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<WorkerHistoryView>, Refused<(Query, ledger::Error)>> {
    let now = clock::now();
    let question = worker_history_query(&uri, now)?;
    let workers = edge.gateway.worker_history(&question, now).await?;
    Ok(Answer::of(&WorkerHistoryView::of(question.effective_step(now), workers)))
}

/// How many tasks are in each phase
///
/// Counts the tasks that match a filter by phase: at most 20,000, newest first, for at most three seconds. The filters are those of
/// `GET /v1/tasks`.
#[utoipa::path(
    get, path = "/v1/stats/outcomes", tag = "operation", operation_id = "outcomes",
    params(
        ("task" = Option<Vec<String>>, Query, description = "Task names"),
        ("queue" = Option<Vec<String>>, Query),
        ("label" = Option<Vec<String>>, Query, description = "`key:value`"),
        ("from" = Option<String>, Query, description = "Submitted at or after (RFC 3339)"),
        ("to" = Option<String>, Query, description = "Submitted before (RFC 3339)"),
        ("q" = Option<String>, Query, description = "Id prefix, or part of name, label, error type or message"),
        ("argument" = Option<String>, Query, description = "Part of an argument, as in the list of tasks"),
    ),
)]
pub async fn outcomes(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<OutcomesView>, Refused<(Query, ledger::Error)>> {
    let (by_phase, more) = edge.gateway.outcomes(&caller.narrow(feed_filter(&uri)?)).await?;
    let by_phase = by_phase.into_iter().map(|(phase, count)| (phase.as_str(), count)).collect();
    Ok(Answer::of(&OutcomesView { by_phase, more }))
}
