//! Endpoints and deliveries: each position of the feed is turned into deliveries once, and a claim is a lease.

use std::time::Duration;

use ledger::{Claim, Delivery, DeliveryFilter, DeliveryState, Endpoint, EndpointDocument, NewDelivery, Page, Tried};
use runtime::clock::Time;

use super::fixture::{Fixture, T0, after, alone, new_id, task};
use super::on_both;

on_both!(
    a_notice_from_an_old_mark_writes_nothing,
    a_claim_is_bounded_by_target_and_ends_by_itself,
    an_older_try_changes_nothing,
    an_endpoint_is_edited_by_version_and_takes_its_deliveries_along,
    wishes_are_found,
    settled_deliveries_are_forgotten,
);

fn delivery(id: &str, target: &str) -> NewDelivery {
    NewDelivery {
        id: id.to_owned(),
        endpoint_id: "e".to_owned(),
        task_no: 1,
        task_id: "t".to_owned(),
        task_name: Some("tasks.add".to_owned()),
        seq: 1,
        kind: "task.accepted".to_owned(),
        url: format!("http://{target}/"),
        target: target.to_owned(),
        payload: "{}".to_owned(),
        created_at: T0,
        give_up_at: after(100),
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        id: "e".to_owned(),
        version: 1,
        enabled: true,
        disabled_reason: None,
        secret: "whsec_a".to_owned(),
        old_secret: None,
        created_at: T0,
        updated_at: T0,
        document: EndpointDocument { url: Some("http://a/".to_owned()), ..EndpointDocument::default() },
    }
}

async fn claim(ledger: &Fixture, now: Time, busy: &[String], per_target: i64) -> Vec<Delivery> {
    let until = now.plus(Duration::from_secs(30));
    ledger.claim_deliveries(&Claim { now, until, busy, per_target, limit: 10 }).await.unwrap()
}

fn tried(delivery: &Delivery, state: DeliveryState) -> Tried {
    let next_at = (state == DeliveryState::Pending).then(|| after(50));
    let (delivery_no, attempt) = (delivery.no, delivery.attempts);
    Tried {
        delivery_no,
        attempt,
        at: after(2),
        state,
        next_at,
        status: Some(500),
        error: Some("it \0 said".to_owned()),
    }
}

async fn all(ledger: &Fixture) -> Vec<Delivery> {
    let filter = DeliveryFilter { endpoint_id: "e".to_owned(), ..DeliveryFilter::default() };
    ledger.deliveries(&filter, &Page { limit: 100, after: None }).await.unwrap().0
}

async fn a_notice_from_an_old_mark_writes_nothing(ledger: &Fixture) {
    let mark = ledger.noticed().await.unwrap();
    assert!(ledger.notice(mark, mark + 5, &[delivery("a", "h:80"), delivery("b", "h:80")]).await.unwrap());
    assert!(!ledger.notice(mark, mark + 5, &[delivery("c", "h:80")]).await.unwrap());
    assert!(ledger.notice(mark + 5, mark + 6, &[delivery("b", "h:80")]).await.unwrap(), "an id that is there stays");
    assert_eq!(ledger.noticed().await.unwrap(), mark + 6);
    let filter = DeliveryFilter { endpoint_id: "e".to_owned(), ..DeliveryFilter::default() };
    let (first, next) = ledger.deliveries(&filter, &Page { limit: 1, after: None }).await.unwrap();
    let (second, end) = ledger.deliveries(&filter, &Page { limit: 1, after: next }).await.unwrap();
    assert_eq!((first[0].id.as_str(), second[0].id.as_str(), end), ("b", "a", None));
}

async fn a_claim_is_bounded_by_target_and_ends_by_itself(ledger: &Fixture) {
    let mut rows: Vec<NewDelivery> = (0..5).map(|n| delivery(&format!("a{n}"), "a:80")).collect();
    rows.push(delivery("b", "b:80"));
    ledger.notice(ledger.noticed().await.unwrap(), 9, &rows).await.unwrap();
    assert!(claim(ledger, T0.minus(Duration::from_secs(1)), &[], 2).await.is_empty(), "not due yet");
    let mut taken: Vec<String> = claim(ledger, after(1), &[], 2).await.into_iter().map(|one| one.id).collect();
    taken.sort();
    assert_eq!(taken, ["a0", "a1", "b"]);
    assert_eq!(claim(ledger, after(1), &["a:80".to_owned()], 2).await.len(), 0);
    assert_eq!(claim(ledger, after(2), &[], 9).await.len(), 3);
    assert_eq!(ledger.next_delivery().await.unwrap(), Some(after(31)));
    let again = claim(ledger, after(31), &["b:80".to_owned()], 9).await;
    assert_eq!((again.len(), again[0].attempts), (2, 2), "the lease ended without a word");
}

