//! Tests the effect of news on a task, case by case.

use super::*;
use crate::sample_task;

fn received(task: &Task, worker: &str, at: i64) -> News {
    let mut news = News::new(task.id.clone(), Source::Event, Phase::Received, Time(at));
    news.worker = Some(worker.to_owned());
    news.retries = Some(0);
    news
}

fn running() -> Task {
    let mut task = sample_task("t", Phase::Running, Time(0));
    task.received_at = Some(Time(10));
    task.worker = Some("w1".to_owned());
    task
}

#[test]
fn a_second_announcement_is_a_second_delivery_and_an_echo_is_not() {
    let task = running();
    let Verdict::Change(change) = apply(&task, &received(&task, "w2", 20)) else { panic!("it is a step") };
    assert_eq!((change.position.delivery, change.reason), (task.delivery + 1, Some(REDELIVERED)));
    assert_eq!(apply(&task, &received(&task, "w1", 10)), Verdict::Drop);
    assert_eq!(apply(&task, &received(&task, "w2", 5)), Verdict::Drop, "late news of the first delivery");
}

#[test]
fn a_start_that_is_told_after_the_first_report_changes_nothing() {
    let task = Task { status: "PROGRESS".to_owned(), ..running() };
    let mut started = News::new(task.id.clone(), Source::Event, Phase::Running, Time(12));
    started.worker = Some("w1".to_owned());
    let Verdict::Facts(facts) = apply(&task, &started) else { panic!("it only says when") };
    assert_eq!(facts.started_at, Some(Time(12)));
    assert!(matches!(apply(&running(), &started), Verdict::Change(_)));
    let stored = News { source: Source::Result, status: Some("STARTED".to_owned()), ..started.clone() };
    assert!(matches!(apply(&task, &stored), Verdict::Change(_)), "the task says so itself");
    let elsewhere = News { worker: Some("w2".to_owned()), ..started };
    assert!(matches!(apply(&task, &elsewhere), Verdict::Change(_)), "a second delivery");
}

#[test]
fn a_start_elsewhere_is_a_second_delivery_whose_announcement_was_lost() {
    let task = running();
    let started = News { phase: Phase::Running, retries: None, ..received(&task, "w2", 20) };
    let Verdict::Change(change) = apply(&task, &started) else { panic!("it is a step") };
    assert_eq!((change.position.delivery, change.position.phase), (task.delivery + 1, Phase::Running));
    let own = News { worker: Some("w1".to_owned()), ..started };
    let Verdict::Change(change) = apply(&task, &own) else { panic!("it is progress") };
    assert_eq!(change.position.delivery, task.delivery);
}

#[test]
fn an_end_elsewhere_is_a_second_delivery_of_which_nothing_else_was_heard() {
    let task = running();
    let ended = News { phase: Phase::Succeeded, retries: None, ..received(&task, "w2", 20) };
    let Verdict::Change(change) = apply(&task, &ended) else { panic!("it is the end") };
    assert_eq!((change.position.delivery, change.reason), (task.delivery + 1, Some(REDELIVERED)));
    let after = Task { phase: Phase::Succeeded, finished_at: Some(Time(19)), ..running() };
    assert_eq!(apply(&after, &ended), Verdict::Remark(ENDED_ELSEWHERE), "its record came first");
    let told = Task { reason: Some(ENDED_ELSEWHERE.to_owned()), ..after.clone() };
    assert_eq!(apply(&told, &ended), Verdict::Drop);
    let own = News { worker: Some("w1".to_owned()), runtime: Some(1.0), ..ended };
    assert!(matches!(apply(&after, &own), Verdict::Facts(_)));
    let retried = Task { phase: Phase::Retrying, ..running() };
    let Verdict::Change(change) = apply(&retried, &News { worker: Some("w2".to_owned()), ..own }) else { panic!() };
    assert_eq!(change.position.delivery, retried.delivery, "its next attempt");
}

#[test]
fn the_start_of_an_attempt_that_is_over_tells_its_time_and_begins_no_other() {
    let retried = Task { phase: Phase::Retrying, ..running() };
    let started = News { phase: Phase::Running, retries: Some(0), ..received(&retried, "w1", 20) };
    let Verdict::Facts(facts) = apply(&retried, &started) else { panic!("it is no step") };
    assert_eq!(facts.started_at, Some(Time(20)));
    let Verdict::Change(change) = apply(&retried, &News { retries: None, ..started }) else { panic!("it is a step") };
    assert_eq!(change.position.retries, retried.retries + 1, "the next attempt");
}

