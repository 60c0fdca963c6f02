//! The end of history: pruning and tombstones.

use celery::task::{GroupId, Phase, TaskId};
use ledger::{Filter, NewGroup, Submission, UniqueKey};

use super::fixture::{Fixture, after, alone, new_id, record, submission, task};
use super::on_both;

on_both!(
    what_finished_long_ago_leaves_a_tombstone,
    pruning_goes_in_bounded_steps,
    payloads_go_before_the_tasks,
    a_pruned_task_is_not_adopted_again,
    expired_keys_go,
    a_revoke_is_asked_for_once,
);

async fn finish(ledger: &Fixture, id: &TaskId, seconds: i64) {
    ledger.learn(&[record(id, Phase::Succeeded, seconds)], true).await.unwrap();
}

async fn what_finished_long_ago_leaves_a_tombstone(ledger: &Fixture) {
    let (old, recent, running) = (new_id(), new_id(), new_id());
    let group = GroupId::parse("g").unwrap();
    let mut member = task(&old);
    member.group_id = Some(group.clone());
    member.labels = vec![("user".to_owned(), "7".to_owned())];
    let groups =
        vec![NewGroup { id: group.clone(), root_id: old.clone(), total: 1, chord_size: None, structure: None }];
    ledger.insert(Submission { groups, ..submission(vec![member]) }).await;
    for id in [&recent, &running] {
        ledger.queue(id).await;
    }
    finish(ledger, &old, 5).await;
    finish(ledger, &recent, 100).await;

    assert_eq!(ledger.prune(after(50), 100, after(1000)).await.unwrap(), 1);
    assert_eq!(ledger.prune(after(50), 100, after(1001)).await.unwrap(), 0);
    assert!(ledger.ledger.task(&old).await.unwrap().is_none());
    assert!(ledger.events(&old, 0, 10).await.unwrap().is_empty());
    assert!(ledger.message(&old).await.unwrap().is_none());
    assert!(ledger.group(&group).await.unwrap().is_none());
    assert!(ledger.list(Filter { labels: vec![("user".into(), "7".into())], ..Filter::default() }).await.is_empty());
    assert_eq!(ledger.tombstone(old.as_str()).await.unwrap(), Some(after(1000)));
    assert_eq!(ledger.tombstone(recent.as_str()).await.unwrap(), None);
    assert_eq!(ledger.list(Filter::default()).await, [running, recent]);
}

async fn pruning_goes_in_bounded_steps(ledger: &Fixture) {
    let stuck = new_id();
    ledger.queue(&stuck).await;
    let ids: Vec<TaskId> = (0..25).map(|_| new_id()).collect();
    for id in &ids {
        ledger.queue(id).await;
        finish(ledger, id, 2).await;
    }
    let mut steps = Vec::new();
    loop {
        let gone = ledger.prune(after(50), 10, after(60)).await.unwrap();
        steps.push(gone);
        if gone < 10 {
            break;
        }
    }
    assert_eq!(steps, [10, 10, 5]);
    assert_eq!(ledger.list(Filter::default()).await, [stuck]);
}

async fn payloads_go_before_the_tasks(ledger: &Fixture) {
    let (old, running) = (new_id(), new_id());
    for id in [&old, &running] {
        ledger.queue(id).await;
    }
    finish(ledger, &old, 5).await;
    assert_eq!(ledger.prune_payload(after(5), 10).await.unwrap(), 0);
    assert_eq!(ledger.prune_payload(after(6), 10).await.unwrap(), 1);
    assert!(ledger.message(&old).await.unwrap().is_none());
    assert!(ledger.message(&running).await.unwrap().is_some());
    assert_eq!(ledger.phase(&old).await, Phase::Succeeded);
    assert!(ledger.requeue(&old, ledger.task(&old).await.seq, "gone", after(9)).await.is_none());
}

async fn a_pruned_task_is_not_adopted_again(ledger: &Fixture) {
    let old = new_id();
    ledger.queue(&old).await;
    finish(ledger, &old, 5).await;
    ledger.prune(after(50), 100, after(60)).await.unwrap();
    let mut late = record(&old, Phase::Succeeded, 70);
    late.adoption = Some(ledger::Adoption::default());
    assert!(ledger.learn(&[late], true).await.unwrap().is_empty());
    assert!(ledger.ledger.task(&old).await.unwrap().is_none());
}

async fn expired_keys_go(ledger: &Fixture) {
    let id = new_id();
    let unique = Some(UniqueKey { key: "k".to_owned(), until: Some(after(10)), task_id: id.clone(), replaces: None });
    ledger.insert(Submission { unique, ..alone(task(&id)) }).await;
    let active = new_id();
    let unique = Some(UniqueKey { key: "a".to_owned(), until: None, task_id: active.clone(), replaces: None });
    ledger.insert(Submission { unique, ..alone(task(&active)) }).await;
    assert_eq!(ledger.prune_keys(after(9), 100).await.unwrap(), 0);
    assert_eq!(ledger.prune_keys(after(10), 100).await.unwrap(), 1);
}

async fn a_revoke_is_asked_for_once(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let first = ledger.request_revoke(&id, after(3)).await.unwrap().unwrap();
    assert_eq!((first.revoke_requested_at, first.seq), (Some(after(3)), 2));
    let second = ledger.request_revoke(&id, after(9)).await.unwrap().unwrap();
    assert_eq!(second.revoke_requested_at, Some(after(3)));
    assert!(ledger.request_revoke(&new_id(), after(9)).await.unwrap().is_none());
}
