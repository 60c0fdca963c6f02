//! `/v1/stats/…`: throughput, wait and run times, groups of failures.

use axum::extract::{OriginalUri, State};

use crate::edge::answer::{Answer, Query, Refused};
use crate::edge::extract::{Caller, feed_filter, stats_query};
use crate::edge::state::Edge;
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
