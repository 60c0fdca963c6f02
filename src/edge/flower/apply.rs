//! Flower's submissions: `apply`, `async-apply` and `send-task`, with the options of Celery's `apply_async`.

use axum::extract::{FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::{empty, json as answer, longest_wait, outcome};
use crate::edge::extract::{AnyJson, Caller};
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::guard::namespace;
use crate::usecase::read::Found;
use crate::usecase::submit::{SubmitRequest, Submitted};
use celery::task::submission::Submission;
use runtime::heavy;

/// Options that have the same name and meaning here.
const SAME: [&str; 11] = [
    "queue",
    "priority",
    "countdown",
    "task_id",
    "ignore_result",
    "soft_time_limit",
    "time_limit",
    "headers",
    "labels",
    "unique",
    "limits",
];
/// Options about how Celery publishes, which are ignored because the gateway publishes in its own way.
const MEANT_FOR_CELERY: [&str; 7] =
    ["retry", "retry_policy", "serializer", "compression", "connection", "producer", "exchange"];

pub async fn async_apply(
    State(edge): State<Edge>,
    caller: Caller,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    if !is_known(&edge, &name) {
        return Ok(empty(StatusCode::NOT_FOUND));
    }
    send(State(edge), caller, Path(name), request).await
}

pub async fn send(
    State(edge): State<Edge>,
    caller: Caller,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let AnyJson(body) = AnyJson::from_request(request, &edge).await?;
    match submitted(&edge, &caller, &name, &body).await? {
        Ok(submitted) => Ok(answer(&json!({"task-id": id(&submitted), "state": "PENDING"}))),
        Err(refused) => Ok(*refused),
    }
}

pub async fn apply(
    State(edge): State<Edge>,
    caller: Caller,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    if !is_known(&edge, &name) {
        return Ok(empty(StatusCode::NOT_FOUND));
    }
    let AnyJson(body) = AnyJson::from_request(request, &edge).await?;
    let submitted = match submitted(&edge, &caller, &name, &body).await? {
        Ok(submitted) => submitted,
        Err(refused) => return Ok(*refused),
    };
    let id = id(&submitted);
    match edge.gateway.find(&id, longest_wait(&edge)).await? {
        Found::Task(task) => Ok(answer(&outcome::told(&id, &task))),
        Found::Group(_) | Found::Pruned(_) | Found::Unknown => Ok(answer(&json!({"task-id": id, "state": "PENDING"}))),
    }
}

/// Whether a task is known. Flower knows only the tasks of the application that it was started with.
fn is_known(edge: &Edge, name: &str) -> bool {
    edge.catalog.permits(name)
}

fn id(submitted: &Submitted) -> String {
    submitted.task_id.as_ref().map(ToString::to_string).unwrap_or_default()
}

async fn submitted(
    edge: &Edge,
    caller: &Caller,
    name: &str,
    body: &str,
) -> Result<Result<Submitted, Box<Response>>, Problem> {
    let (limits, named, text) = (edge.gateway.signature_limits(), name.to_owned(), body.to_owned());
    let read = heavy::run(body.len(), move || call(&named, &text).map(|call| Submission::parse(&call, limits))).await;
    let Some(read) = read else { return Ok(Err(Box::new(empty(StatusCode::BAD_REQUEST)))) };
    let submission = read.map_err(Problem::invalid)?;
    let mut request = SubmitRequest::new(submission);
    namespace::enter(&mut request.submission, caller.namespace());
    request.token = caller.id();
    request.visibility = caller.visibility();
    let outcome = edge.gateway.submit(request).await;
    Ok(Ok(outcome.map_err(|error| caller.in_own_words(error))?))
}

/// Converts the body to the form of `POST /v1/tasks`; `None` where Flower answers 400.
fn call(name: &str, body: &str) -> Option<String> {
    let mut given: Map<String, Value> = if body.is_empty() { Map::new() } else { serde_json::from_str(body).ok()? };
    let mut call = Map::new();
    call.insert("task".to_owned(), name.into());
    call.insert("args".to_owned(), given.remove("args").unwrap_or_else(|| json!([])));
    call.insert("kwargs".to_owned(), given.remove("kwargs").unwrap_or_else(|| json!({})));
    if !call["args"].is_array() {
        return None;
    }
    for option in SAME {
        if let Some(value) = given.remove(option).filter(|value| !value.is_null()) {
            call.insert(option.to_owned(), value);
        }
    }
    if let Some(seconds) = call.get("countdown").and_then(Value::as_str) {
        let seconds: f64 = seconds.parse().ok()?;
        call.insert("countdown".to_owned(), seconds.into());
    }
    if let Some(eta) = given.remove("eta") {
        call.insert("eta".to_owned(), moment(eta.as_str()?)?.into());
    }
    if let Some(expires) = given.remove("expires") {
        call.insert("expires".to_owned(), expiry(&expires)?);
    }
    // Without an exchange, the routing key is the queue's name.
    if let Some(key) = given.remove("routing_key") {
        call.entry("queue").or_insert(key);
    }
    for option in MEANT_FOR_CELERY {
        given.remove(option);
    }
    // The path names the task.
    given.remove("task");
    // Unknown options are reported by the reader of the call.
    call.extend(given);
    Some(Value::Object(call).to_string())
}

fn expiry(value: &Value) -> Option<Value> {
    if value.is_number() {
        return Some(value.clone());
    }
    let text = value.as_str()?;
    text.parse::<f64>().map(Value::from).ok().or_else(|| moment(text).map(Value::from))
}

/// `2026-11-30 17:05:01.25`, in UTC.
fn moment(text: &str) -> Option<String> {
    let at = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S%.f", text).ok()?;
    Some(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Value {
        serde_json::from_str(&call("a", body).unwrap()).unwrap()
    }

    #[test]
    fn flowers_options_become_ours() {
        let body = r#"{"args": [1], "countdown": "2", "eta": "2026-11-30 17:05:01.25", "expires": "60", "routing_key": "mail", "retry": true}"#;
        let call = read(body);
        assert_eq!(call["eta"], "2026-11-30T17:05:01.25Z");
        assert_eq!((&call["countdown"], &call["expires"], &call["queue"]), (&json!(2.0), &json!(60.0), &json!("mail")));
        assert!(call.get("retry").is_none());
        assert_eq!(read(r#"{"task": "b"}"#)["task"], "a", "the path names the task");
        assert_eq!(read(""), json!({"task": "a", "args": [], "kwargs": {}}));
    }

    #[test]
    fn what_flower_refuses_is_refused() {
        for body in ["[1]", "{", r#"{"args": {}}"#, r#"{"eta": "tomorrow"}"#, r#"{"expires": "soon"}"#] {
            assert!(call("a", body).is_none(), "{body}");
        }
    }
}