#[test]
fn an_attempt_that_is_announced_after_its_end_is_counted() {
    let ended = Task { phase: Phase::Succeeded, finished_at: Some(Time(30)), retries: 1, ..running() };
    let last = News { retries: Some(2), ..received(&ended, "w1", 20) };
    let Verdict::Facts(facts) = apply(&ended, &last) else { panic!("it is no step") };
    assert_eq!(facts.retries, Some(2));
    assert_eq!(apply(&ended, &News { retries: Some(1), ..last }), Verdict::Drop);
}

#[test]
fn a_delivery_after_the_end_is_remarked() {
    let ended = Task { phase: Phase::Succeeded, finished_at: Some(Time(30)), ..running() };
    assert_eq!(apply(&ended, &received(&ended, "w2", 40)), Verdict::Remark(DUPLICATE));
    assert_eq!(apply(&ended, &received(&ended, "w1", 10)), Verdict::Drop);
}

#[test]
fn a_mark_that_is_read_after_its_announcement_is_remarked() {
    let again = |task: &Task| News { redelivered: true, ..received(task, "w1", 10) };
    for phase in [Phase::Received, Phase::Running, Phase::Succeeded] {
        let task = Task { phase, delivery: 1, finished_at: phase.is_final().then_some(Time(30)), ..running() };
        assert_eq!(apply(&task, &again(&task)), Verdict::Remark(REDELIVERED), "{phase}");
        let told = Task { reason: Some(REDELIVERED.to_owned()), ..task.clone() };
        assert_eq!(apply(&told, &again(&told)), Verdict::Drop, "{phase}");
        let second = Task { delivery: 2, ..task.clone() };
        assert_eq!(apply(&second, &again(&second)), Verdict::Drop, "{phase}: its history says so");
    }
}

#[test]
fn an_announcement_that_is_heard_after_the_end_and_was_made_before_it_is_remarked() {
    let second = Duration::from_secs(1);
    let ended = Task { phase: Phase::Succeeded, finished_at: Some(Time(10).plus(second * 12)), ..running() };
    let at = |at: Time| received(&ended, "w1", at.0);
    assert_eq!(apply(&ended, &at(Time(10).plus(second * 10))), Verdict::Remark(REDELIVERED));
    assert_eq!(apply(&ended, &at(Time(10))), Verdict::Drop, "the one that is known");
    let told = Task { reason: Some(REDELIVERED.to_owned()), ..ended.clone() };
    assert_eq!(apply(&told, &at(Time(10).plus(second * 10))), Verdict::Drop);
    let retried = News { retries: Some(1), ..at(Time(10).plus(second * 10)) };
    let counted = Facts { retries: Some(1), ..Facts::default() };
    assert_eq!(apply(&ended, &retried), Verdict::Facts(counted), "there was another attempt");
    assert_eq!(apply(&Task { retries: 1, ..ended.clone() }, &retried), Verdict::Drop, "its next attempt");
}

#[test]
fn a_marked_message_of_which_nobody_was_heard_is_a_second_delivery() {
    let queued = sample_task("t", Phase::Queued, Time(0));
    let marked = News { redelivered: true, ..received(&queued, "w2", 20) };
    let Verdict::Change(change) = apply(&queued, &marked) else { panic!("it is a step") };
    assert_eq!((change.position.delivery, change.reason), (2, Some(REDELIVERED)));
    assert_eq!(change.facts.received_at, Some(Time(20)));
    let told = Task { delivery: 2, reason: Some("its message went back to the queue".to_owned()), ..queued.clone() };
    let Verdict::Change(change) = apply(&told, &marked) else { panic!("it is a step") };
    assert_eq!((change.position.delivery, change.reason), (2, None), "its history says so already");
    let Verdict::Change(change) = apply(&queued, &received(&queued, "w2", 20)) else { panic!("it is a step") };
    assert_eq!(change.position.delivery, 1);
}

#[test]
fn who_announces_much_later_than_an_unheard_reservation_is_another_one() {
    let mut unheard = sample_task("t", Phase::Received, Time(0));
    unheard.received_at = Some(Time(10));
    unheard.reason = Some(UNHEARD.to_owned());
    let Verdict::Facts(facts) = apply(&unheard, &received(&unheard, "w1", 10_000)) else { panic!("it is its own") };
    assert_eq!(facts.worker.as_deref(), Some("w1"));
    let Verdict::Change(change) = apply(&unheard, &received(&unheard, "w2", 20_000_000)) else { panic!("a step") };
    assert_eq!((change.position.delivery, change.facts.received_at), (2, Some(Time(20_000_000))));
}

