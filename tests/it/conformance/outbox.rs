//! Tasks leave the outbox: into the broker, or without being published.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use celery::task::{GroupId, Phase, QueueName, TaskId};
use ledger::{Carrier, Drained, Message, NewGroup, News, Outgoing, Source, Submission, Withdrawn};
use tokio::sync::Notify;

use super::fixture::{Fixture, after, alone, event, new_id, record, submission, task};
use super::on_both;

on_both!(
    what_the_fast_path_published_is_queued,
    a_pass_publishes_in_the_order_of_acceptance,
    what_the_carrier_did_not_publish_stays,
    held_tasks_wait_for_their_time,
    a_task_whose_time_is_over_expires,
    a_paused_queue_is_held_and_resumed_in_order,
    a_queue_that_is_resumed_during_a_pass_is_not_forgotten,
    fresh_rows_are_left_to_the_fast_path,
    an_ended_task_is_not_published,
    a_message_carries_the_groups_of_its_canvas,
    a_withdrawn_task_is_never_published,
    a_withdrawal_during_a_pass_comes_too_late,
    what_is_published_or_finished_cannot_be_withdrawn,
    a_waiting_task_is_withdrawn_from_its_canvas,
    a_step_that_no_worker_sent_gets_its_message_later,
    a_further_delivery_starts_over,
    of_many_those_that_are_as_they_were_are_queued_again,
    news_that_overtakes_the_bookkeeping_is_kept,
    one_pass_at_a_time,
);

/// Publishes what its test allows, and remembers it.
#[derive(Default)]
struct Broker {
    published: Mutex<Vec<Outgoing>>,
    refuses: bool,
}

impl Broker {
    fn ids(&self) -> Vec<TaskId> {
        self.published.lock().unwrap().iter().map(|outgoing| outgoing.id.clone()).collect()
    }
}

#[async_trait]
impl Carrier for Broker {
    async fn carry(&self, batch: &[Outgoing]) -> Vec<i64> {
        if self.refuses {
            return Vec::new();
        }
        self.published.lock().unwrap().extend_from_slice(batch);
        batch.iter().map(|outgoing| outgoing.no).collect()
    }
}

async fn drain(ledger: &Fixture, seconds: i64, broker: &dyn Carrier) -> Drained {
    ledger.drain(after(seconds), Duration::ZERO, 100, broker).await.unwrap()
}

fn revoked(id: &TaskId) -> News {
    News::new(id.clone(), Source::Ledger, Phase::Revoked, after(3))
}

