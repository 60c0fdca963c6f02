//! The feed of all events, histories of single tasks, and notifications of other replicas.

use std::collections::HashSet;
use std::time::Duration;

use celery::task::{Phase, TaskId};
use ledger::{Changed, EVENTS_BYTES, Filter, Ledger, News};
use sqlx::postgres::PgListener;
use sqlx::{Connection, Executor};
use tokio::sync::broadcast;

use super::fixture::{Fixture, event, json, new_id, record};
use super::on_both;
use crate::harness::eventually;
use crate::harness::postgres::cluster;

on_both!(
    histories_are_read_from_any_place,
    a_page_ends_where_its_reports_are_large,
    the_feed_goes_on_from_any_position,
    a_filter_does_not_hold_the_position_back,
    a_reader_beside_many_writers_misses_nothing,
);

async fn histories_are_read_from_any_place(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    ledger.learn(&[event(&id, Phase::Received, 2), record(&id, Phase::Succeeded, 3)], true).await.unwrap();
    let seqs = async |after, limit| {
        ledger.events(&id, after, limit).await.unwrap().iter().map(|event| event.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 10).await, [1, 2, 3, 4]);
    assert_eq!(seqs(2, 10).await, [3, 4]);
    assert_eq!(seqs(0, 2).await, [1, 2]);
    assert!(seqs(4, 10).await.is_empty());
    assert!(ledger.events(&new_id(), 0, 10).await.unwrap().is_empty());
}

