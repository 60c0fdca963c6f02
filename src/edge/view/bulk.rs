//! Operations on many tasks as the API shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::edge::base;
use crate::usecase::bulk::Preview;
use ledger::{Bulk, BulkAction};

/// An operation on many tasks.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Bulk)]
pub struct BulkView {
    pub id: String,
    /// `retry`, `revoke`, `requeue` or `dismiss`.
    #[schema(value_type = String, example = "retry")]
    pub action: &'static str,
    /// `running`, `paused`, `cancelled` or `done`.
    #[schema(value_type = String, example = "running")]
    pub state: &'static str,
    /// The request: `filter`, and if given `rate`, `include_succeeded`, `terminate`, `reason`.
    #[schema(value_type = Object)]
    pub request: Box<RawValue>,
    /// Tasks that it found when it was accepted; null if counting them would have taken too long.
    pub total: Option<i64>,
    /// Tasks that were processed.
    pub done: i64,
    /// Tasks that were skipped: they ended meanwhile, were sent again before, or cannot be sent again.
    pub skipped: i64,
    /// Tasks for which the action was refused.
    pub failed: i64,
    /// The number of tasks for each outcome: `retried`, `prevented`, `signalled`, `requeued`, `dismissed`, `skipped`, `failed`.
    #[schema(value_type = Object, example = json!({"retried": 12, "skipped": 1}))]
    pub outcomes: BTreeMap<String, i64>,
    /// The last 20 tasks that were skipped or refused.
    pub errors: Vec<BulkErrorView>,
    /// Who started it.
    pub who: String,
    pub created_at: String,
    pub changed_at: String,
    pub finished_at: Option<String>,
    pub links: BulkLinks,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = BulkError)]
pub struct BulkErrorView {
    pub task_id: String,
    pub detail: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BulkLinks {
    #[serde(rename = "self")]
    pub this: String,
    pub pause: String,
    pub resume: String,
    pub cancel: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BulkList)]
pub struct BulkListView {
    pub bulks: Vec<BulkView>,
}

/// The tasks that an operation would change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BulkPreview)]
pub struct PreviewBulkView {
    /// Always true.
    pub dry_run: bool,
    #[schema(value_type = String, example = "retry")]
    pub action: &'static str,
    /// Tasks that the operation would change.
    pub matched: i64,
    /// All tasks that the filter finds, by phase, whether or not the operation would change them.
    #[schema(value_type = Object, example = json!({"failed": 12, "lost": 1, "succeeded": 4000}))]
    pub by_phase: BTreeMap<&'static str, i64>,
    /// Tasks of `matched` that were already sent again: a retry skips them.
    pub already_retried: i64,
    /// There are more tasks than were counted (counting stops at 20,000, or after three seconds).
    pub more: bool,
}

impl BulkView {
    pub fn of(bulk: &Bulk) -> Self {
        let this = base::path(&format!("/v1/bulk/{}", bulk.id));
        Self {
            id: bulk.id.clone(),
            action: bulk.action.as_str(),
            state: bulk.state.as_str(),
            request: request(&bulk.plan),
            total: bulk.total,
            done: bulk.done,
            skipped: bulk.skipped,
            failed: bulk.failed,
            outcomes: serde_json::from_str(&bulk.outcomes).unwrap_or_default(),
            errors: serde_json::from_str(&bulk.errors).unwrap_or_default(),
            who: bulk.who.clone(),
            created_at: bulk.created_at.rfc3339(),
            changed_at: bulk.changed_at.rfc3339(),
            finished_at: bulk.finished_at.map(|at| at.rfc3339()),
            links: BulkLinks {
                pause: format!("{this}/pause"),
                resume: format!("{this}/resume"),
                cancel: format!("{this}/cancel"),
                this,
            },
        }
    }
}

impl PreviewBulkView {
    pub fn of(action: BulkAction, preview: &Preview) -> Self {
        Self {
            dry_run: true,
            action: action.as_str(),
            matched: preview.matched,
            by_phase: preview.by_phase.iter().map(|(phase, count)| (phase.as_str(), *count)).collect(),
            already_retried: preview.retried,
            more: preview.more,
        }
    }
}

/// The part of the plan that the client sent.
fn request(plan: &str) -> Box<RawValue> {
    #[derive(Deserialize)]
    struct Given {
        given: Box<RawValue>,
    }
    let nothing = || RawValue::from_string("{}".to_owned()).expect("this is JSON");
    serde_json::from_str(plan).map_or_else(|_| nothing(), |plan: Given| plan.given)
}
