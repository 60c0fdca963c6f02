//! Lists: filters, pages, search; the unfinished ones and their census.

use celery::task::{GroupId, Phase, QueueName, TaskId, TaskName};
use ledger::{Cursor, Filter, NewTask, Page};

use super::fixture::{Fixture, after, alone, event, failure, id, new_id, record, task};
use super::on_both;

on_both!(
    pages_are_newest_first_and_complete,
    any_cursor_is_a_place_in_the_list,
    each_filter_takes_what_it_says,
    filters_hold_at_once,
    search_finds_ids_names_labels_and_errors,
    texts_of_users_are_never_patterns_or_sql,
    dead_letters_stay_until_dismissed,
    unfinished_tasks_come_by_number,
    the_census_counts_queues_and_phases,
    queues_are_told_once,
    limits_of_a_token_are_patterns,
    every_walk_meets_each_task_once,
);

async fn add(ledger: &Fixture, id: &str, change: impl FnOnce(&mut NewTask)) -> TaskId {
    let id = super::fixture::id(id);
    let mut new = task(&id);
    change(&mut new);
    ledger.insert(alone(new)).await;
    id
}

async fn pages_are_newest_first_and_complete(ledger: &Fixture) {
    let mut ids = Vec::new();
    for _ in 0..25 {
        let id = new_id();
        ledger.accept(&id).await;
        ids.push(id);
    }
    ids.reverse();
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (tasks, next) = ledger.tasks(&Filter::default(), &Page { limit: 10, after }).await.unwrap();
        seen.extend(tasks.into_iter().map(|task| task.id));
        pages += 1;
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (ids, 3));
    let exact = ledger.tasks(&Filter::default(), &Page { limit: 25, after: None }).await.unwrap();
    assert_eq!((exact.0.len(), exact.1), (25, None));
}

async fn any_cursor_is_a_place_in_the_list(ledger: &Fixture) {
    ledger.accept(&new_id()).await;
    for (cursor, found) in [(i64::MIN, 0), (-1, 0), (0, 0), (i64::MAX, 1)] {
        let page = Page { limit: 5, after: Some(Cursor(cursor)) };
        assert_eq!(ledger.tasks(&Filter::default(), &page).await.unwrap().0.len(), found);
    }
}

/// Six tasks that differ in everything.
async fn assorted(ledger: &Fixture) {
    add(ledger, "plain", |_| {}).await;
    add(ledger, "named", |task| task.name = TaskName::parse("tasks.mul").unwrap()).await;
    add(ledger, "crawl", |task| task.queue = QueueName::parse("crawl").unwrap()).await;
    add(ledger, "labelled", |task| {
        task.labels = vec![("user".to_owned(), "7".to_owned()), ("team".to_owned(), "A".to_owned())];
    })
    .await;
    add(ledger, "member", |task| {
        task.group_id = Some(GroupId::parse("g1").unwrap());
        task.root_id = id("plain");
    })
    .await;
    add(ledger, "ticked", |task| task.schedule = Some("daily".to_owned())).await;
    let mut progress = record(&id("named"), Phase::Running, 5);
    progress.status = Some("PROGRESS".to_owned());
    progress.worker = Some("w1@host".to_owned());
    ledger
        .learn(&[progress, record(&id("crawl"), Phase::Failed, 6), record(&id("ticked"), Phase::Succeeded, 7)], true)
        .await
        .unwrap();
}

