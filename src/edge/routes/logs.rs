//! `GET /v1/tasks/{id}/logs`: the lines that a task logged or printed.

use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio_stream::{Stream, StreamExt};
use utoipa::ToSchema;

use super::result::{pruned, unknown};
use crate::edge::answer::{Answer, Described, Lends, OfResult, Query as Asked, Refused};
use crate::edge::extract::{Caller, IdPath, LastEventId};
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::sse;
use crate::edge::state::Edge;
use crate::usecase::logs::{Followed, Logged};
use crate::usecase::read::Found;
use ledger::Task;
use runtime::clock::Time;

const DEFAULT_LIMIT: usize = 1_000;
const MOST: usize = 10_000;
/// The most text of a page in bytes. A line has 64 KiB at most.
const MOST_BYTES: usize = 8 << 20;

/// A line of a task's log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogLine)]
pub struct LogLineView<'a> {
    /// Its number within the task, from 1; the id of its event.
    no: i64,
    /// 0 for the first attempt, one more after each retry.
    attempt: i32,
    /// Its position within the attempt; null for a note, which says that lines are missing.
    seq: Option<i64>,
    #[schema(value_type = String, format = DateTime)]
    at: Time,
    /// The level's name in the worker's language; `NOTE` for a note.
    #[schema(value_type = String)]
    level: &'a str,
    #[schema(value_type = String)]
    text: &'a str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogPage)]
pub struct LogPageView<'a> {
    #[schema(value_type = String)]
    task_id: &'a str,
    lines: Vec<LogLineView<'a>>,
    /// `after` of the next page; null when there is nothing more now.
    next: Option<i64>,
}

impl Lends for LogPageView<'static> {
    type With<'a> = LogPageView<'a>;
}

/// The end of the stream.
#[derive(Debug, Serialize)]
struct EndView {
    /// The number of the last line.
    lines: i64,
}

impl<'a> LogLineView<'a> {
    fn of(logged: &'a Logged) -> Self {
        let Logged { no, attempt, line } = logged;
        Self { no: *no, attempt: *attempt, seq: line.seq, at: Time(line.at), level: &line.level, text: &line.text }
    }
}

