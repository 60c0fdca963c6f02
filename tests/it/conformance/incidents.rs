//! Incidents: one open incident for each id, a notice for each channel, no notice while muted.

use ledger::{FoundIncident, Mark, SettledNotice};
use runtime::clock::Time;

use super::fixture::Fixture;

super::on_both!(
    an_incident_begins_and_ends_once_with_a_notice_for_each_channel,
    a_notice_that_failed_is_due_later,
    a_muted_id_stays_silent_when_it_ends_and_begins_again,
    only_an_open_incident_is_acknowledged,
    history_comes_in_pages_and_is_pruned,
);

fn found(id: &str, since: i64, channels: &[&str]) -> FoundIncident {
    FoundIncident {
        id: id.to_owned(),
        kind: "no_consumer".to_owned(),
        subject: format!("queue {id}"),
        since: Time(since),
        detail: "3 messages wait".to_owned(),
        channels: channels.iter().map(|name| (*name).to_owned()).collect(),
    }
}

async fn an_incident_begins_and_ends_once_with_a_notice_for_each_channel(fixture: &Fixture) {
    let one = found("a", 1, &["chat", "mail"]);
    fixture.note_incidents(std::slice::from_ref(&one), Time(10)).await.unwrap();
    fixture.note_incidents(std::slice::from_ref(&one), Time(11)).await.unwrap();
    let open = fixture.open_incidents(10).await.unwrap();
    assert_eq!((open.len(), &open[0].found, open[0].ended_at), (1, &one, None));
    let due = fixture.due_notices(Time(10), 10).await.unwrap();
    let told: Vec<_> = due.iter().map(|notice| (notice.channel.as_str(), notice.is_end)).collect();
    assert_eq!(told, [("chat", false), ("mail", false)]);
    let settled: Vec<_> = due.iter().map(|notice| SettledNotice { no: notice.no, again_at: None }).collect();
    fixture.settle_notices(&settled).await.unwrap();
    fixture.note_incidents(&[], Time(20)).await.unwrap();
    assert!(fixture.open_incidents(10).await.unwrap().is_empty());
    let due = fixture.due_notices(Time(20), 10).await.unwrap();
    assert!(due.len() == 2 && due.iter().all(|notice| notice.is_end && notice.incident.ended_at == Some(Time(20))));
}

async fn a_notice_that_failed_is_due_later(fixture: &Fixture) {
    fixture.note_incidents(&[found("a", 1, &["chat"])], Time(10)).await.unwrap();
    let first = fixture.due_notices(Time(10), 10).await.unwrap();
    fixture.settle_notices(&[SettledNotice { no: first[0].no, again_at: Some(Time(50)) }]).await.unwrap();
    assert!(fixture.due_notices(Time(49), 10).await.unwrap().is_empty());
    let again = fixture.due_notices(Time(50), 10).await.unwrap();
    assert_eq!((again[0].no, again[0].tries, again[0].created_at), (first[0].no, 1, Time(10)));
}

async fn a_muted_id_stays_silent_when_it_ends_and_begins_again(fixture: &Fixture) {
    let one = [found("a", 1, &["chat"])];
    fixture.note_incidents(&one, Time(10)).await.unwrap();
    let muted = fixture.mark_incident("a", &Mark::Muted { until: Some(Time(100)) }, Time(11)).await.unwrap().unwrap();
    assert_eq!(muted.muted_until, Some(Time(100)));
    assert!(fixture.due_notices(Time(11), 10).await.unwrap().is_empty());
    fixture.note_incidents(&[], Time(20)).await.unwrap();
    fixture.note_incidents(&one, Time(30)).await.unwrap();
    assert!(fixture.due_notices(Time(99), 10).await.unwrap().is_empty());
    let due = fixture.due_notices(Time(100), 10).await.unwrap();
    assert_eq!(due.len(), 1, "the one that is open when the silence is over, and nothing of the one before");
    assert!(!due[0].is_end);
    fixture.mark_incident("a", &Mark::Muted { until: None }, Time(40)).await.unwrap().unwrap();
    assert_eq!(fixture.due_notices(Time(41), 10).await.unwrap().len(), 1);
}

async fn only_an_open_incident_is_acknowledged(fixture: &Fixture) {
    let by = Mark::Acknowledged { by: "user kim".to_owned() };
    assert!(fixture.mark_incident("a", &by, Time(1)).await.unwrap().is_none());
    fixture.note_incidents(&[found("a", 1, &[])], Time(10)).await.unwrap();
    let marked = fixture.mark_incident("a", &by, Time(11)).await.unwrap().unwrap();
    assert_eq!((marked.acknowledged_by.as_deref(), marked.acknowledged_at), (Some("user kim"), Some(Time(11))));
    fixture.note_incidents(&[], Time(20)).await.unwrap();
    assert!(fixture.mark_incident("a", &by, Time(21)).await.unwrap().is_none());
    let past = fixture.ended_incidents(None, 10).await.unwrap();
    assert_eq!(past[0].acknowledged_by.as_deref(), Some("user kim"));
}

async fn history_comes_in_pages_and_is_pruned(fixture: &Fixture) {
    for at in [10, 20, 30] {
        fixture.note_incidents(&[found(&format!("i{at}"), at, &["chat"])], Time(at)).await.unwrap();
        fixture.note_incidents(&[], Time(at + 1)).await.unwrap();
    }
    let first = fixture.ended_incidents(None, 2).await.unwrap();
    assert_eq!([first[0].found.id.as_str(), first[1].found.id.as_str()], ["i30", "i20"]);
    let rest = fixture.ended_incidents(Some(first[1].no), 2).await.unwrap();
    assert_eq!((rest.len(), rest[0].found.id.as_str()), (1, "i10"));
    let before = Time(25);
    assert_eq!(fixture.prune_incidents(before, 10).await.unwrap(), 2);
    assert_eq!(fixture.ended_incidents(None, 10).await.unwrap().len(), 1);
    let due = fixture.due_notices(Time(99), 10).await.unwrap();
    assert!(due.iter().all(|notice| notice.incident.found.id == "i30"), "their notices go with them: {due:?}");
}