async fn what_the_fast_path_published_is_queued(ledger: &Fixture) {
    let (a, b) = (new_id(), new_id());
    let numbers = ledger.insert(submission(vec![task(&a), task(&b)])).await.task_nos;
    let events = ledger.published(&numbers.iter().map(|no| (*no, after(1))).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(
        events.iter().map(|e| (e.task_id.clone(), e.seq, e.phase)).collect::<Vec<_>>(),
        [(a.clone(), 2, Phase::Queued), (b, 2, Phase::Queued)]
    );
    assert_eq!(
        (events[0].at, events[0].name.as_deref(), events[0].root_id.clone()),
        (after(1), Some("tasks.add"), Some(a.clone()))
    );
    assert!(ledger.published(&numbers.iter().map(|no| (*no, after(2))).collect::<Vec<_>>()).await.unwrap().is_empty());
    assert_eq!(ledger.task(&a).await.queued_at, Some(after(1)));
    assert_eq!(ledger.backlog(after(9)).await.unwrap().due, 0);
    assert_eq!(drain(ledger, 9, &Broker::default()).await.claimed, 0);
}

async fn a_pass_publishes_in_the_order_of_acceptance(ledger: &Fixture) {
    let ids: Vec<TaskId> = (0..7).map(|_| new_id()).collect();
    for id in &ids {
        ledger.accept(id).await;
    }
    let broker = Broker::default();
    let pass = ledger.drain(after(1), Duration::ZERO, 5, &broker).await.unwrap();
    assert_eq!((pass.claimed, pass.carried, pass.events.len()), (5, 5, 5));
    drain(ledger, 2, &broker).await;
    assert_eq!(broker.ids(), ids);
    let first = broker.published.lock().unwrap()[0].clone();
    assert_eq!(
        (first.delivery, first.headers.as_str(), first.body.as_str()),
        (1, r#"{"task":"tasks.add"}"#, "[[1, 2], {}, {}]")
    );
    assert_eq!(first.accepted_at, after(0));
    assert_eq!(ledger.history(&ids[6]).await, [(1, Phase::Accepted), (2, Phase::Queued)]);
}

async fn what_the_carrier_did_not_publish_stays(ledger: &Fixture) {
    let id = new_id();
    ledger.accept(&id).await;
    let pass = drain(ledger, 1, &Broker { refuses: true, ..Broker::default() }).await;
    assert_eq!((pass.claimed, pass.carried), (1, 0));
    assert_eq!(ledger.phase(&id).await, Phase::Accepted);
    let backlog = ledger.backlog(after(2)).await.unwrap();
    assert_eq!((backlog.due, backlog.oldest), (1, Some(after(0))));
    assert_eq!(drain(ledger, 2, &Broker::default()).await.carried, 1);
}

async fn held_tasks_wait_for_their_time(ledger: &Fixture) {
    let (at_once, later, released) = (new_id(), new_id(), new_id());
    let mut held = task(&later);
    (held.phase, held.due_at) = (Phase::Held, Some(after(60)));
    ledger.insert(alone(held)).await;
    let mut until_released = task(&released);
    until_released.phase = Phase::Held;
    ledger.insert(alone(until_released)).await;
    ledger.accept(&at_once).await;

    let broker = Broker::default();
    drain(ledger, 59, &broker).await;
    assert_eq!(broker.ids(), std::slice::from_ref(&at_once));
    assert_eq!(ledger.next_due(after(59)).await.unwrap(), Some(after(60)));
    drain(ledger, 60, &broker).await;
    assert_eq!(broker.ids(), [at_once, later]);
    assert_eq!(ledger.next_due(after(60)).await.unwrap(), None);
    assert_eq!(ledger.phase(&released).await, Phase::Held);
}

async fn a_task_whose_time_is_over_expires(ledger: &Fixture) {
    let (never_due, too_late) = (new_id(), new_id());
    let mut held = task(&never_due);
    (held.phase, held.due_at, held.expires_at) = (Phase::Held, Some(after(100)), Some(after(50)));
    ledger.insert(alone(held)).await;
    let mut short = task(&too_late);
    short.expires_at = Some(after(10));
    ledger.insert(alone(short)).await;

    let broker = Broker::default();
    let pass = drain(ledger, 10, &broker).await;
    assert_eq!((pass.expired, pass.carried, pass.events.len()), (1, 0, 1));
    assert_eq!(pass.events[0].phase, Phase::Expired);
    let pass = drain(ledger, 50, &broker).await;
    assert_eq!((pass.expired, broker.ids().len()), (1, 0));
    for id in [never_due, too_late] {
        let task = ledger.task(&id).await;
        assert_eq!((task.phase, task.status.as_str()), (Phase::Expired, "REVOKED"));
        assert!(task.reason.is_some() && task.finished_at.is_some());
    }
    assert_eq!(ledger.backlog(after(1000)).await.unwrap().due, 0);
}

async fn a_paused_queue_is_held_and_resumed_in_order(ledger: &Fixture) {
    let celery = QueueName::parse("celery").unwrap();
    assert!(ledger.pause_queue(&celery, after(0)).await.unwrap());
    assert!(!ledger.pause_queue(&celery, after(1)).await.unwrap());
    assert_eq!(ledger.paused_queues().await.unwrap(), [("celery".to_owned(), after(0))]);

    let ids: Vec<TaskId> = (0..3).map(|_| new_id()).collect();
    for id in &ids {
        ledger.accept(id).await;
    }
    let (elsewhere, expiring) = (new_id(), new_id());
    let mut other = task(&elsewhere);
    other.queue = QueueName::parse("other").unwrap();
    ledger.insert(alone(other)).await;
    let mut short = task(&expiring);
    short.expires_at = Some(after(5));
    ledger.insert(alone(short)).await;

    let broker = Broker::default();
    let pass = drain(ledger, 2, &broker).await;
    assert_eq!(broker.ids(), std::slice::from_ref(&elsewhere));
    assert_eq!(pass.events.len(), 5);
    let held = ledger.task(&ids[0]).await;
    assert_eq!((held.phase, held.reason.as_deref()), (Phase::Held, Some("its queue is paused")));
    assert_eq!(drain(ledger, 3, &broker).await.claimed, 0);
    assert_eq!(drain(ledger, 5, &broker).await.expired, 1);

    assert!(ledger.resume_queue(&celery, after(6)).await.unwrap());
    assert!(!ledger.resume_queue(&celery, after(6)).await.unwrap());
    drain(ledger, 6, &broker).await;
    assert_eq!(broker.ids()[1..], ids);
    assert_eq!(ledger.task(&ids[0]).await.reason, None);
    assert_eq!(ledger.history(&ids[0]).await, [(1, Phase::Accepted), (2, Phase::Held), (3, Phase::Queued)]);
}

/// Resumes a queue while it publishes.
struct Resuming<'a>(&'a Fixture, QueueName);

#[async_trait]
impl Carrier for Resuming<'_> {
    async fn carry(&self, batch: &[Outgoing]) -> Vec<i64> {
        assert!(self.0.resume_queue(&self.1, after(2)).await.unwrap());
        batch.iter().map(|outgoing| outgoing.no).collect()
    }
}