async fn a_page_ends_where_its_reports_are_large(ledger: &Fixture) {
    const REPORTS: i64 = 10;
    let id = new_id();
    ledger.queue(&id).await;
    let large = EVENTS_BYTES / 3;
    for n in 0..REPORTS {
        let text = "x".repeat(large.try_into().unwrap());
        let meta = json(&format!(r#"{{"progress": {n}, "text": "{text}"}}"#));
        let report =
            News { status: Some("PROGRESS".to_owned()), meta: Some(meta), ..record(&id, Phase::Running, 2 + n) };
        ledger.learn(&[report], true).await.unwrap();
    }
    let (mut seqs, mut pages) = (Vec::new(), Vec::new());
    while let Some(page) = Some(ledger.events(&id, seqs.last().copied().unwrap_or(0), 100).await.unwrap())
        && !page.is_empty()
    {
        pages.push(page.len());
        seqs.extend(page.iter().map(|event| event.seq));
    }
    // The events accepted and queued have no reports; the third report exceeds the limit.
    assert_eq!((seqs, &pages[..]), ((1..=REPORTS + 2).collect(), &[5, 3, 3, 1][..]));
    let (page, to) = ledger.feed(0, &Filter::default(), 100).await.unwrap();
    let (next, _) = ledger.feed(to, &Filter::default(), 100).await.unwrap();
    assert_eq!((page.len(), next.len()), (5, 3));
    let nothing = Filter { queue: vec!["nowhere".to_owned()], ..Filter::default() };
    assert_eq!(
        ledger.feed(0, &nothing, 100).await.unwrap().1,
        to,
        "what is left out counts too: the position is the same"
    );
}

async fn the_feed_goes_on_from_any_position(ledger: &Fixture) {
    assert_eq!(ledger.feed_end().await.unwrap(), 0);
    let (a, b) = (new_id(), new_id());
    ledger.queue(&a).await;
    ledger.queue(&b).await;
    let (all, end) = ledger.feed(0, &Filter::default(), 100).await.unwrap();
    assert_eq!(
        all.iter().map(|e| (e.task_id.clone(), e.seq)).collect::<Vec<_>>(),
        [(a.clone(), 1), (a, 2), (b.clone(), 1), (b, 2)]
    );
    assert!(all.is_sorted_by(|one, next| one.feed < next.feed));
    assert_eq!((all[3].feed, ledger.feed_end().await.unwrap()), (end, end));
    let (rest, _) = ledger.feed(all[1].feed, &Filter::default(), 1).await.unwrap();
    assert_eq!((rest.len(), rest[0].feed), (1, all[2].feed));
    assert_eq!(ledger.feed(end, &Filter::default(), 10).await.unwrap().1, end);
}

async fn a_filter_does_not_hold_the_position_back(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let nothing = Filter { queue: vec!["nowhere".to_owned()], ..Filter::default() };
    let (events, end) = ledger.feed(0, &nothing, 10).await.unwrap();
    assert_eq!((events.len(), end), (0, ledger.feed_end().await.unwrap()));
    let queued = Filter { phase: vec![Phase::Queued], ..Filter::default() };
    assert_eq!(ledger.feed(0, &queued, 10).await.unwrap().0.len(), 1);
}

async fn a_reader_beside_many_writers_misses_nothing(ledger: &Fixture) {
    let mut writers = Vec::new();
    for _ in 0..4 {
        let ledger = ledger.ledger.clone();
        writers.push(tokio::spawn(async move {
            for _ in 0..25 {
                let id = new_id();
                let new = super::fixture::alone(super::fixture::task(&id));
                let no = ledger.insert(&[new]).await.unwrap()[0].as_ref().unwrap().task_nos[0];
                ledger.published(&[(no, super::fixture::after(1))]).await.unwrap();
                ledger.learn(&[record(&id, Phase::Succeeded, 2)], true).await.unwrap();
            }
        }));
    }
    let (mut position, mut seen, mut seqs) = (0, 0, HashSet::new());
    eventually("the reader saw everything", async || {
        let (events, end) = ledger.feed(position, &Filter::default(), 7).await.unwrap();
        for event in &events {
            assert!(event.feed > position && event.feed <= end);
            assert!(seqs.insert((event.task_no, event.seq)));
        }
        seen += events.len();
        position = end;
        (seen == 300).then_some(())
    })
    .await;
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(ledger.feed(position, &Filter::default(), 7).await.unwrap().0.is_empty());
}

/// Begins a transaction that has written.
async fn open_transaction<'c>(connection: &'c mut sqlx::PgConnection, write: &'static str) -> sqlx::PgTransaction<'c> {
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query(write).execute(&mut *transaction).await.unwrap();
    transaction
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_older_transaction_holds_the_feed_back() {
    let ledger = Fixture::postgres().await;
    let first = new_id();
    ledger.accept(&first).await;
    let end = async || Some(ledger.feed_end().await.unwrap()).filter(|end| *end > 0);
    let before = eventually("the first event is visible", end).await;

    let mut other = sqlx::PgConnection::connect(&ledger.url).await.unwrap();
    let older = open_transaction(&mut other, "select 1 from taskgate.task for update").await;
    let id = new_id();
    ledger.accept(&id).await;
    // The older transaction may still bring events with lower positions.
    assert_eq!(ledger.feed_end().await.unwrap(), before);
    assert!(ledger.feed(before, &Filter::default(), 10).await.unwrap().0.is_empty());
    assert_eq!(ledger.history(&id).await, [(1, Phase::Accepted)]);

    older.commit().await.unwrap();
    assert_eq!(next_tasks(&ledger, before).await, [id]);
}

/// The ids in events after a position. A transaction of another test that is ending may delay them by one read.
async fn next_tasks(ledger: &Fixture, after: i64) -> Vec<TaskId> {
    eventually("the next events are visible", async || {
        let (events, _) = ledger.feed(after, &Filter::default(), 10).await.unwrap();
        (!events.is_empty()).then(|| events.into_iter().map(|event| event.task_id).collect())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_of_others_do_not_hold_the_feed_back() {
    let ledger = Fixture::postgres().await;
    let mut neighbour = sqlx::PgConnection::connect(&ledger.url).await.unwrap();
    neighbour.execute("create table public.theirs (n int)").await.unwrap();
    let mut elsewhere = sqlx::PgConnection::connect(&cluster().empty_database()).await.unwrap();
    elsewhere.execute("create table public.theirs (n int)").await.unwrap();
    let _one = open_transaction(&mut neighbour, "insert into public.theirs values (1)").await;
    let _two = open_transaction(&mut elsewhere, "insert into public.theirs values (1)").await;
    let id = new_id();
    ledger.accept(&id).await;
    assert_eq!(next_tasks(&ledger, 0).await, [id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_its_application_has_not_committed_does_not_hold_the_feed_back() {
    let ledger = Fixture::postgres().await;
    let mut application = sqlx::PgConnection::connect(&ledger.url).await.unwrap();
    let _open = open_transaction(&mut application, "select taskgate.enqueue(task => 'app.send')").await;
    let id = new_id();
    ledger.accept(&id).await;
    assert_eq!(next_tasks(&ledger, 0).await, [id]);
}

/// The ids in the next notification, or `None` for "any".
async fn hear(changes: &mut broadcast::Receiver<Changed>) -> Option<Vec<TaskId>> {
    match tokio::time::timeout(Duration::from_secs(20), changes.recv()).await.unwrap().unwrap() {
        Changed::Tasks(ids) => Some(ids.to_vec()),
        Changed::Any | Changed::Gap => None,
    }
}

/// Repeats progress on `id` until the other replica is notified, which shows that it listens.
async fn until_heard(from: &dyn Ledger, changes: &mut broadcast::Receiver<Changed>, id: &TaskId) {
    eventually("the other replica listens", async || {
        from.learn(&[record(id, Phase::Running, 2)], true).await.unwrap();
        let heard = tokio::time::timeout(Duration::from_millis(100), changes.recv()).await;
        matches!(heard, Ok(Ok(Changed::Tasks(_)))).then_some(())
    })
    .await;
}

/// Whether a listener that is not a replica hears of progress on `id`.
async fn notifies(ledger: &dyn Ledger, listener: &mut PgListener, id: &TaskId, patience: Duration) -> bool {
    ledger.learn(&[record(id, Phase::Running, 2)], true).await.unwrap();
    let heard = async { while !listener.recv().await.unwrap().payload().contains(id.as_str()) {} };
    tokio::time::timeout(patience, heard).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_notifies_only_while_there_are_others() {
    let ledger = Fixture::postgres().await;
    let mut listener = PgListener::connect(&ledger.url).await.unwrap();
    listener.listen("taskgate").await.unwrap();
    let id = new_id();
    ledger.accept(&id).await;
    eventually("it is known to be alone", async || {
        (!notifies(&*ledger.ledger, &mut listener, &id, Duration::from_millis(200)).await).then_some(())
    })
    .await;
    let other = ledger.another();
    until_heard(&*ledger.ledger, &mut other.changes(), &id).await;
    assert!(notifies(&*ledger.ledger, &mut listener, &id, Duration::from_secs(20)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_hear_of_each_others_commits_and_not_of_their_own() {
    let ledger = Fixture::postgres().await;
    let other = ledger.another();
    let (mut here, mut there) = (ledger.changes(), other.changes());
    let (mine, theirs) = (new_id(), new_id());
    ledger.accept(&mine).await;
    ledger.accept(&theirs).await;
    until_heard(&*ledger.ledger, &mut there, &mine).await;
    until_heard(&*other, &mut here, &theirs).await;

    ledger.learn(&[record(&mine, Phase::Succeeded, 3)], true).await.unwrap();
    other.learn(&[record(&theirs, Phase::Succeeded, 3)], true).await.unwrap();
    let many: Vec<_> = (0..400).map(|_| new_id()).collect();
    let batch: Vec<_> = many.iter().map(|id| super::fixture::alone(super::fixture::task(id))).collect();
    other.insert(&batch).await.unwrap();
    let news: Vec<_> = many.iter().map(|id| event(id, Phase::Received, 2)).collect();
    // More ids than a notification holds.
    other.learn(&news, true).await.unwrap();
    let mut heard = Vec::new();
    while let Some(ids) = hear(&mut here).await {
        heard.extend(ids);
    }
    assert!(!heard.is_empty() && heard.iter().all(|id| *id == theirs), "{heard:?}");
}
