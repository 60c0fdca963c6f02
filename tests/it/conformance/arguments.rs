//! Search in arguments: what is found, what is hidden, and how much of the history one page looks at.

use celery::task::TaskId;
use ledger::{Adoption, Filter, News, Page, Source, TaskOptions};

use super::fixture::{Fixture, T0, after, alone, id, new_id, record, task};
use super::on_both;
use crate::harness::postgres::query;
use celery::task::Phase;

on_both!(
    arguments_are_searched_as_json_may_write_them,
    what_follows_the_arguments_and_what_is_masked_is_not_searched,
    arguments_of_adopted_tasks_are_searched_as_python_shows_them,
    only_the_beginning_of_large_arguments_is_searched,
    sizes_of_results_are_told_without_the_results,
);

async fn add(ledger: &Fixture, name: &str, body: &str) -> TaskId {
    let id = id(name);
    let mut new = task(&id);
    body.clone_into(&mut new.body);
    ledger.insert(alone(new)).await;
    id
}

fn holding(text: &str) -> Filter {
    Filter { argument: Some(text.to_owned()), ..Filter::default() }
}

async fn arguments_are_searched_as_json_may_write_them(ledger: &Fixture) {
    let plain = add(ledger, "plain", r#"[["Kim", 7], {"city": "봉사"}, {"callbacks": null}]"#).await;
    let ascii = add(ledger, "ascii", "[[\"\\ubd09\\uc0ac\"], {}, {\"callbacks\": null}]").await;
    let quoted = add(ledger, "quoted", r#"[["say \"yes\" 100%"], {}, {"callbacks": null}]"#).await;
    for (text, expected) in [
        ("kim", vec![&plain]),
        (r#""city": "봉"#, vec![&plain]),
        ("봉사", vec![&ascii, &plain]),
        (r#"say "yes""#, vec![&quoted]),
        ("100%", vec![&quoted]),
        ("10_%", vec![]),
    ] {
        let found = ledger.list(holding(text)).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{text}");
    }
    let (events, _) = ledger.feed(0, &holding("kim"), 100).await.unwrap();
    assert_eq!(events.iter().map(|event| &event.task_id).collect::<Vec<_>>(), [&plain]);
    let both = Filter { queue: vec!["nowhere".to_owned()], ..holding("kim") };
    assert!(ledger.list(both).await.is_empty());
}

async fn what_follows_the_arguments_and_what_is_masked_is_not_searched(ledger: &Fixture) {
    add(ledger, "open", r#"[[1], {}, {"callbacks": [{"task": "app.after"}], "chain": null}]"#).await;
    let masked = id("masked");
    let mut new = task(&masked);
    new.body = r#"[[], {"password": "sesame"}, {"callbacks": null}]"#.to_owned();
    new.options = TaskOptions { redact: vec!["password".to_owned()], ..TaskOptions::default() };
    ledger.insert(alone(new)).await;
    for text in ["chain", "app.after", "callbacks", "sesame", "password"] {
        assert!(ledger.list(holding(text)).await.is_empty(), "{text}");
    }
}

async fn arguments_of_adopted_tasks_are_searched_as_python_shows_them(ledger: &Fixture) {
    let theirs = new_id();
    let mut news = News::new(theirs.clone(), Source::Event, Phase::Received, after(1));
    news.adoption = Some(Adoption {
        name: Some("app.send".to_owned()),
        argsrepr: Some("('Kim',)".to_owned()),
        kwargsrepr: Some("{'to': 'Lee'}".to_owned()),
        ..Adoption::default()
    });
    ledger.learn(&[news], true).await.unwrap();
    assert_eq!(ledger.list(holding("('kim'")).await, std::slice::from_ref(&theirs));
    assert_eq!(ledger.list(holding("'to': 'lee'")).await, [theirs]);
}

async fn only_the_beginning_of_large_arguments_is_searched(ledger: &Fixture) {
    let long = "x".repeat(1 << 20);
    let large = add(ledger, "large", &format!(r#"[["early", "{long}", "late"], {{}}, {{"callbacks": null}}]"#)).await;
    assert_eq!(ledger.list(holding("early")).await, [large]);
    assert!(ledger.list(holding("late")).await.is_empty());
}

async fn sizes_of_results_are_told_without_the_results(ledger: &Fixture) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = new_id();
        ledger.queue(&id).await;
        ids.push(id);
    }
    let mut first = record(&ids[0], Phase::Succeeded, 5);
    first.result = Some(super::fixture::json(r#""1234567890""#));
    let mut second = record(&ids[1], Phase::Succeeded, 6);
    second.result = Some(super::fixture::json("7"));
    ledger.learn(&[first, second, record(&ids[2], Phase::Failed, 7)], true).await.unwrap();
    let sizes = async |name: &str, since, limit| ledger.result_sizes(name, since, limit).await.unwrap();
    assert_eq!(sizes("tasks.add", T0, 5).await, [1, 12], "newest first");
    assert_eq!(sizes("tasks.add", T0, 1).await, [1]);
    assert!(sizes("tasks.add", after(1), 5).await.is_empty(), "they were submitted before");
    assert!(sizes("tasks.other", T0, 5).await.is_empty());
}

/// The history of months ago is reached by following cursors; no page opens it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_search_in_arguments_looks_at_one_month() {
    let ledger = Fixture::postgres().await;
    let november = "date '2025-11-01' - date '1970-01-01', date '2025-12-01' - date '1970-01-01', '202511'";
    query(&ledger.url, &format!("select taskgate.make_partitions({november})"));
    query(&ledger.url, &format!("select setval('taskgate.task_no', {}::bigint << 32)", T0.0 / 86_400_000_000));
    let old = add(&ledger, "old", r#"[["needle"], {}, {"callbacks": null}]"#).await;
    ledger.migrate().await.unwrap();
    let (mut cursor, mut pages) = (None, Vec::new());
    loop {
        let page = Page { limit: 10, after: cursor };
        let (tasks, next) = ledger.tasks(&holding("needle"), &page).await.unwrap();
        pages.push(tasks.into_iter().map(|task| task.id).collect::<Vec<_>>());
        assert!(next.is_none() || next != cursor, "the walk goes on");
        let Some(next) = next else { break };
        cursor = Some(next);
    }
    assert!(pages.len() > 2 && pages[0].is_empty(), "{pages:?}");
    assert_eq!(pages.concat(), [old]);
    let bounded = Filter { from: Some(T0), to: Some(after(60)), ..holding("needle") };
    let (tasks, next) = ledger.tasks(&bounded, &Page { limit: 10, after: None }).await.unwrap();
    assert_eq!((tasks.len(), next), (1, None), "a range is searched at once");
}
