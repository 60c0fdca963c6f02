//! Flower's commands to workers: sends a command to one worker, and answers with its reply in Flower's words.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::{json as answer, plain};
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::usecase::inspect::{ControlRequest, DEFAULT_PATIENCE};

/// A command, and Flower's answers to it.
struct Command<'a> {
    name: &'static str,
    arguments: Value,
    worker: &'a str,
    /// The answer on success; `None` for the worker's own text.
    done: Option<String>,
    /// The answer on failure; `{reason}` is replaced by the worker's text.
    failed: String,
}

pub async fn shutdown(State(edge): State<Edge>, Path(worker): Path<String>) -> Result<Response, Problem> {
    if let Some(unknown) = unknown(&edge, &worker).await? {
        return Ok(unknown);
    }
    ask(&edge, "shutdown", &json!({}), &worker).await?;
    Ok(answer(&json!({"message": "Shutting down!"})))
}

pub async fn restart(State(edge): State<Edge>, Path(worker): Path<String>) -> Result<Response, Problem> {
    let command = Command {
        name: "pool_restart",
        arguments: json!({"reload": false}),
        worker: &worker,
        done: Some(format!("Restarting '{worker}' worker's pool")),
        failed: format!("Failed to restart the '{worker}' pool: {{reason}}"),
    };
    tell(&edge, command).await
}

pub async fn grow(State(edge): State<Edge>, Path(worker): Path<String>, given: Arguments) -> Result<Response, Problem> {
    let n = match given.number::<i64>("n") {
        Ok(n) => n.unwrap_or(1),
        Err(refused) => return Ok(*refused),
    };
    let command = Command {
        name: "pool_grow",
        arguments: json!({"n": n}),
        worker: &worker,
        done: Some(format!("Growing '{worker}' worker's pool by {n}")),
        failed: format!("Failed to grow '{worker}' worker's pool: {{reason}}"),
    };
    tell(&edge, command).await
}

pub async fn shrink(
    State(edge): State<Edge>,
    Path(worker): Path<String>,
    given: Arguments,
) -> Result<Response, Problem> {
    let n = match given.number::<i64>("n") {
        Ok(n) => n.unwrap_or(1),
        Err(refused) => return Ok(*refused),
    };
    let command = Command {
        name: "pool_shrink",
        arguments: json!({"n": n}),
        worker: &worker,
        done: Some(format!("Shrinking '{worker}' worker's pool by {n}")),
        failed: format!("Failed to shrink '{worker}' worker's pool: {{reason}}"),
    };
    tell(&edge, command).await
}

pub async fn autoscale(
    State(edge): State<Edge>,
    Path(worker): Path<String>,
    given: Arguments,
) -> Result<Response, Problem> {
    let bounds = given
        .needed("min")
        .and_then(|_| given.needed("max"))
        .and_then(|_| Ok((given.number::<i64>("min")?.unwrap_or(0), given.number::<i64>("max")?.unwrap_or(0))));
    let (min, max) = match bounds {
        Ok(bounds) => bounds,
        Err(refused) => return Ok(*refused),
    };
    let command = Command {
        name: "autoscale",
        arguments: json!({"min": min, "max": max}),
        worker: &worker,
        // Flower itself does not fill in this text; scripts only check the status.
        done: Some(format!("Autoscaling '{worker}' worker (min={{min}}, max={{max}})")),
        failed: format!("Failed to autoscale '{worker}' worker: {{reason}}"),
    };
    tell(&edge, command).await
}

pub async fn add_consumer(
    State(edge): State<Edge>,
    Path(worker): Path<String>,
    given: Arguments,
) -> Result<Response, Problem> {
    let failed = |queue: &str| format!("Failed to add '{queue}' consumer to '{worker}' worker: {{reason}}");
    consumer(&edge, &worker, &given, "add_consumer", failed).await
}