async fn a_queue_that_is_resumed_during_a_pass_is_not_forgotten(ledger: &Fixture) {
    let celery = QueueName::parse("celery").unwrap();
    ledger.pause_queue(&celery, after(0)).await.unwrap();
    let (held, elsewhere) = (new_id(), new_id());
    ledger.accept(&held).await;
    let mut other = task(&elsewhere);
    other.queue = QueueName::parse("other").unwrap();
    ledger.insert(alone(other)).await;
    let pass = drain(ledger, 2, &Resuming(ledger, celery)).await;
    assert_eq!((pass.carried, pass.next_opening), (1, Some(after(2))));
    let broker = Broker::default();
    drain(ledger, 3, &broker).await;
    assert_eq!(broker.ids(), [held]);
}

async fn fresh_rows_are_left_to_the_fast_path(ledger: &Fixture) {
    ledger.accept(&new_id()).await;
    let settle = Duration::from_secs(2);
    assert_eq!(ledger.drain(after(1), settle, 10, &Broker::default()).await.unwrap().claimed, 0);
    assert_eq!(ledger.drain(after(2), settle, 10, &Broker::default()).await.unwrap().claimed, 1);
}

async fn an_ended_task_is_not_published(ledger: &Fixture) {
    let id = new_id();
    ledger.accept(&id).await;
    ledger.learn(&[revoked(&id)], true).await.unwrap();
    let broker = Broker::default();
    assert_eq!(drain(ledger, 1, &broker).await.carried, 0);
    assert!(broker.ids().is_empty());
    assert_eq!(drain(ledger, 2, &broker).await.claimed, 0);
}

async fn a_message_carries_the_groups_of_its_canvas(ledger: &Fixture) {
    let (root, member) = (new_id(), new_id());
    let mut second = task(&member);
    second.root_id = root.clone();
    let group = NewGroup {
        id: GroupId::parse("g").unwrap(),
        root_id: root.clone(),
        total: 2,
        chord_size: Some(2),
        structure: None,
    };
    ledger.insert(Submission { groups: vec![group], ..submission(vec![task(&root), second]) }).await;
    ledger.accept(&new_id()).await;
    let broker = Broker::default();
    drain(ledger, 1, &broker).await;
    let published = broker.published.lock().unwrap();
    let sizes: Vec<_> =
        published.iter().map(|outgoing| outgoing.groups.first().and_then(|group| group.chord_size)).collect();
    assert_eq!(sizes, [Some(2), Some(2), None]);
}

async fn a_withdrawn_task_is_never_published(ledger: &Fixture) {
    let (accepted, held) = (new_id(), new_id());
    ledger.accept(&accepted).await;
    let mut later = task(&held);
    (later.phase, later.due_at) = (Phase::Held, Some(after(10)));
    ledger.insert(alone(later)).await;
    for id in [&accepted, &held] {
        let Withdrawn::Done(events) = ledger.withdraw(id, revoked(id)).await.unwrap() else { panic!("it was ours") };
        assert_eq!((events.len(), events[0].phase), (1, Phase::Revoked));
        assert_eq!(ledger.phase(id).await, Phase::Revoked);
    }
    assert_eq!(drain(ledger, 100, &Broker::default()).await.claimed, 0);
    assert!(matches!(ledger.withdraw(&new_id(), revoked(&accepted)).await.unwrap(), Withdrawn::Unknown));
}

