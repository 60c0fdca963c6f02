//! Builds the rows that a submission has besides its tasks: groups, edges, keys.

use celery::plan::{Plan, PlannedDag, PlannedPart};
use celery::task::TaskId;
use celery::task::canvas::EdgeKind;
use ledger::{Edge, NewDag, NewGroup, NewPart};
use runtime::clock;

pub(super) fn groups(plan: &Plan) -> Vec<NewGroup> {
    let root = plan.root.clone();
    let group = |group: &celery::task::canvas::Group| NewGroup {
        id: group.id.clone(),
        root_id: root.clone().unwrap_or_else(|| TaskId::from(clock::new_id())),
        total: i32::try_from(group.members.len()).unwrap_or(i32::MAX),
        chord_size: plan
            .chord_sizes
            .iter()
            .find(|(id, _)| *id == group.id)
            .and_then(|(_, size)| i32::try_from(*size).ok()),
        structure: plan
            .saved_groups
            .iter()
            .find(|(id, _)| *id == group.id)
            .and_then(|(_, text)| celery::task::json::verbatim(text.clone()).ok()),
    };
    plan.groups.iter().map(group).collect()
}

pub(super) fn edge((from, to, kind): &(usize, usize, EdgeKind)) -> Edge {
    Edge { from: *from, to: *to, kind: *kind }
}

pub(super) fn dag(whole: PlannedDag, root_id: TaskId) -> NewDag {
    let part = |PlannedPart { entries, document }| NewPart { entries, document };
    NewDag { root_id, document: whole.document, parts: whole.parts.into_iter().map(part).collect(), joins: whole.joins }
}

pub(super) fn recovery(said: Option<crate::catalog::Recovery>, idempotent: bool) -> Option<String> {
    match said {
        Some(recovery) => Some(recovery.as_str().to_owned()),
        None => idempotent.then(|| "rerun".to_owned()),
    }
}