#[test]
fn a_third_announcement_is_a_third_delivery() {
    let second = Task { delivery: 2, worker: Some("w2".to_owned()), received_at: Some(Time(20)), ..running() };
    let Verdict::Change(change) = apply(&second, &received(&second, "w3", 30)) else { panic!("it is a step") };
    assert_eq!((change.position.delivery, change.facts.received_at), (3, Some(Time(30))));
}

#[test]
fn what_a_late_recorder_heard_counts_where_it_can_be_told_twice() {
    let late = |news: News| News { late: true, ..news };
    let task = running();
    let news = |phase: Phase| News { phase, retries: None, ..received(&task, "w1", 20) };
    assert!(matches!(apply(&task, &late(news(Phase::Succeeded))), Verdict::Change(_)));
    assert!(matches!(apply(&task, &late(received(&task, "w2", 20))), Verdict::Change(_)), "a second delivery");
    assert_eq!(apply(&task, &late(news(Phase::Running))), Verdict::Drop, "it may have been heard");
    assert_eq!(apply(&task, &late(news(Phase::Retrying))), Verdict::Drop, "it has no time to be told apart by");
    let report = News { source: Source::Result, status: Some("PROGRESS".to_owned()), ..news(Phase::Running) };
    assert_eq!(apply(&task, &late(report)), Verdict::Drop);
    let requeued = Task { delivery: 2, queued_at: Some(Time(30)), ..sample_task("t", Phase::Queued, Time(0)) };
    assert_eq!(apply(&requeued, &late(received(&requeued, "w1", 20))), Verdict::Drop, "the delivery before");
    let ended = Task { phase: Phase::Succeeded, finished_at: Some(Time(30)), ..running() };
    let again = late(received(&ended, "w2", 40));
    assert_eq!(apply(&ended, &again), Verdict::Remark(DUPLICATE));
    let told = Task { reason: Some(DUPLICATE.to_owned()), ..ended };
    assert_eq!(apply(&told, &again), Verdict::Drop);
}

#[test]
fn a_task_that_replaced_itself_waits_and_goes_on_with_its_replacement() {
    let task = running();
    let waits = News { if_seq: Some(task.seq), ..News::new(task.id.clone(), Source::Ledger, Phase::Waiting, Time(30)) };
    let Verdict::Change(change) = apply(&task, &waits) else { panic!("it waits") };
    assert_eq!((change.position.phase, change.position.delivery), (Phase::Waiting, task.delivery));
    assert_eq!(apply(&task, &News { source: Source::Result, ..waits.clone() }), Verdict::Drop);
    let replaced = Task { phase: Phase::Waiting, ..task };
    assert!(replaced.is_replaced());
    for phase in [Phase::Received, Phase::Running, Phase::Succeeded, Phase::Ignored] {
        let news = News { retries: None, ..received(&replaced, "w2", 40) };
        let Verdict::Change(change) = apply(&replaced, &News { phase, ..news }) else { panic!("{phase}") };
        assert_eq!(change.position.delivery, replaced.delivery, "{phase}");
    }
}

#[test]
fn what_was_ignored_is_corrected_once() {
    let ended = Task { phase: Phase::Ignored, finished_at: Some(Time(30)), ..running() };
    let real = News { retries: None, ..received(&ended, "w1", 40) };
    let Verdict::Change(change) = apply(&ended, &News { phase: Phase::Succeeded, ..real.clone() }) else { panic!() };
    assert!(change.corrected);
    let corrected = Task { corrected: true, ..ended };
    assert!(!matches!(apply(&corrected, &News { phase: Phase::Failed, ..real }), Verdict::Change(_)));
}

#[test]
fn a_verdict_on_what_has_moved_since_is_dropped() {
    let task = running();
    let mut lost = News::new(task.id.clone(), Source::Ledger, Phase::Lost, Time(50));
    lost.if_seq = Some(task.seq - 1);
    assert_eq!(apply(&task, &lost), Verdict::Drop);
    lost.if_seq = Some(task.seq);
    assert!(matches!(apply(&task, &lost), Verdict::Change(_)));
}
