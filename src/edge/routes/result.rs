//! `GET /result/{id}`: the result of a task or a group.

use axum::extract::State;
use axum::http::header;
use sha2::{Digest, Sha256};

use crate::edge::answer::{Either, Kind, OfResult, Pending, Refused, Tagged, Typed, Unchanged, text};
use crate::edge::extract::{Caller, IdPath, IfNoneMatch, Prefer};
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use crate::edge::view::{GroupView, ResultView};
use crate::usecase::read::Found;
use runtime::clock::Time;

/// The result of a task or group
///
/// 200 when it is finished, else 202. With `Prefer: wait=N` the answer waits up to N seconds for the end.
#[utoipa::path(
    get, path = "/result/{id}", tag = "results", operation_id = "get_result",
    params(
        ("id" = String, Path, description = "A task's or a group's id"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds (at most 60) for the end", example = "wait=10"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of an earlier answer"),
    ),
)]
pub async fn get_result(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
    prefer: Prefer,
    known: IfNoneMatch,
) -> Result<ResultAnswer, Refused<(OfResult, ledger::Error)>> {
    match edge.gateway.find_for(&caller.visibility(), id.as_str(), prefer.wait).await? {
        Found::Task(task) => {
            let etag = format!("\"{}\"", task.seq);
            if known.has(&etag) {
                return Ok(Either::Other(Unchanged::of(&etag)));
            }
            Ok(found(task.phase.is_final(), text(&ResultView::of(&task)), &etag))
        }
        Found::Group(group) => {
            let body = text(&GroupView::of(&group));
            let etag = etag_of(&body);
            if known.has(&etag) {
                return Ok(Either::Other(Unchanged::of(&etag)));
            }
            Ok(found(group.completed() >= group.total, body, &etag))
        }
        Found::Pruned(at) => Err(pruned(id.as_str(), at).into()),
        Found::Unknown => Err(unknown(id.as_str()).into()),
    }
}

/// 200 with the result, 202 with the present state, or 304 when the client has it already.
pub type ResultAnswer = Either<Either<Tagged<ResultView<'static>>, Pending<ResultView<'static>>>, Unchanged>;

fn found(ready: bool, body: String, etag: &str) -> ResultAnswer {
    Either::One(if ready {
        Either::One(version(Tagged::written(body), etag))
    } else {
        Either::Other(version(Pending::written(body), etag).with(header::RETRY_AFTER, "1"))
    })
}

/// Adds the entity tag, and requires caches to revalidate each time.
pub fn version<K: Kind, T>(answer: Typed<K, T>, etag: &str) -> Typed<K, T> {
    answer.with(header::ETAG, etag).with(header::CACHE_CONTROL, "private, no-cache")
}

/// An entity tag for answers without a version number.
pub fn etag_of(body: &str) -> String {
    let hash = Sha256::digest(body);
    let hex: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

pub fn unknown(id: &str) -> Problem {
    Problem::new(&slugs::TASK_NOT_FOUND).detail(format!("this ledger never saw {id}"))
}

pub fn pruned(id: &str, finished_at: Time) -> Problem {
    let at = finished_at.rfc3339();
    Problem::new(&slugs::TASK_PRUNED).detail(format!("{id} was finished at {at} and is pruned since"))
}
