//! A group: its members' results in order.

use crate::edge::answer::Lends;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::ErrorView;
use celery::task::Phase;
use ledger::Group;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Group)]
pub struct GroupView<'a> {
    #[schema(value_type = String)]
    pub group_id: &'a str,
    /// `PENDING` until all are finished, then `SUCCESS`, or `FAILURE` when one did not succeed.
    #[schema(value_type = String, example = "SUCCESS")]
    pub status: &'static str,
    pub ready: bool,
    pub completed: i32,
    pub total: i32,
    /// Return values in order; null for a member that has none (yet).
    #[schema(value_type = Vec<serde_json::Value>)]
    pub result: Vec<Option<&'a RawValue>>,
    pub children: Vec<MemberView<'a>>,
}

impl Lends for GroupView<'static> {
    type With<'a> = GroupView<'a>;
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GroupMember)]
pub struct MemberView<'a> {
    #[schema(value_type = String)]
    pub task_id: &'a str,
    #[schema(value_type = Option<String>)]
    pub task: Option<&'a str>,
    #[schema(value_type = String)]
    pub status: &'a str,
    #[schema(value_type = String)]
    pub phase: Phase,
    pub error: Option<ErrorView<'a>>,
}

impl<'a> GroupView<'a> {
    pub fn of(group: &'a Group) -> Self {
        let completed = group.completed();
        let ready = completed >= group.total;
        let all_well = group.members.iter().all(|member| member.phase == Phase::Succeeded);
        Self {
            group_id: group.id.as_str(),
            status: match (ready, all_well) {
                (false, _) => "PENDING",
                (true, true) => "SUCCESS",
                (true, false) => "FAILURE",
            },
            ready,
            completed,
            total: group.total,
            result: group.members.iter().map(|member| member.result.as_deref()).collect(),
            children: group.members.iter().map(MemberView::of).collect(),
        }
    }
}

impl<'a> MemberView<'a> {
    fn of(member: &'a ledger::GroupMember) -> Self {
        Self {
            task_id: member.task_id.as_str(),
            task: member.name.as_deref(),
            status: &member.status,
            phase: member.phase,
            error: member.failure.as_ref().map(ErrorView::of),
        }
    }
}

/// The progress of a group: how many members have ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GroupProgress)]
pub struct GroupEventView<'a> {
    #[schema(value_type = String)]
    pub group_id: &'a str,
    pub completed: i32,
    pub total: i32,
}
