//! Concurrent transactions, and replicas with other clocks, on PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use celery::task::{Phase, TaskId};
use ledger::{Carrier, News, Outgoing, Submission};
use sqlx::{Connection, PgConnection};

use super::fixture::{Fixture, after, alone, event, failure, new_id, task};
use crate::harness::eventually;
use crate::harness::postgres::query;

/// A carrier that publishes everything.
struct Broker;

#[async_trait]
impl Carrier for Broker {
    async fn carry(&self, batch: &[Outgoing]) -> Vec<i64> {
        batch.iter().map(|outgoing| outgoing.no).collect()
    }
}

const WAITS: &str =
    "select count(*) > 0 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

/// As another replica would write it that received the news first.
const RECEIVED: &str = "update taskgate.flight set phase = 'received', seq = seq + 1, worker = 'w', at_worker = true, received_at = queued_at";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_waited_for_another_replicas_step_comes_after_it() {
    let fixture = Fixture::postgres().await;
    let id = new_id();
    fixture.queue(&id).await;
    let mut other = PgConnection::connect(&fixture.url).await.unwrap();
    let mut step = other.begin().await.unwrap();
    sqlx::query(RECEIVED).execute(&mut *step).await.unwrap();

    let (ledger, news) = (fixture.ledger.clone(), event(&id, Phase::Running, 3));
    let ours = tokio::spawn(async move { ledger.learn(&[news], true).await });
    eventually("our step waits for the row", async || (query(&fixture.url, WAITS) == "t").then_some(())).await;
    step.commit().await.unwrap();

    let events = ours.await.unwrap().unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [4], "what was remembered of it is not used");
    assert_eq!((fixture.task(&id).await.seq, fixture.phase(&id).await), (4, Phase::Running));
}

/// As another replica would write it that heard of the end first: of a task with a long history, which goes on in a piece of its own.
const ENDED: &str = "with gone as (delete from taskgate.flight returning *), \
     piece as (insert into taskgate.history (task_no, last_seq, events) select task_no, seq, history from gone where history is not null) \
     insert into taskgate.ended (task_no, queued_at, finished_at, seq, delivery, retries, corrected, dead, phase) \
     select task_no, queued_at, queued_at, seq + 1, delivery, retries, false, false, 'revoked' from gone";

/// The recorder and whoever settles a sleep write its end at the same time: the second one finds the end of the first.
async fn both_write_the_end(history: &str) {
    let fixture = Fixture::postgres().await;
    let id = new_id();
    fixture.queue(&id).await;
    query(&fixture.url, &format!("update taskgate.flight set history = {history}"));
    let mut other = PgConnection::connect(&fixture.url).await.unwrap();
    let mut end = other.begin().await.unwrap();
    sqlx::query(ENDED).execute(&mut *end).await.unwrap();

    let news = News { failure: Some(failure("ValueError", "late")), ..event(&id, Phase::Failed, 3) };
    let ledger = fixture.ledger.clone();
    let ours = tokio::spawn(async move { ledger.learn(&[news], true).await });
    eventually("our end waits for the row", async || (query(&fixture.url, WAITS) == "t").then_some(())).await;
    end.commit().await.unwrap();

    ours.await.unwrap().expect("the news is not refused");
    assert_eq!(query(&fixture.url, "select count(*) from taskgate.ended"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_another_writer_has_recorded_meanwhile_is_not_refused() {
    both_write_the_end("null").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_another_writer_has_recorded_meanwhile_with_a_long_history_is_not_refused() {
    both_write_the_end("(select string_agg(events, '') from taskgate.feed, generate_series(1, 100))").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_a_clock_that_is_an_hour_ahead_holds_up_no_search_for_those_left_behind() {
    let fixture = Fixture::postgres().await;
    let (ahead, behind) = (new_id(), new_id());
    fixture.insert(Submission { at: after(3600), ..alone(task(&ahead)) }).await;
    fixture.insert(Submission { at: after(1), ..alone(task(&behind)) }).await;
    let settle = Duration::from_secs(2);
    let is_past =
        "select (select feed from taskgate.relay_mark) >= (select max(pos) from taskgate.feed where pos is not null)";
    // A transaction of another test that is ending may delay the mark by one read.
    eventually("both are in the outbox and the mark is past them", async || {
        fixture.drain(after(4), settle, 0, &Broker).await.unwrap();
        (query(&fixture.url, is_past) == "t").then_some(())
    })
    .await;
    assert_eq!(waiting(&fixture), "2");
    assert_eq!(fixture.drain(after(8), settle, 10, &Broker).await.unwrap().carried, 2);
    for id in [&ahead, &behind] {
        assert_eq!(fixture.phase(id).await, Phase::Queued);
    }
}

fn waiting(fixture: &Fixture) -> String {
    query(&fixture.url, "select count(*) from taskgate.outbox")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_a_little_ahead_keeps_its_direct_way() {
    let fixture = Fixture::postgres().await;
    let id: TaskId = new_id();
    fixture.insert(Submission { at: after(9), ..alone(task(&id)) }).await;
    fixture.drain(after(1), Duration::from_secs(2), 10, &Broker).await.unwrap();
    assert_eq!((waiting(&fixture).as_str(), fixture.phase(&id).await), ("0", Phase::Accepted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_of_pruned_tasks_goes_with_them_although_it_has_more_rows() {
    let fixture = Fixture::postgres().await;
    for _ in 0..6 {
        let id = new_id();
        fixture.queue(&id).await;
        fixture.learn(&[event(&id, Phase::Running, 2)], true).await.unwrap();
        fixture.learn(&[event(&id, Phase::Succeeded, 3)], true).await.unwrap();
    }
    let rows = || query(&fixture.url, "select count(*) from taskgate.feed");
    assert_eq!(rows(), "24");
    assert_eq!(fixture.prune(after(60), 6, after(90)).await.unwrap(), 6);
    assert_eq!(rows(), "0");
}
