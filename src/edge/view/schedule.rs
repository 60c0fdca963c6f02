//! A schedule as clients see it: its document verbatim (with the catalog's masks), its state and its ticks.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Mask;
use crate::catalog::Catalog;
use celery::task::json::{self, Fields};
use celery::task::{Json, Submission, signature};
use ledger::{Run, Schedule};
use runtime::uri::encoded;

/// Members with data that clients sent to tasks.
const CARRIERS: [&str; 7] = ["args", "kwargs", "link", "link_error", "chain", "group", "chord"];
/// Defaults for members that the document does not have.
const DEFAULTS: [(&str, &str); 4] =
    [("timezone", "\"UTC\""), ("catch_up", "\"last\""), ("overlap", "\"allow\""), ("jitter", "0")];

/// The path of a schedule of this name.
pub fn schedule_path(name: &str) -> String {
    crate::edge::base::path(&format!("/v1/schedules/{}", encoded(name)))
}

/// JSON text of one schedule, with the name that the caller uses.
pub fn schedule_text(schedule: &Schedule, name: &str, catalog: &Catalog) -> String {
    let redact = redacted(schedule, catalog);
    let mask = Mask::new(&redact);
    let mut members = vec![("name".to_owned(), json_of(&name))];
    let fields = Fields::parse(schedule.document.get()).unwrap_or_default();
    for (name, value) in fields.iter() {
        let shown: Json =
            if CARRIERS.contains(&name) { mask.json(value).into_owned() } else { RawValue::to_owned(value) };
        members.push((name.to_owned(), shown));
    }
    for (name, value) in DEFAULTS.into_iter().filter(|(name, _)| fields.get(name).is_none()) {
        members.push((name.to_owned(), json::written(value.to_owned())));
    }
    let path = schedule_path(name);
    let links = serde_json::json!({"self": path, "runs": format!("{path}/runs"), "preview": format!("{path}/preview")});
    members.extend([
        ("paused".to_owned(), json_of(&schedule.paused)),
        ("next_run_at".to_owned(), json_of(&schedule.next.map(|next| next.tick))),
        ("last_run_at".to_owned(), json_of(&schedule.last_run_at)),
        ("last_task_id".to_owned(), json_of(&schedule.last_task_id)),
        ("created_at".to_owned(), json_of(&schedule.created_at)),
        ("updated_at".to_owned(), json_of(&schedule.updated_at)),
        ("links".to_owned(), json_of(&links)),
    ]);
    schedule::definition::object(members.iter().map(|(name, value)| (name.as_str(), &**value))).get().to_owned()
}

fn json_of(value: &impl Serialize) -> Json {
    json::written(serde_json::to_string(value).expect("a view is JSON"))
}

/// Names of the fields that the catalog masks, for all tasks in the schedule.
fn redacted(schedule: &Schedule, catalog: &Catalog) -> Vec<String> {
    let fields = Fields::parse(schedule.document.get()).unwrap_or_default();
    let call =
        schedule::definition::object(fields.iter().filter(|(name, _)| !schedule::definition::MEMBERS.contains(name)));
    let mut names = Vec::new();
    if let Ok(submission) = Submission::parse(call.get(), signature::Limits::default()) {
        submission.signature.visit(&mut |task| names.extend(catalog.defaults_for(task.task.as_str()).redact));
    }
    names
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScheduleRun)]
pub struct RunView {
    /// The tick.
    #[schema(value_type = String, format = DateTime)]
    pub scheduled_at: runtime::clock::Time,
    #[schema(value_type = String, format = DateTime)]
    pub fired_at: runtime::clock::Time,
    /// `fired`, `skipped` (by a policy), `missed` (no gateway ran) or `failed` (it could not be submitted).
    #[schema(example = "fired")]
    pub outcome: &'static str,
    pub reason: Option<String>,
    pub task_id: Option<String>,
}

impl RunView {
    pub fn of(run: &Run) -> Self {
        Self {
            scheduled_at: run.scheduled_at,
            fired_at: run.fired_at,
            outcome: run.outcome.as_str(),
            reason: run.reason.clone(),
            task_id: run.task_id.as_ref().map(ToString::to_string),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScheduleRuns)]
pub struct RunListView {
    pub runs: Vec<RunView>,
    /// The value for `cursor`; null on the last page.
    pub next: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SchedulePreview)]
pub struct PreviewView {
    /// The next ticks, each with the zone's offset at that time.
    #[schema(example = json!(["2026-11-21T12:00:00+09:00"]))]
    pub ticks: Vec<String>,
}
