//! Results of operations on all tasks of a group or a canvas: a verdict for each, and totals.

use serde::Serialize;
use utoipa::ToSchema;

use super::AcceptedView;
use super::control::RevokedView;
use crate::usecase::revoke::{Revoked, Verdict};
use crate::usecase::together::Retried;
use celery::task::TaskId;

/// One verdict, or those of many.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = RevokedOneOrAll)]
pub enum RevokedAnswer {
    One(RevokedView),
    Together(RevokedTogetherView),
}

/// The new task, or the outcome for each member.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = RetriedOneOrAll)]
pub enum RetriedAnswer {
    One(Box<AcceptedView>),
    Together(RetriedTogetherView),
}

/// The outcome of a revoke of a group or of a whole canvas.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RevokedTogether)]
pub struct RevokedTogetherView {
    /// The id in the request.
    pub task_id: String,
    /// The weakest verdict of all tasks: `signalled` when a worker has one of them, `prevented` when every unfinished one was removed,
    /// `too_late` when all had ended.
    #[schema(value_type = String, example = "signalled")]
    pub verdict: &'static str,
    /// Certainly none of them runs any more.
    pub confirmed: bool,
    /// A sentence with the counts.
    pub detail: String,
    pub prevented: usize,
    pub signalled: usize,
    pub too_late: usize,
    /// One for each task; left out above 1,000.
    pub members: Vec<RevokedView>,
}

/// The most members that are listed; more are only counted.
const LISTED: usize = 1_000;

impl RevokedTogetherView {
    pub fn of(id: &TaskId, all: Vec<Revoked>) -> Self {
        let count = |verdict| all.iter().filter(|revoked| revoked.verdict == verdict).count();
        let (prevented, signalled, too_late) =
            (count(Verdict::Prevented), count(Verdict::Signalled), count(Verdict::TooLate));
        let verdict = match (signalled, prevented) {
            (0, 0) => "too_late",
            (0, _) => "prevented",
            _ => "signalled",
        };
        let total = all.len();
        Self {
            task_id: id.to_string(),
            verdict,
            confirmed: all.iter().all(|revoked| revoked.confirmed),
            detail: format!(
                "of {total} tasks {prevented} will never run, {signalled} were with a worker, {too_late} had ended"
            ),
            prevented,
            signalled,
            too_late,
            members: if total > LISTED { Vec::new() } else { all.into_iter().map(RevokedView::from).collect() },
        }
    }
}

/// The outcome of a retry of a group.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetriedTogether)]
pub struct RetriedTogetherView {
    pub group_id: String,
    /// Members that were sent again.
    pub retried: usize,
    /// Members that were left alone.
    pub left: usize,
    pub members: Vec<RetriedMemberView>,
}

/// One member: the id of its new task, or why it was not sent again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetriedMember)]
pub struct RetriedMemberView {
    pub task_id: String,
    pub retried_as: Option<String>,
    pub reason: Option<String>,
}

impl RetriedTogetherView {
    pub fn of(id: &TaskId, all: Vec<(TaskId, Retried)>) -> Self {
        let member = |(id, retried): (TaskId, Retried)| {
            let (retried_as, reason) = match retried {
                Retried::As(next) => (Some(next.to_string()), None),
                Retried::Left(reason) => (None, Some(reason)),
            };
            RetriedMemberView { task_id: id.to_string(), retried_as, reason }
        };
        let members: Vec<RetriedMemberView> = all.into_iter().map(member).collect();
        let retried = members.iter().filter(|member| member.retried_as.is_some()).count();
        Self { group_id: id.to_string(), retried, left: members.len() - retried, members }
    }
}
