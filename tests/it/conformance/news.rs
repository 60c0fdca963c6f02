//! `learn`: states move forward, facts are filled in, histories have no gaps.

use std::collections::HashSet;
use std::task::Poll;
use std::time::Duration;

use celery::task::Phase;
use ledger::{Adoption, News, Source};

use super::fixture::{Fixture, T0, after, event, failure, id, json, new_id, record};
use super::on_both;
use crate::harness::{postgres::query, wait::within};

on_both!(
    a_task_is_followed_from_acceptance_to_its_result,
    late_and_repeated_news_changes_nothing,
    what_the_broker_delivers_again_is_in_the_history,
    late_facts_are_kept_without_a_step,
    each_attempt_of_a_retried_task_is_visible,
    a_retry_heard_after_its_successor_was_received_is_shown,
    custom_states_are_progress,
    a_task_given_up_is_corrected_once,
    others_tasks_are_adopted_once_and_completed,
    a_record_that_overtakes_the_first_word_of_others_tasks_is_kept,
    a_text_with_a_nul_is_kept_readable,
    concurrent_learners_leave_no_gap,
    a_call_that_is_given_up_holds_nothing,
    values_pass_through_digit_for_digit,
    unknown_tasks_are_no_news,
);

async fn a_task_is_followed_from_acceptance_to_its_result(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let mut done = record(&id, Phase::Succeeded, 4);
    done.result = Some(json("3"));
    done.runtime = Some(0.5);
    let mut received = event(&id, Phase::Received, 2);
    received.worker = Some("w1@host".to_owned());
    let events = ledger.learn(&[received, event(&id, Phase::Running, 3), done], true).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [3, 4, 5]);

    let task = ledger.task(&id).await;
    assert_eq!((task.phase, task.status.as_str(), task.seq), (Phase::Succeeded, "SUCCESS", 5));
    assert_eq!(task.result.unwrap().get(), "3");
    assert_eq!(task.worker.as_deref(), Some("w1@host"));
    assert_eq!(task.runtime, Some(0.5));
    assert_eq!(task.submitted_at, T0);
    assert_eq!(
        (task.queued_at, task.received_at, task.started_at, task.finished_at),
        (Some(after(1)), Some(after(2)), Some(after(3)), Some(after(4)))
    );
    assert_eq!(
        ledger.history(&id).await,
        [(1, Phase::Accepted), (2, Phase::Queued), (3, Phase::Received), (4, Phase::Running), (5, Phase::Succeeded)]
    );
    assert!(ledger.unfinished(&[], 0, 10).await.unwrap().is_empty());
}

async fn late_and_repeated_news_changes_nothing(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let running = event(&id, Phase::Received, 3);
    assert_eq!(ledger.learn(std::slice::from_ref(&running), true).await.unwrap().len(), 1);
    assert!(ledger.learn(&[running], true).await.unwrap().is_empty());
    ledger.learn(&[record(&id, Phase::Succeeded, 5)], true).await.unwrap();
    for late in [Phase::Received, Phase::Running, Phase::Retrying, Phase::Failed, Phase::Lost] {
        assert!(ledger.learn(&[event(&id, late, 4)], true).await.unwrap().is_empty(), "{late}");
    }
    assert_eq!(ledger.phase(&id).await, Phase::Succeeded);
    assert_eq!(ledger.task(&id).await.seq, 4);
}

