//! Statistics: each event is counted once, whichever replica counts it; sums by step; kinds of failures.

use std::time::Duration;

use ledger::{Counted, FailureKind, Figure, MEASURES, Span, Window};
use taskgate::tell::stats::{Folder, Pass};

use super::fixture::{Fixture, T0, after, new_id};
use super::on_both;

on_both!(
    a_fold_from_an_old_mark_changes_nothing,
    figures_add_up_over_a_step,
    the_newest_failure_speaks_for_its_kind,
    a_second_folder_counts_nothing_twice,
    old_figures_are_forgotten_by_their_span,
    looks_add_up_and_move_no_mark,
);

fn counted(seconds: i64, name: &str) -> Counted {
    let at = Span::Minute.start(after(seconds));
    let queue = "celery".to_owned();
    Counted { span: Span::Minute, at, measure: "accepted", bucket: -1, name: name.to_owned(), queue }
}

fn window(by_name: bool) -> Window {
    Window {
        span: Span::Minute,
        from: Span::Hour.start(T0),
        to: after(86_400),
        step_micros: 3_600_000_000,
        measures: vec!["accepted"],
        names: Vec::new(),
        queues: Vec::new(),
        by_name,
        by_queue: false,
    }
}

async fn sums(ledger: &Fixture, window: &Window) -> Vec<(String, i64)> {
    let mut found: Vec<(String, i64)> = Vec::new();
    for Figure { name, amount, .. } in ledger.figures(window).await.unwrap() {
        found.push((name, amount));
    }
    found.sort();
    found
}

async fn a_fold_from_an_old_mark_changes_nothing(ledger: &Fixture) {
    let amounts = [(counted(0, "a"), 3)];
    assert!(ledger.fold(0, 10, &amounts, &[]).await.unwrap());
    assert!(!ledger.fold(0, 10, &amounts, &[]).await.unwrap());
    assert!(ledger.fold(10, 12, &amounts, &[]).await.unwrap());
    assert_eq!(ledger.folded().await.unwrap(), 12);
    assert_eq!(sums(ledger, &window(false)).await, [(String::new(), 6)]);
}

async fn figures_add_up_over_a_step(ledger: &Fixture) {
    let amounts = [(counted(0, "a"), 1), (counted(0, "b"), 10), (counted(120, "a"), 100)];
    assert!(ledger.fold(0, 1, &amounts, &[]).await.unwrap());
    let all = Window { step_micros: 86_400_000_000, from: T0.minus(Duration::from_secs(86_400)), ..window(true) };
    let by_name = sums(ledger, &all).await;
    let total = |name: &str| by_name.iter().filter(|(one, _)| one == name).map(|(_, amount)| amount).sum::<i64>();
    assert_eq!((total("a"), total("b")), (101, 10));
    let only = Window { names: vec!["b".to_owned()], ..all.clone() };
    assert_eq!(sums(ledger, &only).await, [("b".to_owned(), 10)]);
    let elsewhere = Window { queues: vec!["heavy".to_owned()], ..all };
    assert!(sums(ledger, &elsewhere).await.is_empty());
}

async fn the_newest_failure_speaks_for_its_kind(ledger: &Fixture) {
    let kind = |seconds, message: &str| FailureKind {
        fingerprint: "f1".to_owned(),
        name: "tasks.add".to_owned(),
        kind: "ValueError".to_owned(),
        frame: Some("app.py in add".to_owned()),
        message: message.to_owned(),
        first_at: after(seconds),
        last_at: after(seconds),
        last_task_id: message.to_owned(),
    };
    assert!(ledger.fold(0, 1, &[], &[kind(5, "second")]).await.unwrap());
    assert!(ledger.fold(1, 2, &[], &[kind(1, "first")]).await.unwrap());
    let found = ledger.failure_kinds(&["f1".to_owned(), "unknown".to_owned()]).await.unwrap();
    assert_eq!(found, [FailureKind { first_at: after(1), ..kind(5, "second") }]);
}

async fn a_second_folder_counts_nothing_twice(ledger: &Fixture) {
    for _ in 0..5 {
        ledger.queue(&new_id()).await;
    }
    let day = Duration::from_secs(86_400);
    let folders = [Folder::new(ledger.ledger.clone(), day), Folder::new(ledger.another(), day)];
    loop {
        let (one, two) = tokio::join!(folders[0].run_once(), folders[1].run_once());
        if (one.unwrap(), two.unwrap()) == (Pass::Idle, Pass::Idle) {
            break;
        }
    }
    let ever = Window { span: Span::Ever, from: runtime::clock::Time(0), step_micros: 1, ..window(true) };
    assert_eq!(sums(ledger, &ever).await, [("tasks.add".to_owned(), 5)]);
}

async fn old_figures_are_forgotten_by_their_span(ledger: &Fixture) {
    let old = Counted { measure: MEASURES[0], ..counted(0, "a") };
    let hour = Counted { span: Span::Hour, at: Span::Hour.start(T0), ..old.clone() };
    assert!(ledger.fold(0, 1, &[(old, 1), (hour, 1)], &[]).await.unwrap());
    assert_eq!(ledger.forget_figures(Span::Minute, after(3_600)).await.unwrap(), 1);
    assert_eq!(sums(ledger, &window(false)).await, []);
    assert_eq!(sums(ledger, &Window { span: Span::Hour, ..window(false) }).await.len(), 1);
}

async fn looks_add_up_and_move_no_mark(ledger: &Fixture) {
    let look = |measure, queue: &str| Counted { measure, queue: queue.to_owned(), ..counted(0, "") };
    for waiting in [3, 5] {
        let amounts = [(look("samples", ""), 1), (look("queue_waiting", "mail"), waiting)];
        ledger.sample(&amounts).await.unwrap();
    }
    assert_eq!(ledger.folded().await.unwrap(), 0);
    let all = Window { measures: vec!["samples", "queue_waiting"], by_queue: true, ..window(false) };
    let mut found: Vec<(String, String, i64)> = Vec::new();
    for Figure { measure, queue, amount, .. } in ledger.figures(&all).await.unwrap() {
        found.push((measure, queue, amount));
    }
    found.sort();
    let told = |measure: &str, queue: &str, amount| (measure.to_owned(), queue.to_owned(), amount);
    assert_eq!(found, [told("queue_waiting", "mail", 8), told("samples", "", 2)]);
}
