//! Query parameters of statistics, of metrics and of requests to workers.

use std::time::Duration;

use axum::http::Uri;

use super::query::{Checked, Parameters};
use crate::edge::problem::Problem;
use crate::guard::tokens::Visibility;
use crate::usecase::inspect;
use crate::usecase::stats::Question;
use runtime::clock::Time;

/// The parameters of `GET /v1/inspect/{method}`.
pub struct InspectQuery {
    /// Node names; `None` for all.
    pub destination: Option<Vec<String>>,
    pub patience: Duration,
    /// The method's own arguments, as written.
    pub arguments: Vec<(String, Vec<String>)>,
}

/// Reads `destination`, `timeout` and the method's own arguments.
///
/// # Errors
/// As [`list_query`](super::list_query).
pub fn inspect_query(uri: &Uri, own: &[&str]) -> Result<InspectQuery, Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &[&["destination", "timeout"][..], own].concat());
    let destination = checked.many(&parameters, "destination");
    let patience = match checked.single(&parameters, "timeout").map(|text| (text, text.parse::<f64>())) {
        None => inspect::DEFAULT_PATIENCE,
        Some((_, Ok(secs))) if secs > 0.0 && secs <= inspect::MAX_PATIENCE.as_secs_f64() => {
            Duration::from_secs_f64(secs)
        }
        Some((text, _)) => {
            checked.refuse("timeout", format!("{text:?} is not a number of seconds above 0 and at most 30"));
            inspect::DEFAULT_PATIENCE
        }
    };
    let mut arguments = Vec::new();
    for name in own {
        let values = checked.many(&parameters, name);
        if !values.is_empty() {
            arguments.push(((*name).to_owned(), values));
        }
    }
    let destination = (!destination.is_empty()).then_some(destination);
    checked.done(InspectQuery { destination, patience, arguments })
}

/// Whether `GET /metrics` should show the fleet's metrics, if given.
///
/// # Errors
/// As [`list_query`](super::list_query).
pub fn metrics_query(uri: &Uri) -> Result<Option<bool>, Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, &["fleet"]);
    let fleet = match checked.single(&parameters, "fleet") {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => {
            checked.refuse("fleet", "must be true or false");
            None
        }
    };
    checked.done(fleet)
}

const STATS: [&str; 5] = ["from", "to", "step", "task", "queue"];
const QUEUE_HISTORY: [&str; 4] = ["from", "to", "step", "queue"];
const WORKER_HISTORY: [&str; 4] = ["from", "to", "step", "worker"];
const HOUR: Duration = Duration::from_secs(3_600);
/// Number of points in an answer when no step is given.
const POINTS: u64 = 120;
/// Maximum number of points.
const MAX_POINTS: u64 = 2_000;

/// Reads the query of `GET /v1/stats/…`.
///
/// # Errors
/// As [`list_query`](super::list_query).
pub fn stats_query(uri: &Uri, now: Time) -> Result<Question, Problem> {
    question(uri, now, &STATS, "task")
}

/// Reads the query of `GET /v1/stats/queues`.
///
/// # Errors
/// As [`list_query`](super::list_query).
pub fn queue_history_query(uri: &Uri, now: Time) -> Result<Question, Problem> {
    question(uri, now, &QUEUE_HISTORY, "task")
}

/// Reads the query of `GET /v1/stats/workers`: its names are workers.
///
/// # Errors
/// As [`list_query`](super::list_query).
pub fn worker_history_query(uri: &Uri, now: Time) -> Result<Question, Problem> {
    question(uri, now, &WORKER_HISTORY, "worker")
}

fn question(uri: &Uri, now: Time, known: &[&str], names: &str) -> Result<Question, Problem> {
    let parameters = Parameters::of(uri)?;
    let mut checked = Checked::default();
    checked.known(&parameters, known);
    let to = checked.time(&parameters, "to").unwrap_or(now);
    let from = checked.time(&parameters, "from").unwrap_or_else(|| to.minus(HOUR));
    if from >= to {
        checked.refuse("from", "must be before `to`");
    }
    let length = to.since(from).as_secs();
    let step = match checked.single(&parameters, "step").map(str::parse::<u64>) {
        None => (length / POINTS).max(1).next_multiple_of(60),
        Some(Ok(step)) if step > 0 && step.is_multiple_of(60) && length / step <= MAX_POINTS => step,
        Some(_) => {
            checked.refuse("step", format!("must be a multiple of 60 that gives at most {MAX_POINTS} points"));
            60
        }
    };
    let names = checked.many(&parameters, names);
    let queues = checked.many(&parameters, "queue");
    checked.done(Question {
        from,
        to,
        step: Duration::from_secs(step),
        names,
        queues,
        visibility: Visibility::default(),
    })
}