async fn what_the_broker_delivers_again_is_in_the_history(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let by = |worker: &str, phase, at| News { worker: Some(worker.to_owned()), ..event(&id, phase, at) };
    let first = [by("w1", Phase::Received, 2), by("w1", Phase::Running, 3)];
    ledger.learn(&first, true).await.unwrap();
    let events = ledger.learn(&[by("w2", Phase::Received, 10)], true).await.unwrap();
    assert_eq!((events[0].delivery, events[0].reason.as_deref()), (2, Some("the broker delivered it again")));
    let task = ledger.task(&id).await;
    assert_eq!((task.phase, task.delivery, task.worker.as_deref()), (Phase::Received, 2, Some("w2")));
    ledger.learn(&[by("w2", Phase::Running, 11), record(&id, Phase::Succeeded, 12)], true).await.unwrap();
    let events = ledger.learn(&[by("w3", Phase::Received, 20)], true).await.unwrap();
    assert!(events[0].reason.as_deref().is_some_and(|why| why.contains("runs twice")), "{events:?}");
    let remarked = ledger.remark(std::slice::from_ref(&id), "somebody looked", after(21)).await.unwrap();
    assert_eq!((remarked[0].phase, remarked[0].seq), (Phase::Succeeded, 9));
    let task = ledger.task(&id).await;
    assert_eq!((task.phase, task.seq, task.finished_at), (Phase::Succeeded, 9, Some(after(12))));
    let seqs: Vec<i64> = ledger.history(&id).await.into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(seqs, (1..=9).collect::<Vec<_>>());
    assert!(ledger.remark(&[new_id()], "unknown", after(22)).await.unwrap().is_empty());
}

async fn late_facts_are_kept_without_a_step(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    ledger.learn(&[record(&id, Phase::Succeeded, 5)], true).await.unwrap();
    let mut late = event(&id, Phase::Received, 2);
    late.worker = Some("w1@host".to_owned());
    assert!(ledger.learn(&[late], true).await.unwrap().is_empty());
    let task = ledger.task(&id).await;
    assert_eq!((task.received_at, task.worker.as_deref(), task.seq), (Some(after(2)), Some("w1@host"), 3));
    assert_eq!(task.phase, Phase::Succeeded);
}

