//! Results of tasks, and stopping tasks.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::arguments::Arguments;
use super::{empty, json as answer, longest_wait, view};
use crate::edge::extract::Caller;
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::usecase::inspect::{ControlRequest, DEFAULT_PATIENCE};
use crate::usecase::read::Found;
use crate::usecase::revoke::{RevokeError, RevokeRequest};
use celery::task::{Phase, TaskId};
use ledger::Task;

pub async fn result(
    State(edge): State<Edge>,
    caller: Caller,
    Path(id): Path<String>,
    given: Arguments,
) -> Result<Response, Problem> {
    let wait = match given.number::<f64>("timeout") {
        Ok(wait) => wait.and_then(|secs| Duration::try_from_secs_f64(secs).ok()).filter(|wait| !wait.is_zero()),
        Err(refused) => return Ok(*refused),
    };
    let patience = wait.unwrap_or_default().min(longest_wait(&edge));
    let found = edge.gateway.find_for(&caller.visibility(), &id, patience).await?;
    let Found::Task(task) = found else {
        // Celery's backend answers PENDING for every unknown id.
        return Ok(if wait.is_some() { late() } else { answer(&json!({"task-id": id, "state": "PENDING"})) });
    };
    if wait.is_some() && !task.phase.is_final() {
        return Ok(late());
    }
    Ok(answer(&told(&id, &task)))
}

/// The answer of Flower when Celery's TimeoutError is raised.
fn late() -> Response {
    empty(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Id, state and, after the end, the result.
pub fn told(id: &str, task: &Task) -> serde_json::Value {
    let mut told = json!({"task-id": id, "state": task.status});
    if task.phase.is_final() {
        told["result"] = view::outcome(task);
    }
    if matches!(task.phase, Phase::Failed | Phase::Lost) {
        told["traceback"] = task.traceback.as_deref().into();
    }
    told
}

/// Aborts a task. Celery's abortable tasks check their record for ABORTED; other tasks can only be revoked.
pub async fn abort(State(edge): State<Edge>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    stop(&edge, &caller, &id, false, "SIGTERM").await?;
    Ok(answer(&json!({"message": format!("Aborted '{id}'")})))
}

pub async fn revoke(
    State(edge): State<Edge>,
    caller: Caller,
    Path(id): Path<String>,
    given: Arguments,
) -> Result<Response, Problem> {
    let terminate = match given.switch("terminate") {
        Ok(terminate) => terminate,
        Err(refused) => return Ok(*refused),
    };
    if terminate && given.text("signal").is_some_and(|signal| !celery::commands::SIGNALS.contains(&signal)) {
        return Ok(empty(StatusCode::BAD_REQUEST));
    }
    stop(&edge, &caller, &id, terminate, given.text("signal").unwrap_or("SIGTERM")).await?;
    Ok(answer(&json!({"message": format!("Revoked '{id}'")})))
}

/// Revokes a task. One that is not in the ledger is revoked by broadcast, as in Flower, if the caller may see everything.
async fn stop(edge: &Edge, caller: &Caller, id: &str, terminate: bool, signal: &str) -> Result<(), Problem> {
    let Ok(task) = TaskId::parse(id) else { return Ok(()) };
    caller.must_see(edge, &task).await?;
    let reason = Some("revoked over Flower's API".to_owned());
    let request = RevokeRequest { terminate, signal: signal.to_owned(), reason };
    match edge.gateway.revoke(&task, &request).await {
        Ok(_) => Ok(()),
        Err(RevokeError::Unknown(_)) if !caller.visibility().is_limited() => {
            let arguments = json!({"task_id": id, "terminate": terminate, "signal": signal}).to_string();
            let command = "revoke".to_owned();
            let request = ControlRequest { command, arguments, destination: None, patience: DEFAULT_PATIENCE };
            edge.gateway.control(request).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