fn some(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

async fn each_filter_takes_what_it_says(ledger: &Fixture) {
    assorted(ledger).await;
    let default = Filter::default;
    let cases: Vec<(Filter, &[&str])> = vec![
        (Filter { status: some("PROGRESS"), ..default() }, &["named"]),
        (Filter { status: vec!["FAILURE".into(), "SUCCESS".into()], ..default() }, &["ticked", "crawl"]),
        (Filter { phase: vec![Phase::Failed], ..default() }, &["crawl"]),
        (Filter { phase: vec![Phase::Running], ..default() }, &["named"]),
        (Filter { phase: vec![Phase::Accepted], ..default() }, &["member", "labelled", "plain"]),
        (Filter { phase: vec![Phase::Succeeded, Phase::Running], ..default() }, &["ticked", "named"]),
        (Filter { task: some("tasks.mul"), ..default() }, &["named"]),
        (Filter { queue: some("crawl"), ..default() }, &["crawl"]),
        (Filter { queue: vec!["crawl".into(), "nowhere".into()], ..default() }, &["crawl"]),
        (Filter { worker: some("w1@host"), ..default() }, &["named"]),
        (Filter { labels: vec![("user".into(), "7".into())], ..default() }, &["labelled"]),
        (Filter { labels: vec![("user".into(), "7".into()), ("team".into(), "B".into())], ..default() }, &[]),
        (Filter { root_id: Some("plain".into()), ..default() }, &["member", "plain"]),
        (Filter { group_id: Some("g1".into()), ..default() }, &["member"]),
        (Filter { schedule: Some("daily".into()), ..default() }, &["ticked"]),
        (Filter { from: Some(after(1)), ..default() }, &[]),
        (Filter { to: Some(after(0)), ..default() }, &[]),
        (
            Filter { from: Some(after(0)), to: Some(after(1)), ..default() },
            &["ticked", "member", "labelled", "crawl", "named", "plain"],
        ),
        (Filter { dead_letters: true, ..default() }, &["crawl"]),
    ];
    for (filter, expected) in cases {
        let found = ledger.list(filter.clone()).await;
        assert_eq!(found.iter().map(TaskId::as_str).collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

async fn filters_hold_at_once(ledger: &Fixture) {
    assorted(ledger).await;
    let failed_crawl = Filter { queue: some("crawl"), phase: vec![Phase::Failed], ..Filter::default() };
    assert_eq!(ledger.list(failed_crawl.clone()).await, [id("crawl")]);
    assert!(ledger.list(Filter { task: some("tasks.mul"), ..failed_crawl }).await.is_empty());
}

async fn search_finds_ids_names_labels_and_errors(ledger: &Fixture) {
    add(ledger, "0198-first", |task| task.labels = vec![("customer".to_owned(), "Acme".to_owned())]).await;
    add(ledger, "0199-second", |task| task.name = TaskName::parse("crawler.Fetch_Page").unwrap()).await;
    let mut failed = record(&id("0199-second"), Phase::Failed, 3);
    failed.failure = Some(failure("TimeoutError", "The host did not answer"));
    ledger.learn(&[failed], true).await.unwrap();
    for (text, expected) in [
        ("0198", vec!["0198-first"]),
        ("019", vec!["0199-second", "0198-first"]),
        ("fetch_page", vec!["0199-second"]),
        ("acme", vec!["0198-first"]),
        ("CUSTOMER", vec!["0198-first"]),
        ("timeouterror", vec!["0199-second"]),
        ("host DID not", vec!["0199-second"]),
        ("nothing like it", vec![]),
    ] {
        let found = ledger.list(Filter { q: Some(text.to_owned()), ..Filter::default() }).await;
        assert_eq!(found.iter().map(TaskId::as_str).collect::<Vec<_>>(), expected, "{text}");
    }
}

async fn texts_of_users_are_never_patterns_or_sql(ledger: &Fixture) {
    add(ledger, "one", |task| task.labels = vec![("k".to_owned(), "100%".to_owned())]).await;
    add(ledger, "two", |task| task.labels = vec![("k".to_owned(), "1000".to_owned())]).await;
    assert_eq!(ledger.list(Filter { q: Some("100%".to_owned()), ..Filter::default() }).await, [id("one")]);
    for odd in ["%", "_", "*", "?", "[", "\\", "'; drop table task; --", "\0", "\u{1f600}"] {
        let filter = Filter {
            q: Some(odd.to_owned()),
            argument: Some(odd.to_owned()),
            task: some(odd),
            queue: vec![odd.to_owned(), odd.to_owned()],
            task_patterns: vec![format!("{odd}x")],
            worker: some(odd),
            status: some(odd),
            labels: vec![(odd.to_owned(), odd.to_owned())],
            root_id: Some(odd.to_owned()),
            group_id: Some(odd.to_owned()),
            schedule: Some(odd.to_owned()),
            ..Filter::default()
        };
        assert!(ledger.list(filter.clone()).await.is_empty(), "{odd}");
        assert!(ledger.feed(0, &filter, 10).await.unwrap().0.is_empty(), "{odd}");
    }
    assert_eq!(ledger.list(Filter::default()).await.len(), 2);
}

async fn dead_letters_stay_until_dismissed(ledger: &Fixture) {
    let (failed, lost, revoked) = (new_id(), new_id(), new_id());
    for id in [&failed, &lost, &revoked] {
        ledger.queue(id).await;
    }
    let ends = [record(&failed, Phase::Failed, 2), record(&lost, Phase::Lost, 3), record(&revoked, Phase::Revoked, 4)];
    ledger.learn(&ends, true).await.unwrap();
    let dead = || ledger.list(Filter { dead_letters: true, ..Filter::default() });
    assert_eq!(dead().await, [lost.clone(), failed.clone()]);
    assert_eq!(ledger.dismiss(&[failed.clone(), revoked, new_id()]).await.unwrap(), 1);
    assert_eq!(dead().await, std::slice::from_ref(&lost));
    assert_eq!(ledger.phase(&failed).await, Phase::Failed);
    ledger.learn(&[record(&lost, Phase::Succeeded, 9)], true).await.unwrap();
    assert!(dead().await.is_empty());
}

async fn unfinished_tasks_come_by_number(ledger: &Fixture) {
    let mut numbers = Vec::new();
    for _ in 0..5 {
        numbers.push(ledger.queue(&new_id()).await);
    }
    let running = new_id();
    let no = ledger.queue(&running).await;
    ledger.learn(&[event(&running, Phase::Running, 2)], true).await.unwrap();
    let found = ledger.unfinished(&[Phase::Queued], numbers[0], 3).await.unwrap();
    assert_eq!(found.iter().map(|task| task.no).collect::<Vec<_>>(), numbers[1..4]);
    let found = ledger.unfinished(&[Phase::Running, Phase::Received], 0, 10).await.unwrap();
    assert_eq!(found.iter().map(|task| task.no).collect::<Vec<_>>(), [no]);
    assert_eq!(ledger.unfinished(&[], 0, 10).await.unwrap().len(), 6);
}

async fn queues_are_told_once(ledger: &Fixture) {
    assert_eq!(ledger.queues(10).await.unwrap(), [""; 0]);
    assorted(ledger).await;
    assert_eq!(ledger.queues(10).await.unwrap(), ["celery", "crawl"]);
    assert_eq!(ledger.queues(1).await.unwrap(), ["celery"]);
}

async fn the_census_counts_queues_and_phases(ledger: &Fixture) {
    assorted(ledger).await;
    let census = ledger.census().await.unwrap();
    let of = |queue: &str, phase| census.get(&(queue.to_owned(), phase)).copied();
    assert_eq!(
        (of("celery", Phase::Accepted), of("celery", Phase::Running), of("crawl", Phase::Accepted)),
        (Some(3), Some(1), None)
    );
    assert_eq!(census.values().sum::<i64>(), 4);
}

async fn limits_of_a_token_are_patterns(ledger: &Fixture) {
    assorted(ledger).await;
    let seen = async |patterns: &[&str]| {
        let task_patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        ledger.list(Filter { task_patterns, ..Filter::default() }).await.len()
    };
    assert_eq!(seen(&["tasks.*"]).await, 6);
    assert_eq!(seen(&["tasks.m*"]).await, 1);
    assert_eq!(seen(&["Tasks.*"]).await, 0);
    assert_eq!(seen(&["tasks_*"]).await, 0);
    assert_eq!(seen(&["nothing", "*.add"]).await, 5);
}

/// Pages of `limit` until the last.
async fn walk(ledger: &Fixture, filter: &Filter, limit: i64) -> Vec<TaskId> {
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (tasks, next) = ledger.tasks(filter, &Page { limit, after }).await.unwrap();
        assert!(tasks.len() <= usize::try_from(limit).unwrap());
        seen.extend(tasks.into_iter().map(|task| task.id));
        after = next;
        if after.is_none() {
            return seen;
        }
    }
}

async fn every_walk_meets_each_task_once(ledger: &Fixture) {
    let mut batch = Vec::new();
    for n in 0..1200 {
        let mut new = task(&id(&format!("{:02}-{n}", n % 60)));
        new.queue = QueueName::parse(format!("q{}", n % 7)).unwrap();
        new.name = TaskName::parse(format!("tasks.t{}", n % 11)).unwrap();
        new.labels = vec![("shard".to_owned(), (n % 13).to_string())];
        batch.push(ledger::Submission { at: after(n), ..alone(new) });
    }
    ledger.ledger.insert(&batch).await.unwrap();
    let ends: Vec<_> = (0..1200)
        .filter(|n| n % 3 == 0)
        .map(|n| {
            record(&id(&format!("{:02}-{n}", n % 60)), if n % 2 == 0 { Phase::Failed } else { Phase::Expired }, n + 1)
        })
        .collect();
    ledger.learn(&ends, true).await.unwrap();
    let is = |test: fn(i64) -> bool| {
        (0..1200_i64).rev().filter(move |&n| test(n)).map(|n| id(&format!("{:02}-{n}", n % 60)))
    };
    let default = Filter::default;
    let labels = vec![("shard".to_owned(), "5".to_owned())];
    let cases: Vec<(Filter, Vec<TaskId>)> = vec![
        (
            Filter { queue: vec!["q1".into(), "q4".into(), "q1".into()], ..default() },
            is(|n| matches!(n % 7, 1 | 4)).collect(),
        ),
        (
            Filter { task: vec!["tasks.t3".into(), "tasks.t9".into()], ..default() },
            is(|n| matches!(n % 11, 3 | 9)).collect(),
        ),
        (
            Filter { labels: labels.clone(), queue: some("q2"), ..default() },
            is(|n| n % 13 == 5 && n % 7 == 2).collect(),
        ),
        (
            Filter { phase: vec![Phase::Failed], queue: some("q2"), ..default() },
            is(|n| n % 6 == 0 && n % 7 == 2).collect(),
        ),
        (Filter { status: some("REVOKED"), ..default() }, is(|n| n % 3 == 0 && n % 2 == 1).collect()),
        (Filter { status: vec!["FAILURE".into(), "REVOKED".into()], ..default() }, is(|n| n % 3 == 0).collect()),
        (
            Filter { from: Some(after(300)), to: Some(after(310)), ..default() },
            is(|n| (300..310).contains(&n)).collect(),
        ),
        (Filter { to: Some(after(10)), labels, ..default() }, is(|n| n == 5).collect()),
        (Filter { q: Some("TASKS.T10".into()), ..default() }, is(|n| n % 11 == 10).collect()),
    ];
    for (filter, expected) in cases {
        assert_eq!(walk(ledger, &filter, 7).await, expected, "{filter:?}");
        assert_eq!(walk(ledger, &filter, 500).await, expected, "{filter:?}");
    }
    // The twenty ids that begin so, and the names that contain it.
    let mut found = walk(ledger, &Filter { q: Some("09-".into()), ..default() }, 25).await;
    found.sort();
    let mut expected: Vec<_> = is(|n| n % 60 == 9).collect();
    expected.sort();
    assert_eq!(found, expected);
    // More ids than a page holds are found along the way, fewer come first: each once.
    let begins = |text: &str| Filter { q: Some(text.to_owned()), ..default() };
    assert_eq!(walk(ledger, &begins("09-9"), 1).await, [id("09-969"), id("09-909"), id("09-9")]);
    assert_eq!(walk(ledger, &begins("09-969"), 1).await, [id("09-969")]);
}
