//! The audit log and the operations on many tasks, on both ledgers.

use ledger::{Bulk, BulkAction, BulkState, BulkStep, NewAct, NewBulk, Seal, audit};

use super::fixture::{Fixture, T0, after};
use celery::task::QueueName;

super::on_both!(
    rows_are_chained_in_the_order_of_their_seals,
    a_row_is_sealed_once,
    an_act_opens_its_row_in_its_own_commit,
    a_step_of_an_operation_is_counted_once,
    an_operation_that_has_ended_stays_ended,
    a_list_of_operations_is_of_one_token_or_of_all,
);

fn act(id: &str) -> NewAct {
    NewAct {
        id: id.to_owned(),
        at: T0,
        who: "token ops".into(),
        who_id: Some("1".into()),
        what: "pause_queue".into(),
        target: "/v1/queues/mail/pause".into(),
        origin: None,
    }
}

fn done() -> Seal {
    Seal { at: after(1), status: Some(200), verdict: "done".into(), detail: None }
}

async fn rows_are_chained_in_the_order_of_their_seals(fixture: &Fixture) {
    let ledger = &fixture.ledger;
    for id in ["a", "b"] {
        ledger.open_act(&act(id)).await.unwrap();
    }
    ledger.seal_act(&act("b"), &done()).await.unwrap();
    ledger.seal_act(&act("c"), &done()).await.unwrap();
    let chain = fixture.another().chain(0, 10).await.unwrap();
    let ids: Vec<&str> = chain.iter().map(|row| row.act.id.as_str()).collect();
    assert_eq!(ids, ["b", "c"]);
    let (first, second) = (chain[0].sealed.clone().unwrap(), chain[1].sealed.clone().unwrap());
    assert_eq!(first.hash, audit::hash(b"", 1, &chain[0].act, &first.seal));
    assert_eq!(second.hash, audit::hash(&first.hash, 2, &chain[1].act, &second.seal));
    assert_eq!(ledger.chain_head().await.unwrap(), (2, second.hash));
    assert_eq!(ledger.acts(None, 10).await.unwrap().len(), 3);
    let open = ledger.open_acts(after(9), 10).await.unwrap();
    assert_eq!(open.iter().map(|row| row.act.id.as_str()).collect::<Vec<_>>(), ["a"]);
}

async fn a_row_is_sealed_once(fixture: &Fixture) {
    fixture.ledger.seal_act(&act("a"), &done()).await.unwrap();
    fixture.another().seal_act(&act("a"), &Seal { verdict: "unknown".into(), ..done() }).await.unwrap();
    let chain = fixture.ledger.chain(0, 10).await.unwrap();
    assert_eq!(chain.len(), 1);
    assert_eq!(chain[0].sealed.as_ref().unwrap().seal, done());
    assert_eq!(fixture.ledger.chain_head().await.unwrap().0, 1);
}

async fn an_act_opens_its_row_in_its_own_commit(fixture: &Fixture) {
    let queue = QueueName::parse("mail").unwrap();
    audit::within(act("a"), fixture.ledger.pause_queue(&queue, T0)).await.unwrap();
    let rows = fixture.ledger.acts(None, 10).await.unwrap();
    assert_eq!((rows.len(), &rows[0].act, &rows[0].sealed), (1, &act("a"), &None));
    // Changes that no person requested have no row.
    fixture.ledger.resume_queue(&queue, T0).await.unwrap();
    assert_eq!(fixture.ledger.acts(None, 10).await.unwrap().len(), 1);
}

fn bulk(id: &str) -> NewBulk {
    NewBulk {
        id: id.to_owned(),
        action: BulkAction::Retry,
        plan: "{}".into(),
        fingerprint: "f".into(),
        who: "anybody".into(),
        who_id: None,
        total: Some(3),
        at: T0,
    }
}

fn step(is_last: bool) -> BulkStep {
    BulkStep {
        at_no: Some(7),
        done: 2,
        skipped: 1,
        failed: 0,
        outcomes: "{\"retried\":2}".into(),
        errors: "[]".into(),
        is_last,
        at: after(5),
    }
}

async fn a_step_of_an_operation_is_counted_once(fixture: &Fixture) {
    let ledger = &fixture.ledger;
    assert!(ledger.create_bulk(&bulk("one")).await.unwrap());
    assert!(!ledger.create_bulk(&bulk("one")).await.unwrap());
    let seen = ledger.next_bulk(0).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.total, seen.at_no, seen.steps), (BulkState::Running, Some(3), None, 0));
    assert!(ledger.advance_bulk(&seen, &step(false)).await.unwrap());
    assert!(!fixture.another().advance_bulk(&seen, &step(false)).await.unwrap());
    let now = ledger.bulk("one").await.unwrap().unwrap();
    assert_eq!((now.at_no, now.done, now.skipped, now.steps), (Some(7), 2, 1, 1));
    assert!(ledger.advance_bulk(&now, &step(true)).await.unwrap());
    let ended = ledger.bulk("one").await.unwrap().unwrap();
    assert_eq!((ended.state, ended.finished_at), (BulkState::Done, Some(after(5))));
    assert!(ledger.next_bulk(0).await.unwrap().is_none());
}

async fn an_operation_that_has_ended_stays_ended(fixture: &Fixture) {
    let ledger = &fixture.ledger;
    ledger.create_bulk(&bulk("one")).await.unwrap();
    let seen = ledger.bulk("one").await.unwrap().unwrap();
    assert!(ledger.set_bulk_state("one", BulkState::Paused, after(1)).await.unwrap());
    assert!(!ledger.advance_bulk(&seen, &step(false)).await.unwrap());
    assert!(ledger.next_bulk(0).await.unwrap().is_none());
    assert!(ledger.set_bulk_state("one", BulkState::Running, after(2)).await.unwrap());
    assert!(ledger.set_bulk_state("one", BulkState::Cancelled, after(3)).await.unwrap());
    assert!(!ledger.set_bulk_state("one", BulkState::Running, after(4)).await.unwrap());
    assert_eq!(ledger.bulk("one").await.unwrap().unwrap().finished_at, Some(after(3)));
    assert_eq!(ledger.bulks(10, None).await.unwrap().len(), 1);
}

async fn a_list_of_operations_is_of_one_token_or_of_all(fixture: &Fixture) {
    let ledger = &fixture.ledger;
    for (id, who_id) in [("one", Some("a")), ("two", Some("b")), ("three", None), ("four", Some("a"))] {
        let asked = NewBulk { who_id: who_id.map(str::to_owned), ..bulk(id) };
        assert!(ledger.create_bulk(&asked).await.unwrap());
    }
    let ids = |bulks: Vec<Bulk>| bulks.into_iter().map(|bulk| bulk.id).collect::<Vec<_>>();
    assert_eq!(ids(ledger.bulks(10, Some("a")).await.unwrap()), ["four", "one"]);
    assert_eq!(ids(ledger.bulks(1, Some("a")).await.unwrap()), ["four"], "the limit counts what is shown");
    assert_eq!(ids(ledger.bulks(10, None).await.unwrap()), ["four", "three", "two", "one"]);
    assert!(ledger.bulks(10, Some("c")).await.unwrap().is_empty());
}
