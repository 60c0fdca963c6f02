//! `/v1/workers`, `/v1/inspect/{method}`, `/v1/control/{command}`.

use std::time::Duration;

use axum::extract::{OriginalUri, State};

use crate::edge::answer::{Answer, Body, Query, Refused};
use crate::edge::extract::{JsonText, PathValues, inspect_query, wishes};
use crate::edge::state::Edge;
use crate::edge::view::control::{RepliesView, WorkerListView, WorkerView};
use crate::usecase::inspect::{ControlError, ControlRequest, DEFAULT_PATIENCE, MAX_PATIENCE};
use celery::commands::{self, Kind};
use celery::task::invalid::Problems;
use celery::task::json::{self, Fields};
use runtime::clock;

/// All workers
///
/// All Python and Rust workers that were seen within the last day.
#[utoipa::path(get, path = "/v1/workers", tag = "control", operation_id = "list_workers")]
pub async fn list_workers(State(edge): State<Edge>) -> Result<Answer<WorkerListView>, Refused<ledger::Error>> {
    let workers = edge.gateway.workers().await?;
    let now = clock::now();
    let workers = workers.into_iter().map(|(worker, online)| WorkerView::of(worker, online, now)).collect();
    Ok(Answer::of(&WorkerListView { workers }))
}

/// Ask workers
///
/// Celery's own methods: `ping`, `active`, `reserved`, `scheduled`, `query_task`, `revoked`, `registered`, `active_queues`, `stats`,
/// `conf`, `report`, `clock`. A method's own arguments are query parameters. Answers when all workers have replied, or after
/// `timeout`.
#[utoipa::path(
    get, path = "/v1/inspect/{method}", tag = "control", operation_id = "inspect_workers",
    params(
        ("method" = String, Path, description = "Celery's name of the method", example = "ping"),
        ("destination" = Option<Vec<String>>, Query, description = "Node names; all workers without it"),
        ("timeout" = Option<f64>, Query, description = "Seconds, at most 30, default 1"),
        ("ids" = Option<Vec<String>>, Query, description = "For `query_task`"),
    ),
)]
pub async fn inspect_workers(
    State(edge): State<Edge>,
    PathValues(values): PathValues,
    OriginalUri(uri): OriginalUri,
) -> Result<Answer<RepliesView>, Refused<(Query, ControlError)>> {
    let command = values.into_iter().next().map(|(_, value)| value).unwrap_or_default();
    let own = commands::find(&command).map_or(&[][..], |command| command.arguments);
    let names: Vec<&str> = own.iter().map(|argument| argument.name).collect();
    let query = inspect_query(&uri, &names)?;
    let mut arguments = serde_json::Map::new();
    for (name, values) in query.arguments {
        let kind = own.iter().find(|argument| argument.name == name).map_or(Kind::Text, |argument| argument.kind);
        arguments.insert(name, typed(kind, values));
    }
    let arguments = serde_json::Value::Object(arguments).to_string();
    let request = ControlRequest { command, arguments, destination: query.destination, patience: query.patience };
    let replies = edge.gateway.inspect(request).await?;
    Ok(Answer::of(&RepliesView { replies }))
}

/// Converts a query's texts to the JSON type of the argument.
fn typed(kind: Kind, mut values: Vec<String>) -> serde_json::Value {
    match (kind, values.as_slice()) {
        (Kind::Boolean, [value]) if value == "true" || value == "false" => (value == "true").into(),
        (Kind::TextOrTexts | Kind::Texts, _) => values.into(),
        (_, [_]) => values.remove(0).into(),
        _ => values.into(),
    }
}

/// Send a command to workers
///
/// Celery's own commands: `rate_limit`, `time_limit`, `add_consumer`, `cancel_consumer`, `pool_grow`, `pool_shrink`, `autoscale`,
/// `enable_events`, `disable_events`, `heartbeat`, `pool_restart`, `revoke`, `terminate`, `revoke_by_stamped_headers`, `shutdown`.
/// Arguments are checked before anything is sent. `shutdown` has no replies.
#[utoipa::path(
    post, path = "/v1/control/{command}", tag = "control", operation_id = "control_workers",
    params(("command" = String, Path, description = "Celery's name of the command", example = "rate_limit")),
    request_body(content = inline(serde_json::Value), content_type = "application/json",
        description = "`destination` (node names; all without it), `arguments`, `timeout` in seconds (default 1); may be empty",
        example = json!({"destination": ["celery@host"], "arguments": {"task_name": "tasks.add", "rate_limit": "100/m"}})),
)]
pub async fn control_workers(
    State(edge): State<Edge>,
    PathValues(values): PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<RepliesView>, Refused<(Body, ControlError)>> {
    let command = values.into_iter().next().map(|(_, value)| value).unwrap_or_default();
    let request = wishes(&body, &["destination", "arguments", "timeout"], |problems, fields| ControlRequest {
        command,
        arguments: arguments(problems, fields),
        destination: destination(problems, fields),
        patience: patience(problems, fields),
    })?;
    let replies = edge.gateway.control(request).await?;
    Ok(Answer::of(&RepliesView { replies }))
}

fn arguments(problems: &mut Problems, fields: &Fields<'_>) -> String {
    let Some(value) = fields.get("arguments") else { return "{}".to_owned() };
    problems.within("arguments", |problems| problems.object(value));
    value.get().to_owned()
}

fn destination(problems: &mut Problems, fields: &Fields<'_>) -> Option<Vec<String>> {
    let value = fields.get("destination")?;
    problems.within("destination", |problems| {
        let names: Option<Vec<String>> = match json::text(value) {
            Some(name) => Some(vec![name]),
            None => json::elements(value).and_then(|names| names.into_iter().map(json::text).collect()),
        };
        let names = names.filter(|names| !names.is_empty() && names.iter().all(|name| !name.is_empty()));
        if names.is_none() {
            problems.add("must be a node name or a list of them");
        }
        names
    })
}

fn patience(problems: &mut Problems, fields: &Fields<'_>) -> Duration {
    let secs = fields.get("timeout").and_then(|value| problems.within("timeout", |problems| problems.positive(value)));
    if secs.is_some_and(|secs| secs > MAX_PATIENCE.as_secs_f64()) {
        problems.add_at("timeout", format!("must be at most {}", MAX_PATIENCE.as_secs()));
        return DEFAULT_PATIENCE;
    }
    secs.map_or(DEFAULT_PATIENCE, Duration::from_secs_f64)
}
