//! `POST /v1/tasks/batch`: many signatures, as one JSON array or as a stream of lines.
//!
//! A stream is read in chunks of bounded number and size, as fast as its tasks reach Redis; the next chunk is read while the
//! previous one is committed. Verdicts are spooled until the end, because a client that sends everything before it reads would
//! otherwise deadlock.

use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Request, State};
use axum::http::{Uri, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::submission::{parsed, replay};
use crate::edge::answer::{Body, Query, Refused, Started, text};
use crate::edge::base;
use crate::edge::extract::{CHUNK_ITEMS, Caller, Item, JsonText, Lines, Repeatable, Traceparent, fingerprint};
use crate::edge::problem::{Place, Problem};
use crate::edge::slugs;
use crate::edge::spool::Spool;
use crate::edge::state::Edge;
use crate::edge::view::WarningView;
use crate::guard::namespace;
use crate::usecase::batch::{BatchError, BatchKey};
use crate::usecase::submit::{Answer, Idempotency, SubmitError, SubmitRequest, Submitted};
use celery::task::invalid::MAX_FOUND;
use celery::task::json;
use celery::task::submission::Submission;
use runtime::heavy;

/// The outcome of one item.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Verdict)]
pub struct VerdictView {
    /// Its position, counted from 0 without blank lines.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    /// For a group, instead of `task_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<String>,
    /// Reasons why its task may not run; absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<WarningView>,
    /// Why it was refused: a problem document.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    problem: Option<Box<RawValue>>,
}

/// The outcome of all items.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Batch)]
pub struct BatchView {
    accepted: usize,
    rejected: usize,
    items: Vec<VerdictView>,
}

/// Submit many tasks
///
/// Takes a JSON array of signatures, or one signature per line (`application/x-ndjson`) without a limit on their number. Each is
/// accepted or refused separately; with `atomic=true` all are accepted in one transaction, or none. Repeating a request with
/// the same `Idempotency-Key` submits nothing twice.
#[utoipa::path(
    post, path = "/v1/tasks/batch", tag = "submit", operation_id = "submit_batch",
    params(
        ("atomic" = Option<bool>, Query, description = "All or none; the whole body then counts for the size limit"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition harmless"),
        ("traceparent" = Option<String>, Header, description = "Continued into the messages"),
    ),
    request_body(content = Vec<Object>, content_type = "application/json",
        example = json!([{"task": "tasks.add", "args": [2, 3]}, {"task": "tasks.add", "args": [4, 5]}])),
)]
pub async fn submit_batch(
    State(edge): State<Edge>,
    OriginalUri(uri): OriginalUri,
    request: Request,
) -> Result<Started<BatchView>, Refused<(Query, Body, SubmitError)>> {
    let atomic = is_atomic(&uri)?;
    let (mut parts, body) = request.into_parts();
    let Ok(traceparent) = Traceparent::from_request_parts(&mut parts, &edge).await;
    let call = Call {
        caller: Caller::from_request_parts(&mut parts, &edge).await?,
        repeatable: Repeatable::from_request_parts(&mut parts, &edge).await?,
        traceparent,
        edge: edge.clone(),
    };
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_lines = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-ndjson"));
    if is_lines && !atomic {
        edge.gateway.check_backlog()?;
        return Ok(call.stream(Lines::new(body, &parts.headers, &edge)?).await?);
    }
    let items = if is_lines {
        let mut lines = Lines::new(body, &parts.headers, &edge)?;
        lines.all().await?
    } else {
        let JsonText(text) = JsonText::from_request(Request::from_parts(parts, body), &edge).await?;
        let split = heavy::run(text.len(), move || elements_of(&text)).await;
        split.ok_or_else(|| {
            Problem::new(&slugs::INVALID_REQUEST)
                .detail("the body must be an array of signatures")
                .error("", "must be an array of signatures")
        })?
    };
    if atomic {
        return Ok(call.all_or_none(items).await?);
    }
    edge.gateway.check_backlog()?;
    let mut verdicts = Verdicts::default();
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let chunk = items.by_ref().take(CHUNK_ITEMS).collect();
        verdicts.add(call.submit(chunk, verdicts.next).await).await?;
    }
    Ok(verdicts.answer().await?)
}

/// The elements of an array; `None` when the text is not an array.
fn elements_of(text: &str) -> Option<Vec<Item>> {
    let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(items.into_iter().map(|item| Ok(item.get().to_owned())).collect())
}

fn is_atomic(uri: &Uri) -> Result<bool, Problem> {
    match uri.query().unwrap_or_default() {
        "" | "atomic=false" => Ok(false),
        "atomic=true" => Ok(true),
        _ => Err(Problem::new(&slugs::INVALID_QUERY)
            .detail("the only parameter is atomic, true or false")
            .error("atomic", "is the only parameter, true or false")),
    }
}