/// Signals that it has begun, and waits until the test lets it continue.
#[derive(Default)]
struct Slow {
    begun: Notify,
    go_on: Notify,
}

#[async_trait]
impl Carrier for Slow {
    async fn carry(&self, batch: &[Outgoing]) -> Vec<i64> {
        self.begun.notify_one();
        self.go_on.notified().await;
        batch.iter().map(|outgoing| outgoing.no).collect()
    }
}

async fn a_withdrawal_during_a_pass_comes_too_late(ledger: &Fixture) {
    let id = new_id();
    ledger.accept(&id).await;
    let slow = Slow::default();
    let pass = async { drain(ledger, 1, &slow).await.carried };
    let withdrawal = async {
        slow.begun.notified().await;
        let withdraw = ledger.withdraw(&id, revoked(&id));
        tokio::pin!(withdraw);
        // It waits for the pass, because only the pass knows whether the message was published.
        let early = tokio::time::timeout(Duration::from_millis(100), &mut withdraw).await;
        assert!(early.is_err());
        slow.go_on.notify_one();
        withdraw.await.unwrap()
    };
    let (carried, withdrawn) = tokio::join!(pass, withdrawal);
    assert_eq!(carried, 1);
    assert!(matches!(withdrawn, Withdrawn::Published(task) if task.phase == Phase::Queued));
}

async fn what_is_published_or_finished_cannot_be_withdrawn(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    assert!(matches!(ledger.withdraw(&id, revoked(&id)).await.unwrap(), Withdrawn::Published(_)));
    ledger.learn(&[record(&id, Phase::Succeeded, 5)], true).await.unwrap();
    let Withdrawn::Finished(task) = ledger.withdraw(&id, revoked(&id)).await.unwrap() else { panic!("it is final") };
    assert_eq!(task.phase, Phase::Succeeded);
}

async fn a_waiting_task_is_withdrawn_from_its_canvas(ledger: &Fixture) {
    let id = new_id();
    let mut waiting = task(&id);
    (waiting.phase, waiting.headers) = (Phase::Waiting, None);
    ledger.insert(alone(waiting)).await;
    assert_eq!(drain(ledger, 100, &Broker::default()).await.claimed, 0);
    assert!(ledger.message(&id).await.unwrap().unwrap().headers.is_none());
    assert!(ledger.requeue(&id, 1, "why", after(2)).await.is_none());
    assert!(matches!(ledger.withdraw(&id, revoked(&id)).await.unwrap(), Withdrawn::Done(_)));
    assert_eq!(ledger.phase(&id).await, Phase::Revoked);
}

async fn a_step_that_no_worker_sent_gets_its_message_later(ledger: &Fixture) {
    let id = new_id();
    let published = task(&id);
    let message = Message { headers: published.headers.clone(), body: published.body.clone() };
    let mut waiting = task(&id);
    (waiting.phase, waiting.headers) = (Phase::Waiting, None);
    ledger.insert(alone(waiting)).await;
    assert!(ledger.keep_message(&id, &message).await.unwrap());
    assert!(!ledger.keep_message(&id, &message).await.unwrap(), "there is one");
    assert!(!ledger.keep_message(&new_id(), &message).await.unwrap(), "nobody knows it");
    assert_eq!(ledger.message(&id).await.unwrap().unwrap().headers, message.headers);
    let event = ledger.requeue(&id, 1, "it was lost", after(2)).await.unwrap();
    assert_eq!((event.phase, event.delivery, event.seq), (Phase::Accepted, 2, 2));
    let broker = Broker::default();
    drain(ledger, 3, &broker).await;
    assert_eq!(ledger.phase(&id).await, Phase::Queued);
}

