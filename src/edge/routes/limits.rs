//! `/v1/limits`: keys that limit how many tasks may be under way or start: list, change, pause and reset them.

use axum::extract::{OriginalUri, State};

use super::tasks::linked;
use crate::edge::answer::{Answer, Body, NoContent, Page, Query, Refused};
use crate::edge::cursor;
use crate::edge::extract::{Caller, JsonText, NoBody, PathValues, name_page_query, path_value, wishes};
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use crate::edge::view::{LimitListView, LimitView};
use celery::json::Fields;
use celery::task::invalid::Problems;
use celery::task::limit::{is_key, max_of, rate_of};
use celery::task::submission::member;
use ledger::Rule;
use runtime::clock;
use serde::Deserialize;
use utoipa::ToSchema;

/// The new limits of a key.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = LimitChange)]
#[expect(dead_code, reason = "only the contract reads it: the body is read with its places")]
pub struct ChangeBody {
    /// How many tasks of the key may be under way at the same time: 1 to 1,000,000. Without it, as its tasks say.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max: Option<u32>,
    /// How many may start in which time: `10/s`, `1/m`, `1000/h`, `5/d`. Without it, as its tasks say.
    #[schema(example = "1/m")]
    rate: Option<String>,
    /// While `true`, no task of the key starts. Default `false`.
    paused: Option<bool>,
}

/// Keys of limits
///
/// Keys that were changed by hand, and keys of tasks that wait, are under way or have just started, by name. A token with a namespace
/// sees its own keys.
#[utoipa::path(
    get, path = "/v1/limits", tag = "control", operation_id = "list_limits",
    params(
        ("limit" = Option<u16>, Query, description = "1 to 500, default 50"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
)]
pub async fn list_limits(
    State(edge): State<Edge>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Result<Page<LimitListView>, Refused<(Query, ledger::Error)>> {
    let (limit, after) = name_page_query(&uri)?;
    let after = after.unwrap_or_default();
    let (states, next) = edge.gateway.limit_keys(caller.namespace(), &after, limit).await?;
    let now = clock::now();
    let next = next.map(|key| cursor::write_name(&key));
    let limits = states.into_iter().map(|state| LimitView::of(state, now)).collect();
    let view = LimitListView { limits, next };
    Ok(linked(Page::of(&view), &uri, view.next.as_deref()))
}

/// Change a limit
///
/// Overrides the limits from submissions and the catalog for all tasks of the key that have not started, until it is reset. `paused`
/// stops the key. Tasks that are under way are not affected.
#[utoipa::path(
    put, path = "/v1/limits/{key}", tag = "control", operation_id = "put_limit",
    params(("key" = String, Path, description = "The key, percent-encoded")),
    request_body(content = ChangeBody, content_type = "application/json"),
)]
pub async fn put_limit(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    JsonText(body): JsonText,
) -> Result<Answer<LimitView>, Refused<(Body, ledger::Error)>> {
    let key = key(&path)?;
    let rule = wishes(&body, &["max", "rate", "paused"], rule)?;
    let state = edge.gateway.set_limit(caller.namespace(), &key, &rule).await?;
    Ok(Answer::of(&LimitView::of(state, clock::now())))
}

fn rule(problems: &mut Problems, fields: &Fields<'_>) -> Rule {
    let (max, rate) = (max_of(problems, fields), rate_of(problems, fields));
    let paused = member(problems, fields, "paused", Problems::boolean);
    if ["max", "rate", "paused"].iter().all(|name| fields.get(name).is_none()) {
        problems.add("must say max, rate or paused; DELETE resets a key");
    }
    Rule { max, rate, paused: paused.unwrap_or(false) }
}

/// Reset a limit
///
/// Removes the change made by hand, and the time at which the rate allows the next start: the limits of the tasks apply again. Tasks
/// that are under way still count. Resetting an unknown key succeeds.
#[utoipa::path(
    delete, path = "/v1/limits/{key}", tag = "control", operation_id = "reset_limit",
    params(("key" = String, Path, description = "The key, percent-encoded")),
)]
pub async fn reset_limit(
    State(edge): State<Edge>,
    caller: Caller,
    path: PathValues,
    _: NoBody,
) -> Result<NoContent, Refused<ledger::Error>> {
    edge.gateway.reset_limit(caller.namespace(), &key(&path)?).await?;
    Ok(NoContent)
}

fn key(path: &PathValues) -> Result<String, Problem> {
    let refused = "must have 1 to 255 characters and no control characters";
    path_value(path, "key", |text| is_key(text).then(|| text.to_owned()).ok_or(refused))
}
