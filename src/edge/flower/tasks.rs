//! Lists of tasks, task names and queues; and a single task.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::{empty, json as answer, view};
use crate::edge::extract::Caller;
use crate::edge::problem::Problem;
use crate::edge::state::Edge;
use celery::task::TaskId;
use ledger::{Filter, Page, Task};
use runtime::clock::Time;

/// The most tasks that a list reads and shows, as many as Flower keeps in memory by default.
const MOST: usize = 10_000;
/// The default limit.
const USUAL: usize = 500;
const PAGE: i64 = 500;

pub async fn list(State(edge): State<Edge>, caller: Caller, given: Arguments) -> Result<Response, Problem> {
    let wanted = match Wanted::of(&given) {
        Ok(wanted) => wanted,
        Err(refused) => return Ok(*refused),
    };
    let mut found = matching(&edge, &caller, &wanted).await?;
    wanted.sort(&mut found);
    let mut shown = Map::new();
    for task in found.iter().skip(wanted.offset).take(wanted.limit) {
        let message = edge.gateway.task_with_message(&task.id).await?.and_then(|(_, message)| message);
        let mut view = view::task(task, message.as_ref());
        if task.worker.is_none() {
            view.remove("worker");
        }
        shown.insert(task.id.to_string(), view.into());
    }
    Ok(answer(&Value::Object(shown)))
}

async fn matching(edge: &Edge, caller: &Caller, wanted: &Wanted) -> Result<Vec<Task>, Problem> {
    let enough = if wanted.sort_by.is_some() { MOST } else { (wanted.offset + wanted.limit).min(MOST) };
    let (mut found, mut seen, mut after) = (Vec::new(), 0, None);
    loop {
        let filter = caller.narrow(wanted.filter.clone());
        let (tasks, next) = edge.gateway.tasks(&filter, &Page { limit: PAGE, after }).await?;
        seen += tasks.len();
        found.extend(tasks.into_iter().filter(|task| wanted.takes(task)));
        after = next;
        if after.is_none() || found.len() >= enough || seen >= MOST {
            return Ok(found);
        }
    }
}

/// The parameters of a list.
struct Wanted {
    filter: Filter,
    limit: usize,
    offset: usize,
    sort_by: Option<(Key, bool)>,
    received: (Option<Time>, Option<Time>),
}

#[derive(Clone, Copy)]
enum Key {
    Name,
    State,
    Received,
    Started,
}

impl Wanted {
    fn of(given: &Arguments) -> Result<Self, Box<Response>> {
        let value =
            |name: &str| given.text(name).filter(|value| *value != "All").map(str::to_owned).into_iter().collect();
        let filter = Filter {
            task: value("taskname"),
            worker: value("workername"),
            status: value("state"),
            q: given.text("search").map(str::to_owned),
            ..Filter::default()
        };
        let limit = given.number::<usize>("limit")?.filter(|limit| *limit > 0).unwrap_or(USUAL).min(MOST);
        let offset = usize::try_from(given.number::<i64>("offset")?.unwrap_or(0)).unwrap_or(0);
        let sort_by = given.text("sort_by").map(sort_key).transpose()?;
        let received = (moment(given, "received_start")?, moment(given, "received_end")?);
        Ok(Self { filter, limit, offset: offset.min(MOST), sort_by, received })
    }

    fn takes(&self, task: &Task) -> bool {
        let (from, to) = self.received;
        let Some(at) = task.received_at else { return true };
        from.is_none_or(|from| at >= from) && to.is_none_or(|to| at <= to)
    }

    /// Sorts the tasks. The default, newest first, is the ledger's order.
    fn sort(&self, tasks: &mut [Task]) {
        let Some((key, reverse)) = self.sort_by else { return };
        match key {
            Key::Name => tasks.sort_by(|a, b| a.name.cmp(&b.name)),
            Key::State => tasks.sort_by(|a, b| a.status.cmp(&b.status)),
            Key::Received => tasks.sort_by_key(|task| task.received_at),
            Key::Started => tasks.sort_by_key(|task| task.started_at),
        }
        if reverse {
            tasks.reverse();
        }
    }
}

fn sort_key(text: &str) -> Result<(Key, bool), Box<Response>> {
    let (word, reverse) = text.strip_prefix('-').map_or((text, false), |word| (word, true));
    let key = match word {
        "name" => Key::Name,
        "state" => Key::State,
        "received" => Key::Received,
        "started" => Key::Started,
        _ => return Err(Box::new(empty(StatusCode::INTERNAL_SERVER_ERROR))),
    };
    Ok((key, reverse))
}

/// `2026-11-30 17:05`, in UTC.
fn moment(given: &Arguments, name: &str) -> Result<Option<Time>, Box<Response>> {
    let Some(text) = given.text(name) else { return Ok(None) };
    let read = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M", text)
        .and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC))
        .map(|at| Time(at.timestamp().as_microsecond()));
    read.map(Some).map_err(|_| Box::new(empty(StatusCode::INTERNAL_SERVER_ERROR)))
}

pub async fn info(State(edge): State<Edge>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    let unknown = || empty(StatusCode::NOT_FOUND);
    let Ok(id) = TaskId::parse(&id) else { return Ok(unknown()) };
    match edge.gateway.task_with_message(&id).await? {
        Some((task, message)) if caller.visibility().sees_task(&task) => {
            Ok(answer(&Value::Object(view::task(&task, message.as_ref()))))
        }
        Some(_) | None => Ok(unknown()),
    }
}

pub async fn types(State(edge): State<Edge>, caller: Caller) -> Result<Response, Problem> {
    let visibility = caller.visibility();
    let mut names = edge.gateway.seen_names().await?;
    names.retain(|name| visibility.sees(Some(name)));
    Ok(answer(&json!({"task-types": names})))
}

pub async fn queue_lengths(State(edge): State<Edge>) -> Result<Response, Problem> {
    let queues = edge.gateway.queues().await?;
    let active = queues.iter().filter(|queue| queue.consumers > 0);
    let shown: Vec<Value> = active.map(|queue| json!({"name": queue.name, "messages": queue.depth.total()})).collect();
    Ok(answer(&json!({"active_queues": shown})))
}