/// How many items are read before other requests get a turn.
const TURN: usize = 64;

/// What all items of a request share.
struct Call {
    edge: Edge,
    caller: Caller,
    repeatable: Repeatable,
    traceparent: Traceparent,
}

impl Call {
    async fn stream(&self, mut lines: Lines) -> Result<Started<BatchView>, Problem> {
        let mut verdicts = Verdicts::default();
        let mut chunk = lines.chunk().await?;
        while !chunk.is_empty() {
            self.edge.gateway.room().await;
            let (found, next) = tokio::join!(self.submit(chunk, verdicts.next), lines.chunk());
            verdicts.add(found).await?;
            chunk = next?;
        }
        verdicts.answer().await
    }

    async fn submit(&self, items: Vec<Item>, first: usize) -> Vec<Result<Submitted, Problem>> {
        let mut refused = Vec::new();
        let mut requests = Vec::with_capacity(items.len());
        for (place, item) in items.into_iter().enumerate() {
            if place % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let read = match item {
                Ok(text) => self.request(text, Some(first + place)).await,
                Err(problem) => Err(problem),
            };
            match read {
                Ok(request) => requests.push(request),
                Err(problem) => refused.push((place, problem)),
            }
        }
        let submitted = self.edge.gateway.submit_many(requests).await;
        let mut outcomes: Vec<Result<Submitted, Problem>> = submitted
            .into_iter()
            .map(|outcome| outcome.or_else(|error| repeated(self.caller.in_own_words(error))))
            .collect();
        // The positions ascend, so each insertion is right once the earlier ones are done.
        for (place, problem) in refused {
            outcomes.insert(place, Err(problem));
        }
        outcomes
    }

    async fn request(&self, text: String, index: Option<usize>) -> Result<SubmitRequest, Problem> {
        let (submission, text) = parsed(&self.edge, text, Submission::parse).await?;
        let mut request = SubmitRequest::new(submission);
        namespace::enter(&mut request.submission, self.caller.namespace());
        request.traceparent.clone_from(&self.traceparent.0);
        request.token = self.caller.id();
        request.visibility = self.caller.visibility();
        let Repeatable { key, method, path } = &self.repeatable;
        request.idempotency = key.as_ref().zip(index).map(|(key, index)| Idempotency {
            scope: self.caller.keys("batch"),
            key: format!("{key}#{index}"),
            fingerprint: fingerprint(method, path, &text),
            answer: Answer::new(|submitted| {
                json::written(serde_json::to_string(&Kept::of(submitted)).expect("a view is JSON"))
            }),
        });
        Ok(request)
    }

    async fn all_or_none(&self, items: Vec<Item>) -> Result<Started<BatchView>, Problem> {
        let (mut requests, mut wrong, mut hashed) = (Vec::with_capacity(items.len()), Vec::new(), String::new());
        let (mut tasks, most) = (0, self.edge.limits.tasks);
        for (index, item) in items.into_iter().enumerate() {
            if wrong.len() >= MAX_FOUND || tasks > most {
                break;
            }
            if index % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let text = item?;
            hashed.push_str(&text);
            hashed.push('\n');
            match self.request(text, None).await {
                Ok(request) if request.submission.unique.is_some() => {
                    wrong.push(Place {
                        pointer: format!("/{index}/unique"),
                        detail: "has no meaning with atomic=true".to_owned(),
                    });
                }
                Ok(request) => {
                    request.submission.signature.visit(&mut |_| tasks += 1);
                    requests.push(request);
                }
                Err(problem) => wrong.extend(places(index, &problem)),
            }
        }
        if tasks > most {
            wrong.push(Place {
                pointer: String::new(),
                detail: format!("has more than {most} tasks, which are accepted at once at most"),
            });
        }
        if !wrong.is_empty() {
            return Err(misfit(wrong));
        }
        let Repeatable { key, method, path } = &self.repeatable;
        let key = key.as_ref().map(|key| BatchKey {
            scope: self.caller.keys("batch"),
            key: key.clone(),
            fingerprint: fingerprint(method, path, &hashed),
            answer: |submitted| json::written(kept(submitted)),
        });
        match self.edge.gateway.submit_all(requests, key).await {
            Ok(submitted) => Ok(Started::written(whole(&submitted))),
            Err(BatchError::Whole(SubmitError::Replay(answer))) => replay(&answer),
            Err(BatchError::Whole(error)) => Err(self.caller.in_own_words(error).into()),
            Err(BatchError::Items(refused)) => {
                let told = |error| Problem::from(self.caller.in_own_words(error));
                let refused = refused.into_iter().map(|(index, error)| (index, told(error)));
                let found: Vec<(usize, Problem)> = refused.collect();
                let all = found.iter().flat_map(|(index, problem)| places(*index, problem)).collect();
                // Use the kind of the first problem, so that a name that is not allowed stays a 403.
                let slug = found.first().map_or(&slugs::INVALID_REQUEST, |(_, problem)| problem.slug());
                let slug = if found.iter().all(|(_, problem)| problem.slug() == slug) {
                    slug
                } else {
                    &slugs::INVALID_REQUEST
                };
                Err(Problem::new(slug).detail("nothing was accepted").errors(all))
            }
        }
    }
}