async fn each_attempt_of_a_retried_task_is_visible(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let mut retry = record(&id, Phase::Retrying, 4);
    retry.failure = Some(failure("ValueError", "once more"));
    retry.meta = Some(json(r#"{"exc_type": "ValueError"}"#));
    let mut again = event(&id, Phase::Received, 5);
    again.retries = Some(1);
    let mut done = record(&id, Phase::Succeeded, 7);
    done.retries = Some(1);
    let news = [event(&id, Phase::Received, 2), event(&id, Phase::Running, 3), retry];
    ledger.learn(&news, false).await.unwrap();
    let task = ledger.task(&id).await;
    assert_eq!((task.status.as_str(), task.failure), ("RETRY", Some(failure("ValueError", "once more"))));

    ledger.learn(&[again, done], true).await.unwrap();
    let task = ledger.task(&id).await;
    assert_eq!((task.phase, task.retries, task.failure), (Phase::Succeeded, 1, None));
    let events = ledger.events(&id, 4, 10).await.unwrap();
    assert_eq!(events[0].meta.as_ref().unwrap().get(), r#"{"exc_type": "ValueError"}"#);
    assert_eq!(events.iter().map(|event| event.retries).collect::<Vec<_>>(), [0, 1, 1]);
}

async fn a_retry_heard_after_its_successor_was_received_is_shown(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let mut again = event(&id, Phase::Received, 4);
    again.retries = Some(1);
    let news = [event(&id, Phase::Received, 2), event(&id, Phase::Running, 3), again, event(&id, Phase::Retrying, 5)];
    ledger.learn(&news, true).await.unwrap();
    let task = ledger.task(&id).await;
    assert_eq!((task.phase, task.retries), (Phase::Retrying, 0));
    ledger.learn(&[record(&id, Phase::Succeeded, 7)], true).await.unwrap();
    let task = ledger.task(&id).await;
    assert_eq!((task.phase, task.retries), (Phase::Succeeded, 1));
}

async fn custom_states_are_progress(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let step = |n: i64| {
        let mut news = record(&id, Phase::Running, 2 + n);
        news.status = Some("PROGRESS".to_owned());
        news.meta = Some(json(&format!(r#"{{"progress": {n}}}"#)));
        news
    };
    let events = ledger.learn(&[step(1), step(2), step(3)], false).await.unwrap();
    assert_eq!(events.len(), 3);
    let task = ledger.task(&id).await;
    assert_eq!((task.status.as_str(), task.progress.unwrap().get()), ("PROGRESS", r#"{"progress": 3}"#));
    ledger.learn(&[record(&id, Phase::Succeeded, 9)], true).await.unwrap();
    let task = ledger.task(&id).await;
    assert_eq!((task.status.as_str(), task.progress.unwrap().get()), ("SUCCESS", r#"{"progress": 3}"#));
}

async fn a_task_given_up_is_corrected_once(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let mut lost = News::new(id.clone(), Source::Ledger, Phase::Lost, after(5));
    lost.failure = Some(failure("TaskLost", "no trace of it"));
    lost.reason = Some("no trace of it".to_owned());
    ledger.learn(&[lost], true).await.unwrap();
    assert_eq!(ledger.task(&id).await.reason.as_deref(), Some("no trace of it"));

    let mut end = record(&id, Phase::Succeeded, 9);
    end.result = Some(json("1"));
    let events = ledger.learn(&[end], true).await.unwrap();
    assert!(events[0].corrected);
    let task = ledger.task(&id).await;
    assert_eq!((task.phase, task.corrected, task.failure, task.reason), (Phase::Succeeded, true, None, None));
    assert_eq!(task.result.unwrap().get(), "1");
    assert!(ledger.learn(&[record(&id, Phase::Failed, 10)], true).await.unwrap().is_empty());
}

/// Records and events arrive separately; the record of a short task may be the first news of it.
async fn a_record_that_overtakes_the_first_word_of_others_tasks_is_kept(ledger: &Fixture) {
    let (heard, unheard) = (new_id(), new_id());
    let by_event = |id, phase, seconds| News { adoption: Some(Adoption::default()), ..event(id, phase, seconds) };
    let by_record = |id, value| News { result: Some(json(value)), ..record(id, Phase::Succeeded, 3) };
    let told = [
        by_record(&heard, "42"),
        by_event(&heard, Phase::Received, 1),
        by_event(&heard, Phase::Running, 2),
        by_event(&heard, Phase::Succeeded, 3),
        by_record(&unheard, "43"),
        by_event(&unheard, Phase::Succeeded, 3),
    ];
    ledger.learn(&told, true).await.unwrap();
    for (id, result) in [(&heard, "42"), (&unheard, "43")] {
        let task = ledger.task(id).await;
        assert_eq!((task.phase, task.adopted), (Phase::Succeeded, true));
        assert_eq!(task.result.unwrap().get(), result);
    }
    assert_eq!(ledger.task(&heard).await.started_at, Some(after(2)));
}

async fn others_tasks_are_adopted_once_and_completed(ledger: &Fixture) {
    let theirs = id("report of 2026, übermorgen");
    let adopted = |phase, seconds, adoption| News { adoption: Some(adoption), ..event(&theirs, phase, seconds) };
    let first = adopted(Phase::Queued, 1, Adoption { queue: Some("crawl".to_owned()), ..Adoption::default() });
    let named =
        Adoption { name: Some("tasks.report".to_owned()), argsrepr: Some("(1,)".to_owned()), ..Adoption::default() };
    let events = ledger.learn(&[first, adopted(Phase::Received, 2, named)], true).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);

    let task = ledger.task(&theirs).await;
    assert!(task.adopted);
    assert_eq!((task.name.as_deref(), task.queue.as_deref()), (Some("tasks.report"), Some("crawl")));
    assert_eq!((task.argsrepr.as_deref(), task.root_id, task.phase), (Some("(1,)"), None, Phase::Received));
    assert!(ledger.message(&theirs).await.unwrap().is_none());
    assert_eq!(ledger.unfinished(&[Phase::Received], 0, 10).await.unwrap().len(), 1);

    let named = Adoption { name: Some("tasks.other".to_owned()), ..Adoption::default() };
    ledger.learn(&[adopted(Phase::Succeeded, 3, named)], true).await.unwrap();
    let task = ledger.task(&theirs).await;
    assert_eq!((task.name.as_deref(), task.phase, task.seq), (Some("tasks.report"), Phase::Succeeded, 3));
    assert!(ledger.unfinished(&[], 0, 10).await.unwrap().is_empty());
}

async fn a_text_with_a_nul_is_kept_readable(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let mut failed = record(&id, Phase::Failed, 3);
    failed.failure = Some(failure("Value\0Error", "a\0b"));
    failed.traceback = Some("line\0".to_owned());
    failed.worker = Some("w\0".to_owned());
    ledger.learn(&[failed], true).await.unwrap();
    let task = ledger.task(&id).await;
    assert_eq!(task.failure, Some(failure("Value\u{fffd}Error", "a\u{fffd}b")));
    assert_eq!((task.traceback.as_deref(), task.worker.as_deref()), (Some("line\u{fffd}"), Some("w\u{fffd}")));
}

async fn concurrent_learners_leave_no_gap(ledger: &Fixture) {
    let ids: Vec<_> = (0..8).map(|_| new_id()).collect();
    for id in &ids {
        ledger.queue(id).await;
    }
    let mut learners = Vec::new();
    for learner in 0..4_i64 {
        let (ledger, mut ids) = (ledger.ledger.clone(), ids.clone());
        if learner % 2 == 1 {
            ids.reverse();
        }
        learners.push(tokio::spawn(async move {
            for step in 0..10 {
                let news: Vec<_> = ids.iter().map(|id| record(id, Phase::Running, 10 * step + learner)).collect();
                ledger.learn(&news, false).await.unwrap();
            }
        }));
    }
    for learner in learners {
        learner.await.unwrap();
    }
    for id in &ids {
        let seqs: Vec<i64> = ledger.history(id).await.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(seqs, (1..=42).collect::<Vec<i64>>());
        assert_eq!(ledger.task(id).await.seq, 42);
    }
    let (events, _) = ledger.feed(0, &ledger::Filter::default(), 1000).await.unwrap();
    assert_eq!(events.len(), 8 * 42);
    assert_eq!(events.iter().map(|event| event.feed).collect::<HashSet<_>>().len(), events.len());
}

/// Begins the call, and drops it after this many polls.
async fn given_up<T>(call: impl Future<Output = T>, polls: usize) {
    let mut call = std::pin::pin!(call);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 || call.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        Poll::Pending
    })
    .await;
}

/// Callers may disappear at any moment: clients hang up, loops end with their lease.
async fn a_call_that_is_given_up_holds_nothing(ledger: &Fixture) {
    let open = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in %'";
    let (id, other) = (new_id(), ledger.another());
    ledger.queue(&id).await;
    for polls in 0..20 {
        given_up(ledger.learn(&[event(&id, Phase::Received, 2)], true), polls).await;
        if ledger.is_postgres() {
            let what = format!("no transaction stays open after {polls} polls");
            within(Duration::from_secs(8), &what, async || (query(&ledger.url, open) == "0").then_some(())).await;
        }
        // It is written on its own, not as part of the cancelled call.
        let (name, ttl) = (format!("lease {polls}"), Duration::from_secs(60));
        assert!(ledger.lease(&name, "one", after(3), ttl).await.unwrap().is_some(), "after {polls} polls");
        assert!(other.lease(&name, "other", after(4), ttl).await.unwrap().is_none(), "after {polls} polls");
    }
}

async fn values_pass_through_digit_for_digit(ledger: &Fixture) {
    let id = new_id();
    ledger.queue(&id).await;
    let exact = r#"{"b": 123456789012345678901234567890, "a": 1.10, "z": "\u0000"}"#;
    let mut done = record(&id, Phase::Succeeded, 3);
    done.result = Some(json(exact));
    done.children = Some(json(r#"[[["c", null], null]]"#));
    ledger.learn(&[done], true).await.unwrap();
    let task = ledger.task(&id).await;
    assert_eq!(task.result.unwrap().get(), exact);
    assert_eq!(task.children.unwrap().get(), r#"[[["c", null], null]]"#);
}

async fn unknown_tasks_are_no_news(ledger: &Fixture) {
    assert!(ledger.learn(&[record(&new_id(), Phase::Succeeded, 1)], true).await.unwrap().is_empty());
    assert!(ledger.learn(&[], true).await.unwrap().is_empty());
}