/// The log of a task
///
/// A page of lines, in the order of arrival. With `Accept: text/plain` all lines as text. With `Accept: text/event-stream` a live
/// `line` event for each, and `end` after the end of the task; ids are the lines' numbers.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/logs", tag = "tasks", operation_id = "task_logs",
    params(
        ("id" = String, Path, description = "A task's id"),
        ("after" = Option<i64>, Query, description = "Lines with numbers above this; default 0"),
        ("limit" = Option<u16>, Query, description = "1 to 10000, default 1000"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event received"),
    ),
    responses(
        (status = 200, description = "Lines", content(
            (LogPageView = "application/json"),
            (String = "text/plain"),
            (String = "text/event-stream", example = "id: 1\nevent: line\ndata: {\"no\":1,\"attempt\":0,\"seq\":0,\"at\":\"2026-11-20T18:17:30.698350Z\",\"level\":\"INFO\",\"text\":\"page 1 of 5\"}\n\n"),
        )),
        (status = 204, description = "Finished, and the client has everything"),
    )
)]
pub async fn task_logs(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
    LastEventId(last): LastEventId,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Described, Refused<(OfResult, Asked, ledger::Error)>> {
    let query = Query::of(&uri)?;
    let task = match edge.gateway.find_for(&caller.visibility(), id.as_str(), Duration::ZERO).await? {
        Found::Task(task) => task,
        Found::Pruned(at) => return Err(pruned(id.as_str(), at).into()),
        Found::Group(_) => return Err(unknown(id.as_str()).detail("it is a group: its members have logs").into()),
        Found::Unknown => return Err(unknown(id.as_str()).into()),
    };
    Ok(Described(if accepts(&headers, "text/event-stream") {
        follow(&edge, &caller, &task, last.unwrap_or(query.after)).await?
    } else if accepts(&headers, "text/plain") {
        plain(&edge, &task, query.after)
    } else {
        page(&edge, &task, &query).await?
    }))
}

async fn page(edge: &Edge, task: &Task, query: &Query) -> Result<Response, Problem> {
    let mut found: Vec<Logged> = Vec::new();
    let (mut after, mut is_more) = (query.after, false);
    while !is_more {
        let lines = edge.gateway.log_lines(task, after).await?;
        let Some(newest) = lines.last() else { break };
        after = newest.no;
        found.extend(lines);
        let fitting = fitting(&found, query.limit, MOST_BYTES);
        is_more = fitting < found.len();
        found.truncate(fitting);
    }
    let next = found.last().filter(|_| is_more).map(|logged| logged.no);
    let view = LogPageView { task_id: task.id.as_str(), lines: found.iter().map(LogLineView::of).collect(), next };
    Ok(Answer::<LogPageView<'static>>::lent(&view).into_response())
}

/// How many of the lines fit into a page: `limit`, or fewer if their texts exceed its bytes. One always fits.
fn fitting(lines: &[Logged], limit: usize, most_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |logged: &&Logged| {
        bytes += logged.line.text.len();
        bytes <= most_bytes
    };
    lines.iter().take(limit).take_while(fits).count().max(lines.len().min(1))
}

async fn follow(edge: &Edge, caller: &Caller, task: &Task, after: i64) -> Result<Response, Problem> {
    if task.phase.is_final() && after > 0 && edge.gateway.log_lines(task, after).await?.is_empty() {
        return Ok(sse::over());
    }
    let place = sse::admit(edge, caller)?;
    let lines = edge.gateway.follow_logs(task.clone(), after);
    Ok(sse::answer(edge, caller, place, frames(lines)))
}

fn frames(lines: impl Stream<Item = Followed>) -> impl Stream<Item = Bytes> {
    lines.map(|followed| match followed {
        Followed::Line(logged) => sse::frame(logged.no, "line", &LogLineView::of(&logged)),
        Followed::End(last) => sse::frame(last, "end", &EndView { lines: last }),
    })
}

/// Reads the lines while they are sent. If the ledger fails in between, the connection is cut, so that the client notices the gap.
fn plain(edge: &Edge, task: &Task, mut after: i64) -> Response {
    let (gateway, task) = (Arc::clone(&edge.gateway), task.clone());
    let body = stream! {
        loop {
            let lines = match gateway.log_lines(&task, after).await {
                Ok(lines) => lines,
                Err(error) => {
                    yield Err(error);
                    return;
                }
            };
            let Some(last) = lines.last() else { return };
            after = last.no;
            yield Ok(Bytes::from(lines.iter().map(written).collect::<String>()));
        }
    };
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

fn written(logged: &Logged) -> String {
    let Logged { attempt, line, .. } = logged;
    let attempt = if *attempt > 0 { format!(" [attempt {attempt}]") } else { String::new() };
    format!("{}{attempt} {:<7} {}\n", Time(line.at).rfc3339(), line.level, line.text)
}

fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let named = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    named
        .flat_map(|value| value.split(','))
        .any(|range| range.split(';').next().is_some_and(|range| range.trim() == kind))
}

struct Query {
    after: i64,
    limit: usize,
}

impl Query {
    fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut query = Self { after: 0, limit: DEFAULT_LIMIT };
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = value.parse::<usize>().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
            match (name, number) {
                ("after", Some(number)) => query.after = i64::try_from(number).unwrap_or(i64::MAX),
                ("limit", Some(number)) if (1..=MOST).contains(&number) => query.limit = number,
                ("after", _) => return Err(refused("after", "must be a whole number of 0 or more")),
                ("limit", _) => return Err(refused("limit", "must be 1 to 10000")),
                (other, _) => return Err(refused(other, "is not a parameter here: after, limit")),
            }
        }
        Ok(query)
    }
}

fn refused(name: &str, detail: &str) -> Problem {
    Problem::new(&slugs::INVALID_QUERY).detail(format!("{name} {detail}")).error(name, detail)
}

#[cfg(test)]
mod tests {
    use ledger::Line;

    use super::*;

    fn line(no: i64, bytes: usize) -> Logged {
        let line = Line { seq: Some(no), at: 0, level: "INFO".to_owned(), text: "x".repeat(bytes) };
        Logged { no, attempt: 0, line }
    }

    #[test]
    fn a_page_ends_at_its_limit_or_at_its_bytes() {
        let lines: Vec<Logged> = (1..=5).map(|no| line(no, 10)).collect();
        assert_eq!(fitting(&lines, 3, 1_000), 3);
        assert_eq!(fitting(&lines, 10, 1_000), 5);
        assert_eq!(fitting(&lines, 10, 25), 2);
        assert_eq!(fitting(&lines, 10, 1), 1, "a page without a line would never end");
        assert_eq!(fitting(&[], 10, 1), 0);
    }
}
