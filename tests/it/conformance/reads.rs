//! Reading tasks by id, one and many at a time.

use std::sync::Arc;

use celery::task::{Phase, TaskId};
use futures_util::future::join_all;
use ledger::Task;
use taskgate::live::reads::Reader;
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, after, new_id, record};
use super::on_both;
use crate::harness::eventually;

on_both!(
    many_readers_get_each_their_own,
    what_has_ended_is_remembered_for_a_moment_only,
    a_stopped_reader_still_answers
);

fn told(task: &Task) -> (&TaskId, Phase, i64, Option<&str>) {
    (&task.id, task.phase, task.seq, task.result.as_ref().map(|result| result.get()))
}

async fn many_readers_get_each_their_own(ledger: &Fixture) {
    let ids: Vec<TaskId> = (0..300).map(|_| new_id()).collect();
    for id in &ids[..30] {
        ledger.queue(id).await;
    }
    ledger.learn(&[record(&ids[7], Phase::Succeeded, 5)], true).await.unwrap();
    let (reader, reads) = Reader::new(Arc::clone(&ledger.ledger));
    let stop = CancellationToken::new();
    let running = tokio::spawn(reader.run(stop.clone()));

    // Each id twice, all at the same time: more than one query takes.
    let found = join_all(ids.iter().chain(&ids).map(|id| reads.task(id))).await;
    for (place, (id, found)) in ids.iter().chain(&ids).zip(found).enumerate() {
        let expected = ledger.ledger.task(id).await.unwrap();
        assert_eq!(found.unwrap().as_deref().map(told), expected.as_ref().map(told), "{place}");
    }
    stop.cancel();
    running.await.unwrap();
}

async fn what_has_ended_is_remembered_for_a_moment_only(ledger: &Fixture) {
    let (reader, reads) = Reader::new(Arc::clone(&ledger.ledger));
    let stop = CancellationToken::new();
    let running = tokio::spawn(reader.run(stop.clone()));
    let id = new_id();
    assert!(reads.task(&id).await.unwrap().is_none());
    ledger.queue(&id).await;
    assert_eq!(reads.task(&id).await.unwrap().unwrap().phase, Phase::Queued, "that it was unknown is not remembered");
    ledger.learn(&[record(&id, Phase::Succeeded, 5)], true).await.unwrap();
    assert_eq!(reads.task(&id).await.unwrap().unwrap().phase, Phase::Succeeded, "what runs is read anew");
    assert_eq!(ledger.prune(after(50), 100, after(60)).await.unwrap(), 1);
    eventually("the pruned task is gone", async || reads.task(&id).await.unwrap().is_none().then_some(())).await;
    stop.cancel();
    running.await.unwrap();
}

async fn a_stopped_reader_still_answers(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let (reader, reads) = Reader::new(Arc::clone(&ledger.ledger));
    let stop = CancellationToken::new();
    stop.cancel();
    reader.run(stop).await;
    assert_eq!(reads.task(&id).await.unwrap().unwrap().phase, Phase::Queued);
}
