//! Stored workers, pauses and revokes; the order of tasks in a canvas.

use celery::task::Phase;
use ledger::{Edge, EdgeKind, Revocation, Worker, WorkerFacts};

use super::fixture::{Fixture, T0, after, event, failure, new_id, submission, task};

super::on_both!(
    a_worker_is_known_as_it_was_last_seen,
    a_pause_remembers_whom_it_sent_away,
    a_revoke_is_remembered_until_its_task_ends,
    a_step_knows_what_it_waits_for_and_what_follows,
    a_failure_without_a_reason_gets_one,
);

fn worker(name: &str, seen: i64, active: i64) -> Worker {
    let facts = WorkerFacts { active: Some(active), queues: vec!["celery".into()], ..WorkerFacts::default() };
    Worker { hostname: name.into(), seen_at: after(seen), offline_at: None, facts }
}

async fn a_worker_is_known_as_it_was_last_seen(fixture: &Fixture) {
    fixture.note_workers(&[worker("b@h", 5, 1), worker("a@h", 1, 0)]).await.unwrap();
    let left = Worker { offline_at: Some(after(7)), ..worker("b@h", 7, 2) };
    fixture.note_workers(&[left.clone(), worker("a@h", 0, 9)]).await.unwrap();
    assert_eq!(fixture.workers().await.unwrap(), [worker("a@h", 1, 0), left.clone()]);
    assert_eq!(fixture.forget_workers(after(2)).await.unwrap(), 1);
    assert_eq!(fixture.workers().await.unwrap(), [left]);
}

async fn a_pause_remembers_whom_it_sent_away(fixture: &Fixture) {
    let names = ["a@h".to_owned(), "b@h".to_owned()];
    fixture.note_paused_consumers("crawl", &names).await.unwrap();
    fixture.note_paused_consumers("crawl", &names[..1]).await.unwrap();
    fixture.note_paused_consumers("other", &names[..1]).await.unwrap();
    let mut taken = fixture.take_paused_consumers("crawl").await.unwrap();
    taken.sort();
    assert_eq!(taken, names);
    assert!(fixture.take_paused_consumers("crawl").await.unwrap().is_empty());
}

async fn a_revoke_is_remembered_until_its_task_ends(fixture: &Fixture) {
    let (ends, unknown) = (new_id(), new_id());
    fixture.queue(&ends).await;
    let revocation = |id: &celery::task::TaskId, seconds| Revocation {
        task_id: id.clone(),
        requested_at: after(seconds),
        terminate: false,
        signal: "SIGTERM".into(),
        reason: None,
    };
    fixture.remember_revocation(&revocation(&ends, 2)).await.unwrap();
    fixture.remember_revocation(&Revocation { terminate: true, ..revocation(&ends, 3) }).await.unwrap();
    fixture.remember_revocation(&revocation(&unknown, 1)).await.unwrap();
    let open = fixture.open_revocations(10).await.unwrap();
    assert_eq!(
        open.iter().map(|one| (&one.task_id, one.terminate)).collect::<Vec<_>>(),
        [(&ends, true), (&unknown, false)]
    );
    fixture.learn(&[event(&ends, Phase::Revoked, 4)], true).await.unwrap();
    assert_eq!(fixture.open_revocations(10).await.unwrap(), [revocation(&unknown, 1)]);
    assert_eq!(fixture.forget_revocations(after(5)).await.unwrap(), 2);
    assert!(fixture.open_revocations(10).await.unwrap().is_empty());
}

async fn a_step_knows_what_it_waits_for_and_what_follows(fixture: &Fixture) {
    let (first, second) = (new_id(), new_id());
    let mut waits = task(&second);
    (waits.phase, waits.headers, waits.root_id) = (Phase::Waiting, None, first.clone());
    let mut chain = submission(vec![task(&first), waits]);
    chain.edges = vec![Edge { from: 0, to: 1, kind: EdgeKind::Next }];
    let numbers = fixture.insert(chain).await.task_nos;
    let next = fixture.successors(&numbers).await.unwrap();
    assert_eq!(
        next.iter().map(|one| (one.of, one.kind, &one.task.id)).collect::<Vec<_>>(),
        [(numbers[0], EdgeKind::Next, &second)]
    );
    let before = fixture.predecessors(&numbers).await.unwrap();
    assert_eq!(before.iter().map(|one| (one.of, &one.task.id)).collect::<Vec<_>>(), [(numbers[1], &first)]);
}

async fn a_failure_without_a_reason_gets_one(fixture: &Fixture) {
    let (failed, running) = (new_id(), new_id());
    fixture.queue(&failed).await;
    fixture.queue(&running).await;
    let news = ledger::News { failure: Some(failure("ValueError", "boom")), ..event(&failed, Phase::Failed, 2) };
    fixture.learn(&[news], true).await.unwrap();
    assert!(fixture.explain(&failed, "an earlier step failed").await.unwrap());
    assert!(!fixture.explain(&failed, "another reason").await.unwrap());
    assert!(!fixture.explain(&running, "no reason").await.unwrap());
    assert_eq!(fixture.task(&failed).await.reason.as_deref(), Some("an earlier step failed"));
    assert!(fixture.task(&failed).await.submitted_at == T0);
}