async fn an_older_try_changes_nothing(ledger: &Fixture) {
    ledger.notice(ledger.noticed().await.unwrap(), 9, &[delivery("a", "a:80")]).await.unwrap();
    let first = claim(ledger, after(1), &[], 1).await.remove(0);
    let second = claim(ledger, after(40), &[], 1).await.remove(0);
    ledger.settle_delivery(&tried(&first, DeliveryState::Failed)).await.unwrap();
    assert_eq!(all(ledger).await[0].state, DeliveryState::Pending);
    ledger.settle_delivery(&tried(&second, DeliveryState::Delivered)).await.unwrap();
    let done = all(ledger).await.remove(0);
    assert_eq!((done.state, done.next_at, done.delivered_at), (DeliveryState::Delivered, None, Some(after(2))));
    assert_eq!(done.last_error.as_deref(), Some("it \u{fffd} said"));
    assert_eq!(ledger.next_delivery().await.unwrap(), None);
    assert!(ledger.resend("other", "a", after(60), after(99)).await.unwrap().is_none());
    let again = ledger.resend("e", "a", after(60), after(99)).await.unwrap().expect("known");
    assert_eq!((again.state, again.next_at, again.give_up_at), (DeliveryState::Pending, Some(after(60)), after(99)));
}

async fn an_endpoint_is_edited_by_version_and_takes_its_deliveries_along(ledger: &Fixture) {
    let mut endpoint = endpoint();
    assert!(ledger.create_endpoint(&endpoint).await.unwrap());
    assert!(!ledger.create_endpoint(&endpoint).await.unwrap());
    ledger.notice(ledger.noticed().await.unwrap(), 9, &[delivery("a", "a:80")]).await.unwrap();
    endpoint.document.url = Some("http://b/".to_owned());
    endpoint.old_secret = Some(("whsec_0".to_owned(), after(9)));
    assert!(ledger.edit_endpoint(&endpoint, "b:80").await.unwrap());
    assert!(!ledger.edit_endpoint(&endpoint, "b:80").await.unwrap(), "that version is gone");
    let read = ledger.endpoint("e").await.unwrap().expect("known");
    assert_eq!((read.version, read.old_secret.clone(), &read.document), (2, endpoint.old_secret, &endpoint.document));
    assert_eq!((all(ledger).await[0].url.as_str(), all(ledger).await[0].target.as_str()), ("http://b/", "b:80"));
    assert_eq!(ledger.endpoints(None, 10).await.unwrap().len(), 1);
    assert!(ledger.endpoints(Some("e"), 10).await.unwrap().is_empty());
    assert!(ledger.delete_endpoint("e").await.unwrap());
    assert!(!ledger.delete_endpoint("e").await.unwrap());
    assert!(all(ledger).await.is_empty());
}

async fn wishes_are_found(ledger: &Fixture) {
    ledger.accept(&new_id()).await;
    assert!(!ledger.has_wishes().await.unwrap());
    let mut wishing = task(&new_id());
    wishing.options.webhooks = Some(serde_json::json!([{"url": "http://h/", "on": ["*"]}]));
    let numbers = ledger.insert(alone(wishing)).await.task_nos;
    assert!(ledger.has_wishes().await.unwrap());
    let subjects = ledger.subjects(&numbers).await.unwrap();
    assert!(subjects[0].options.webhooks.is_some());
}

async fn settled_deliveries_are_forgotten(ledger: &Fixture) {
    let rows = [delivery("a", "a:80"), delivery("b", "b:80")];
    ledger.notice(ledger.noticed().await.unwrap(), 9, &rows).await.unwrap();
    let taken = claim(ledger, after(1), &["b:80".to_owned()], 1).await.remove(0);
    ledger.settle_delivery(&tried(&taken, DeliveryState::Delivered)).await.unwrap();
    assert_eq!(ledger.prune_deliveries(T0, 10).await.unwrap(), 0);
    assert_eq!(ledger.prune_deliveries(after(1), 10).await.unwrap(), 1);
    assert_eq!(all(ledger).await.len(), 1, "what is pending stays");
}