pub async fn cancel_consumer(
    State(edge): State<Edge>,
    Path(worker): Path<String>,
    given: Arguments,
) -> Result<Response, Problem> {
    let failed = |queue: &str| format!("Failed to cancel '{queue}' consumer from '{worker}' worker: {{reason}}");
    consumer(&edge, &worker, &given, "cancel_consumer", failed).await
}

async fn consumer(
    edge: &Edge,
    worker: &str,
    given: &Arguments,
    name: &'static str,
    failed: impl Fn(&str) -> String,
) -> Result<Response, Problem> {
    let queue = match given.needed("queue") {
        Ok(queue) => queue,
        Err(refused) => return Ok(*refused),
    };
    let arguments = json!({"queue": queue});
    tell(edge, Command { name, arguments, worker, done: None, failed: failed(queue) }).await
}

pub async fn timeout(
    State(edge): State<Edge>,
    Path(name): Path<String>,
    given: Arguments,
) -> Result<Response, Problem> {
    let read = given
        .needed("workername")
        .and_then(|worker| Ok((worker, given.number::<f64>("soft")?, given.number::<f64>("hard")?)));
    let (worker, soft, hard) = match read {
        Ok(read) => read,
        Err(refused) => return Ok(*refused),
    };
    let mut arguments = json!({"task_name": name});
    for (limit, secs) in [("soft", soft), ("hard", hard)] {
        if let Some(secs) = secs {
            arguments[limit] = secs.into();
        }
    }
    let failed = "Failed to set timeouts: '{reason}'".to_owned();
    tell(&edge, Command { name: "time_limit", arguments, worker, done: None, failed }).await
}

pub async fn rate_limit(
    State(edge): State<Edge>,
    Path(name): Path<String>,
    given: Arguments,
) -> Result<Response, Problem> {
    let read = given.needed("workername").and_then(|worker| Ok((worker, given.needed("ratelimit")?)));
    let (worker, limit) = match read {
        Ok(read) => read,
        Err(refused) => return Ok(*refused),
    };
    let arguments = json!({"task_name": name, "rate_limit": limit});
    let failed = "Failed to set rate limit: '{reason}'".to_owned();
    tell(&edge, Command { name: "rate_limit", arguments, worker, done: None, failed }).await
}

async fn tell(edge: &Edge, command: Command<'_>) -> Result<Response, Problem> {
    if let Some(unknown) = unknown(edge, command.worker).await? {
        return Ok(unknown);
    }
    let reply = ask(edge, command.name, &command.arguments, command.worker).await?;
    let ok = reply.as_ref().and_then(|reply| reply.get("ok"));
    if let Some(ok) = ok {
        let message = command.done.map_or_else(|| ok.clone(), Value::from);
        return Ok(answer(&json!({"message": message})));
    }
    let reason = reply.as_ref().and_then(|reply| reply.get("error")?.as_str()).unwrap_or("Unknown reason");
    Ok(plain(StatusCode::FORBIDDEN, &command.failed.replace("{reason}", reason)))
}

/// 404 in Flower's form, for an unknown worker.
async fn unknown(edge: &Edge, worker: &str) -> Result<Option<Response>, Problem> {
    let known = edge.gateway.workers().await?.iter().any(|(known, _)| known.hostname == worker);
    Ok((!known).then(|| plain(StatusCode::NOT_FOUND, &format!("Unknown worker '{worker}'"))))
}

/// The worker's reply, if it gave one.
async fn ask(edge: &Edge, command: &str, arguments: &Value, worker: &str) -> Result<Option<Value>, Problem> {
    let request = ControlRequest {
        command: command.to_owned(),
        arguments: arguments.to_string(),
        destination: Some(vec![worker.to_owned()]),
        patience: DEFAULT_PATIENCE,
    };
    let replies = edge.gateway.control(request).await?;
    let reply = replies.iter().find(|(node, _)| node.as_str() == worker);
    Ok(reply.and_then(|(_, reply)| serde_json::from_str(reply.get()).ok()))
}