fn misfit(errors: Vec<Place>) -> Problem {
    Problem::new(&slugs::INVALID_REQUEST)
        .detail(format!("nothing was accepted: {} places do not fit", errors.len()))
        .errors(errors)
}

/// The item's mistakes, with pointers relative to the batch.
fn places(index: usize, problem: &Problem) -> Vec<Place> {
    let inside = problem
        .places()
        .iter()
        .map(|place| Place { pointer: format!("/{index}{}", place.pointer), detail: place.detail.clone() });
    let mut all: Vec<Place> = inside.collect();
    if all.is_empty() {
        all.push(Place { pointer: format!("/{index}"), detail: problem.slug().title.to_owned() });
    }
    all
}

/// An item's answer in the form that the ledger keeps for repeated requests.
#[derive(Serialize, Deserialize)]
struct Kept {
    task_id: Option<String>,
    group_id: Option<String>,
}

impl Kept {
    fn of(submitted: &Submitted) -> Self {
        Self {
            task_id: submitted.task_id.as_ref().map(ToString::to_string),
            group_id: submitted.group_id.as_ref().map(ToString::to_string),
        }
    }
}

/// An item that was submitted by an earlier request counts as that submission.
fn repeated(error: SubmitError) -> Result<Submitted, Problem> {
    let SubmitError::Replay(answer) = &error else { return Err(error.into()) };
    let kept: Kept =
        serde_json::from_str(answer.get()).map_err(|error| Problem::new(&slugs::INTERNAL).caused_by(error))?;
    Ok(Submitted {
        task_id: kept.task_id.and_then(|id| celery::task::TaskId::parse(&id).ok()),
        group_id: kept.group_id.and_then(|id| celery::task::GroupId::parse(&id).ok()),
        phase: celery::task::Phase::Accepted,
        status: String::new(),
        task: None,
        queue: None,
        count: 1,
        children: Vec::new(),
        joined: true,
        warnings: Vec::new(),
        replaced: None,
    })
}

fn verdict(index: usize, outcome: &Result<Submitted, Problem>) -> VerdictView {
    match outcome {
        Ok(submitted) => accepted(index, submitted),
        Err(problem) => VerdictView {
            index,
            task_id: None,
            group_id: None,
            warnings: Vec::new(),
            problem: Some(json::written(problem.document())),
        },
    }
}

fn accepted(index: usize, submitted: &Submitted) -> VerdictView {
    let Kept { task_id, group_id } = Kept::of(submitted);
    let warnings = submitted.warnings.iter().map(WarningView::from).collect();
    VerdictView { index, task_id, group_id, warnings, problem: None }
}

/// The answer to an atomic batch.
fn whole(submitted: &[Submitted]) -> String {
    let items = submitted.iter().enumerate().map(|(index, item)| accepted(index, item));
    text(&BatchView { accepted: submitted.len(), rejected: 0, items: items.collect() })
}

/// The answer in the form that `submission::replay` reads.
fn kept(submitted: &[Submitted]) -> String {
    format!("{{\"status\":202,\"location\":\"{}\",\"body\":{}}}", base::path("/v1/tasks"), whole(submitted))
}

/// The verdicts so far.
#[derive(Default)]
struct Verdicts {
    next: usize,
    accepted: usize,
    spool: Spool,
}

impl Verdicts {
    async fn add(&mut self, outcomes: Vec<Result<Submitted, Problem>>) -> Result<(), Problem> {
        let mut lines = String::new();
        for outcome in outcomes {
            self.accepted += usize::from(outcome.is_ok());
            lines.push_str(if self.next == 0 { "\n" } else { ",\n" });
            lines.push_str(&text(&verdict(self.next, &outcome)));
            self.next += 1;
        }
        self.spool.write(lines.as_bytes()).await.map_err(|error| Problem::new(&slugs::INTERNAL).caused_by(error))
    }

    async fn answer(self) -> Result<Started<BatchView>, Problem> {
        let head = format!("{{\"accepted\":{},\"rejected\":{},\"items\":[", self.accepted, self.next - self.accepted);
        let body = self.spool.into_body(head.into(), "]}".into()).await;
        Ok(Started::streamed(body.map_err(|error| Problem::new(&slugs::INTERNAL).caused_by(error))?))
    }
}
