//! Large fan-outs: accepted whole, written piece by piece, each piece once.

use celery::task::{GroupId, TaskId};
use ledger::{NewFanOut, NewGroup, Submission};

use super::fixture::{Fixture, new_id, submission, task};
use super::on_both;

on_both!(a_fan_out_is_written_piece_by_piece_and_then_gone, a_piece_is_written_once, a_fan_out_comes_with_its_group);

fn fan_out(total: i32) -> (Submission, GroupId, TaskId) {
    let root = new_id();
    let group = GroupId::parse(new_id().as_str()).unwrap();
    let new = NewFanOut { group_id: group.clone(), root_id: root.clone(), total, plan: r#"{"a": "é"}"#.into() };
    let of = NewGroup { id: group.clone(), root_id: root.clone(), total, chord_size: None, structure: None };
    (Submission { groups: vec![of], fan_out: Some(new), ..submission(Vec::new()) }, group, root)
}

fn piece(group: &GroupId, root: &TaskId, ids: &[TaskId]) -> Submission {
    let member = |(index, id): (usize, &TaskId)| {
        let mut task = task(id);
        (task.group_id, task.group_index, task.root_id) =
            (Some(group.clone()), i32::try_from(index).ok(), root.clone());
        task
    };
    submission(ids.iter().enumerate().map(member).collect())
}

async fn a_fan_out_is_written_piece_by_piece_and_then_gone(ledger: &Fixture) {
    let (whole, group, root) = fan_out(3);
    assert!(ledger.insert(whole).await.task_nos.is_empty());
    let first = ledger.ledger.next_fan_out(0).await.unwrap().expect("one waits");
    assert_eq!((&first.group_id, &first.root_id, first.total, first.written), (&group, &root, 3, 0));
    assert_eq!(first.plan, r#"{"a": "é"}"#);
    let two = piece(&group, &root, &[root.clone(), new_id()]);
    assert_eq!(ledger.ledger.write_piece(&first, &two).await.unwrap().expect("written").task_nos.len(), 2);
    let second = ledger.ledger.next_fan_out(0).await.unwrap().expect("one waits");
    assert_eq!((second.no, second.written), (first.no, 2));
    assert!(ledger.ledger.next_fan_out(second.no).await.unwrap().is_none());
    let last = piece(&group, &root, &[new_id()]);
    ledger.ledger.write_piece(&second, &last).await.unwrap().expect("written");
    assert!(ledger.ledger.next_fan_out(0).await.unwrap().is_none());
    let found = ledger.ledger.group(&group).await.unwrap().expect("the group");
    assert_eq!((found.total, found.members.len()), (3, 3));
}

async fn a_piece_is_written_once(ledger: &Fixture) {
    let (whole, group, root) = fan_out(4);
    ledger.insert(whole).await;
    let seen = ledger.ledger.next_fan_out(0).await.unwrap().expect("one waits");
    let other = ledger.another();
    let (ours, theirs) = (piece(&group, &root, &[new_id(), new_id()]), piece(&group, &root, &[new_id(), new_id()]));
    let (ours, theirs) = tokio::join!(ledger.ledger.write_piece(&seen, &ours), other.write_piece(&seen, &theirs));
    assert_eq!(usize::from(ours.unwrap().is_some()) + usize::from(theirs.unwrap().is_some()), 1);
    assert_eq!(ledger.ledger.group(&group).await.unwrap().expect("the group").members.len(), 2);
}

async fn a_fan_out_comes_with_its_group(ledger: &Fixture) {
    let (whole, group, _) = fan_out(4);
    ledger.insert(whole.clone()).await;
    let again = ledger.try_insert(whole).await.expect_err("the group is taken");
    assert!(matches!(again, ledger::Conflict::GroupId(id) if id == group));
    let first = ledger.ledger.next_fan_out(0).await.unwrap().expect("one waits");
    assert!(ledger.ledger.next_fan_out(first.no).await.unwrap().is_none(), "the refused one left something behind");
}