async fn a_further_delivery_starts_over(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let mut received = event(&id, Phase::Received, 2);
    (received.worker, received.retries) = (Some("w1".to_owned()), Some(2));
    ledger.learn(&[received], true).await.unwrap();
    let seq = ledger.task(&id).await.seq;
    assert!(ledger.requeue(&id, seq - 1, "it moved meanwhile", after(10)).await.is_none());
    let event = ledger.requeue(&id, seq, "its worker died", after(10)).await.unwrap();
    assert_eq!((event.phase, event.delivery, event.reason.as_deref()), (Phase::Accepted, 2, Some("its worker died")));
    let task = ledger.task(&id).await;
    assert_eq!((task.delivery, task.retries, task.worker, task.received_at), (2, 0, None, None));

    let broker = Broker::default();
    drain(ledger, 11, &broker).await;
    assert_eq!(broker.published.lock().unwrap()[0].delivery, 2);
    assert_eq!(ledger.task(&id).await.queued_at, Some(after(11)));
    let mut late = record(&id, Phase::Running, 12);
    late.delivery = Some(1);
    assert!(ledger.learn(&[late], true).await.unwrap().is_empty());
    ledger.learn(&[record(&id, Phase::Succeeded, 13)], true).await.unwrap();
    assert!(ledger.requeue(&id, ledger.task(&id).await.seq, "again", after(14)).await.is_none());
    assert!(ledger.requeue(&new_id(), 1, "unknown", after(14)).await.is_none());
}

async fn of_many_those_that_are_as_they_were_are_queued_again(ledger: &Fixture) {
    let ids: Vec<TaskId> = (0..5).map(|_| new_id()).collect();
    for id in &ids[..4] {
        ledger.queue(id).await;
    }
    ledger.learn(&[event(&ids[1], Phase::Received, 2)], true).await.unwrap();
    ledger.learn(&[record(&ids[2], Phase::Succeeded, 2)], true).await.unwrap();
    ledger.accept(&ids[4]).await;
    let chosen: Vec<(TaskId, i64)> = ids.iter().map(|id| (id.clone(), 2)).collect();
    let events = ledger.ledger.requeue(&chosen, "Redis was emptied", after(10)).await.unwrap();
    let told: HashSet<&TaskId> = events.iter().map(|event| &event.task_id).collect();
    assert_eq!(told, HashSet::from([&ids[0], &ids[3]]));
    assert!(events.iter().all(|event| event.phase == Phase::Accepted && event.delivery == 2), "{events:?}");
    // A task that was never published still counts as a first delivery.
    let broker = Broker::default();
    drain(ledger, 11, &broker).await;
    let mut published: Vec<i32> = broker.published.lock().unwrap().iter().map(|task| task.delivery).collect();
    published.sort_unstable();
    assert_eq!(published, [1, 2, 2]);
    assert_eq!([ledger.phase(&ids[1]).await, ledger.phase(&ids[2]).await], [Phase::Received, Phase::Succeeded]);
}

async fn news_that_overtakes_the_bookkeeping_is_kept(ledger: &Fixture) {
    let id = new_id();
    let no = ledger.accept(&id).await;
    ledger.learn(&[event(&id, Phase::Received, 1)], true).await.unwrap();
    assert!(ledger.published(&[(no, after(2))]).await.unwrap().is_empty());
    let task = ledger.task(&id).await;
    assert_eq!((task.phase, task.queued_at), (Phase::Received, Some(after(2))));
    assert_eq!(drain(ledger, 9, &Broker::default()).await.claimed, 0);
}

async fn one_pass_at_a_time(ledger: &Fixture) {
    ledger.accept(&new_id()).await;
    let slow = Slow::default();
    let broker = Broker::default();
    let first = async { drain(ledger, 1, &slow).await.carried };
    let second = async {
        slow.begun.notified().await;
        let pass = drain(ledger, 1, &broker);
        tokio::pin!(pass);
        // An empty pass at once (PostgreSQL) or a wait for the first one (SQLite): never the same message again.
        let early = tokio::time::timeout(Duration::from_millis(100), &mut pass).await;
        slow.go_on.notify_one();
        match early {
            Ok(pass) => pass,
            Err(_) => pass.await,
        }
    };
    let (carried, second) = tokio::join!(first, second);
    assert_eq!((carried, second.claimed, broker.ids().len()), (1, 0, 0));
}
