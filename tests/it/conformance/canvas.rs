//! Groups, graphs, leases.

use std::time::Duration;

use celery::task::{GroupId, Phase};
use ledger::{Edge, EdgeKind, Fence, NewGroup, Submission};

use super::fixture::{Fixture, T0, after, event, failure, json, new_id, record, submission, task};
use super::on_both;

on_both!(
    a_group_shows_its_members_in_order,
    a_graph_is_the_whole_canvas,
    a_lease_is_held_by_one_and_fenced_by_its_term,
);

async fn a_group_shows_its_members_in_order(ledger: &Fixture) {
    let group = GroupId::parse("g").unwrap();
    let (first, second) = (new_id(), new_id());
    let member = |id, index| {
        let mut new = task(id);
        (new.group_id, new.group_index) = (Some(group.clone()), Some(index));
        new
    };
    let groups =
        vec![NewGroup { id: group.clone(), root_id: first.clone(), total: 2, chord_size: None, structure: None }];
    ledger.insert(Submission { groups, ..submission(vec![member(&second, 1), member(&first, 0)]) }).await;
    let mut done = record(&first, Phase::Succeeded, 2);
    done.result = Some(json("[1]"));
    let mut failed = record(&second, Phase::Failed, 3);
    failed.failure = Some(failure("KeyError", "'x'"));
    ledger.learn(&[done, failed], true).await.unwrap();

    let found = ledger.group(&group).await.unwrap().unwrap();
    assert_eq!((found.total, found.root_id, found.submitted_at), (2, first.clone(), T0));
    assert_eq!(found.members.iter().map(|member| member.task_id.clone()).collect::<Vec<_>>(), [first, second]);
    assert_eq!(found.members[0].result.as_ref().unwrap().get(), "[1]");
    assert_eq!(
        (found.members[1].phase, found.members[1].failure.clone()),
        (Phase::Failed, Some(failure("KeyError", "'x'")))
    );
    assert!(ledger.group(&GroupId::parse("other").unwrap()).await.unwrap().is_none());
}

async fn a_graph_is_the_whole_canvas(ledger: &Fixture) {
    let ids = [new_id(), new_id(), new_id()];
    let tasks = ids
        .iter()
        .map(|id| {
            let mut new = task(id);
            new.root_id = ids[0].clone();
            new
        })
        .collect();
    let edges = vec![Edge { from: 0, to: 1, kind: EdgeKind::Next }, Edge { from: 1, to: 2, kind: EdgeKind::LinkError }];
    ledger.insert(Submission { edges, ..submission(tasks) }).await;
    for id in &ids {
        let (nodes, edges) = ledger.graph(id).await.unwrap().unwrap();
        assert_eq!(nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>(), ids);
        let [a, b, c] = ids.clone();
        assert_eq!(edges, [(a, b.clone(), EdgeKind::Next), (b, c, EdgeKind::LinkError)]);
    }
    let alone = new_id();
    ledger.accept(&alone).await;
    let (nodes, edges) = ledger.graph(&alone).await.unwrap().unwrap();
    assert_eq!((nodes.len(), edges.len()), (1, 0));
    assert!(ledger.graph(&new_id()).await.unwrap().is_none());
}

async fn a_lease_is_held_by_one_and_fenced_by_its_term(ledger: &Fixture) {
    let ttl = Duration::from_secs(10);
    let take = async |holder: &str, seconds| ledger.lease("recorder", holder, after(seconds), ttl).await.unwrap();
    let first = take("a", 0).await.unwrap();
    assert_eq!(first.expires_at, after(10));
    assert_eq!(take("b", 9).await, None);
    let renewed = take("a", 9).await.unwrap();
    assert_eq!((renewed.term, renewed.expires_at), (first.term, after(19)));
    let second = take("b", 19).await.unwrap();
    assert!(second.term > first.term);
    assert_eq!(take("a", 20).await, None);

    ledger.release("recorder", "a").await.unwrap();
    assert_eq!(take("a", 21).await, None);
    ledger.release("recorder", "b").await.unwrap();
    let third = take("a", 21).await.unwrap();
    assert!(third.term > second.term);

    if ledger.is_postgres() {
        // A write that takes longer than the lease. A replica that waits for its end finds a live holder.
        let fence = |term| Fence { lease: "recorder", term, until: after(40) };
        let id = new_id();
        ledger.accept(&id).await;
        let news = [event(&id, Phase::Received, 22)];
        assert_eq!(
            ledger.learn_fenced(&news, true, &fence(second.term)).await.unwrap().map(|events| events.len()),
            None
        );
        assert_eq!(take("b", 30).await, None, "a write of an older term renews nothing");
        assert_eq!(
            ledger.learn_fenced(&news, true, &fence(third.term)).await.unwrap().map(|events| events.len()),
            Some(1)
        );
        assert_eq!(take("b", 39).await, None);
    }

    let mut racers = Vec::new();
    for racer in 0..8 {
        let ledger = ledger.ledger.clone();
        racers.push(tokio::spawn(async move {
            ledger.lease("beat", &format!("r{racer}"), after(0), ttl).await.unwrap().is_some()
        }));
    }
    let mut holders = 0;
    for racer in racers {
        holders += usize::from(racer.await.unwrap());
    }
    assert_eq!(holders, 1);
}
