//! `insert`: whole or refused, and why.

use celery::task::{GroupId, Phase, TaskId};
use ledger::{Conflict, Edge, EdgeKind, IdempotencyKey, NewGroup, Submission, UniqueKey};
use runtime::clock::Time;

use super::fixture::{Fixture, T0, after, alone, event, id, json, new_id, record, submission, task};
use super::on_both;

on_both!(
    what_was_submitted_is_read_back,
    a_taken_id_is_refused_and_nothing_of_its_submission_is_kept,
    only_the_guilty_one_of_a_batch_is_refused,
    the_first_of_two_alike_in_one_batch_wins,
    an_idempotency_key_replays_the_first_answer,
    an_expired_idempotency_key_is_free,
    two_identical_requests_at_one_instant_make_one_task,
    a_unique_key_joins_while_its_task_is_active,
    a_unique_key_with_a_time_holds_until_then,
    concurrent_batches_that_share_ids_in_other_orders_all_end,
    numbers_follow_the_order_of_the_batch,
    a_retry_is_known_to_the_task_it_repeats,
    a_task_keeps_the_link_to_its_retry_when_it_ends,
    a_large_canvas_goes_in_whole,
    labels_and_options_with_odd_texts_come_back,
    a_pruned_id_is_free_again,
);

fn key(key: &str, fingerprint: u8, answer: &str) -> IdempotencyKey {
    IdempotencyKey {
        scope: "token-1".to_owned(),
        key: key.to_owned(),
        fingerprint: vec![fingerprint; 32],
        answer: json(answer),
        expires_at: after(86_400),
    }
}

fn with_key(id: &TaskId, idempotency: IdempotencyKey) -> Submission {
    Submission { idempotency: Some(idempotency), ..alone(task(id)) }
}

fn unique(id: &TaskId, key: &str, until: Option<Time>) -> Submission {
    Submission {
        unique: Some(UniqueKey { key: key.to_owned(), until, task_id: id.clone(), replaces: None }),
        ..alone(task(id))
    }
}

async fn what_was_submitted_is_read_back(ledger: &Fixture) {
    let (id, root) = (new_id(), new_id());
    let mut new = task(&id);
    new.phase = Phase::Held;
    new.priority = celery::task::Priority::new(7).unwrap();
    new.due_at = Some(after(60));
    new.expires_at = Some(after(90));
    new.root_id = root.clone();
    new.parent_id = Some(root.clone());
    new.group_id = Some(GroupId::parse("g").unwrap());
    new.group_index = Some(3);
    new.ignore_result = true;
    new.schedule = Some("daily".to_owned());
    new.labels = vec![("user".to_owned(), "Ümit".to_owned())];
    new.options.time_limit = Some(1.5);
    new.options.redact = vec!["password".to_owned()];
    let inserted = ledger.insert(alone(new.clone())).await;
    let events = ledger.events(&id, 0, 10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].seq, events[0].phase), (1, Phase::Held));

    let found = ledger.task(&id).await;
    assert_eq!(found.no, inserted.task_nos[0]);
    assert_eq!(
        (found.id, found.name.as_deref(), found.queue.as_deref()),
        (id.clone(), Some("tasks.add"), Some("celery"))
    );
    assert_eq!((found.phase, found.status.as_str(), found.seq, found.delivery), (Phase::Held, "PENDING", 1, 1));
    assert_eq!((found.priority.get(), found.ignore_result), (7, true));
    assert_eq!((found.due_at, found.expires_at, found.submitted_at), (Some(after(60)), Some(after(90)), T0));
    assert_eq!((found.root_id, found.parent_id), (Some(root.clone()), Some(root)));
    assert_eq!((found.group_id, found.group_index), (new.group_id, Some(3)));
    assert_eq!((found.labels, found.options, found.schedule), (new.labels, new.options, new.schedule));
    let message = ledger.message(&id).await.unwrap().unwrap();
    assert_eq!((message.headers, message.body), (new.headers, new.body));
    assert_eq!(ledger.history(&id).await, [(1, Phase::Held)]);
    assert!(ledger.ledger.task(&new_id()).await.unwrap().is_none());
}

async fn a_taken_id_is_refused_and_nothing_of_its_submission_is_kept(ledger: &Fixture) {
    let (taken, other) = (new_id(), new_id());
    ledger.accept(&taken).await;
    let refused = ledger.try_insert(submission(vec![task(&other), task(&taken)])).await;
    assert!(matches!(refused, Err(Conflict::TaskId(id)) if id == taken));
    assert!(ledger.ledger.task(&other).await.unwrap().is_none());
    assert_eq!(ledger.backlog(after(1)).await.unwrap().due, 1);

    let group = NewGroup {
        id: GroupId::parse("g1").unwrap(),
        root_id: other.clone(),
        total: 1,
        chord_size: None,
        structure: None,
    };
    ledger.insert(Submission { groups: vec![group.clone()], ..alone(task(&other)) }).await;
    let refused = ledger.try_insert(Submission { groups: vec![group], ..alone(task(&new_id())) }).await;
    assert!(matches!(refused, Err(Conflict::GroupId(id)) if id.as_str() == "g1"));
}

async fn only_the_guilty_one_of_a_batch_is_refused(ledger: &Fixture) {
    let taken = new_id();
    ledger.accept(&taken).await;
    let (first, last) = (new_id(), new_id());
    let batch = [alone(task(&first)), alone(task(&taken)), alone(task(&last))];
    let answers = ledger.ledger.insert(&batch).await.unwrap();
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert!(matches!(&answers[1], Err(Conflict::TaskId(id)) if *id == taken));
    assert_eq!(ledger.phase(&last).await, Phase::Accepted);
    let numbers = [&answers[0], &answers[2]].map(|answer| answer.as_ref().unwrap().task_nos[0]);
    assert_eq!(numbers, [ledger.task(&first).await.no, ledger.task(&last).await.no]);
}

async fn the_first_of_two_alike_in_one_batch_wins(ledger: &Fixture) {
    let (a, b, c) = (new_id(), new_id(), new_id());
    let batch = [
        with_key(&a, key("k", 1, r#"{"task_id": "a"}"#)),
        with_key(&b, key("k", 1, r#"{"task_id": "b"}"#)),
        with_key(&c, key("k", 2, r#"{"task_id": "c"}"#)),
        alone(task(&a)),
        submission(vec![task(&b), task(&b)]),
    ];
    let answers = ledger.ledger.insert(&batch).await.unwrap();
    assert!(answers[0].is_ok());
    assert!(matches!(&answers[1], Err(Conflict::Replay(answer)) if answer.get() == r#"{"task_id": "a"}"#));
    assert!(matches!(&answers[2], Err(Conflict::KeyReused)));
    assert!(matches!(&answers[3], Err(Conflict::TaskId(id)) if *id == a));
    assert!(matches!(&answers[4], Err(Conflict::TaskId(id)) if *id == b));
    assert!(ledger.ledger.task(&b).await.unwrap().is_none());
}

async fn an_idempotency_key_replays_the_first_answer(ledger: &Fixture) {
    let first = new_id();
    ledger.insert(with_key(&first, key("k", 1, r#"{"n": 10000000000000000000001}"#))).await;
    let second = ledger.try_insert(with_key(&new_id(), key("k", 1, "{}"))).await;
    assert!(matches!(second, Err(Conflict::Replay(answer)) if answer.get() == r#"{"n": 10000000000000000000001}"#));
    assert!(matches!(ledger.try_insert(with_key(&new_id(), key("k", 2, "{}"))).await, Err(Conflict::KeyReused)));
    let mut elsewhere = with_key(&new_id(), key("k", 2, "{}"));
    elsewhere.idempotency.as_mut().unwrap().scope = "token-2".to_owned();
    assert!(ledger.try_insert(elsewhere).await.is_ok());
}

async fn an_expired_idempotency_key_is_free(ledger: &Fixture) {
    ledger.insert(with_key(&new_id(), key("k", 1, "{}"))).await;
    let later = Submission { at: after(86_401), ..with_key(&new_id(), key("k", 2, "[2]")) };
    assert!(ledger.try_insert(later).await.is_ok());
}

async fn two_identical_requests_at_one_instant_make_one_task(ledger: &Fixture) {
    for round in 0..20 {
        let mut requests = Vec::new();
        for _ in 0..4 {
            let ledger = ledger.ledger.clone();
            requests.push(tokio::spawn(async move {
                let request = with_key(&new_id(), key(&format!("k{round}"), 1, "{}"));
                ledger.insert(&[request, alone(task(&new_id()))]).await.unwrap()
            }));
        }
        let mut accepted = 0;
        for request in requests {
            let answers = request.await.unwrap();
            match &answers[0] {
                Ok(_) => accepted += 1,
                Err(conflict) => assert!(matches!(conflict, Conflict::Replay(_)), "{conflict:?}"),
            }
            assert!(answers[1].is_ok());
        }
        assert_eq!(accepted, 1);
    }
}

async fn a_unique_key_joins_while_its_task_is_active(ledger: &Fixture) {
    let first = new_id();
    ledger.insert(unique(&first, "report", None)).await;
    let joined = ledger.try_insert(unique(&new_id(), "report", None)).await;
    assert!(matches!(joined, Err(Conflict::Joined(id)) if id == first));
    ledger.learn(&[record(&first, Phase::Failed, 5)], true).await.unwrap();
    assert!(ledger.try_insert(unique(&new_id(), "report", None)).await.is_ok());
}

async fn a_unique_key_with_a_time_holds_until_then(ledger: &Fixture) {
    let first = new_id();
    ledger.insert(unique(&first, "report", Some(after(60)))).await;
    ledger.learn(&[record(&first, Phase::Succeeded, 5)], true).await.unwrap();
    let again = |seconds| Submission { at: after(seconds), ..unique(&new_id(), "report", Some(after(120))) };
    assert!(matches!(ledger.try_insert(again(59)).await, Err(Conflict::Joined(id)) if id == first));
    assert!(ledger.try_insert(again(60)).await.is_ok());
}

async fn concurrent_batches_that_share_ids_in_other_orders_all_end(ledger: &Fixture) {
    let shared: Vec<TaskId> = (0..20).map(|_| new_id()).collect();
    let mut batches = Vec::new();
    for turn in 0..4 {
        let (ledger, mut ids) = (ledger.ledger.clone(), shared.clone());
        if turn % 2 == 1 {
            ids.reverse();
        }
        batches.push(tokio::spawn(async move {
            let batch: Vec<_> = ids.iter().map(|id| alone(task(id))).collect();
            ledger.insert(&batch).await.unwrap().into_iter().filter(Result::is_ok).count()
        }));
    }
    let mut accepted = 0;
    for batch in batches {
        accepted += batch.await.unwrap();
    }
    assert_eq!(accepted, 20);
}

async fn numbers_follow_the_order_of_the_batch(ledger: &Fixture) {
    let batch: Vec<_> = (0..300).map(|_| submission(vec![task(&new_id()), task(&new_id())])).collect();
    let answers = ledger.ledger.insert(&batch).await.unwrap();
    let numbers: Vec<i64> = answers.iter().flat_map(|answer| answer.as_ref().unwrap().task_nos.clone()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    let (events, _) = ledger.feed(0, &ledger::Filter::default(), 1000).await.unwrap();
    assert_eq!(events.iter().map(|event| event.task_no).collect::<Vec<_>>(), numbers);
}

async fn a_retry_is_known_to_the_task_it_repeats(ledger: &Fixture) {
    let (old, new) = (new_id(), new_id());
    ledger.accept(&old).await;
    let mut retry = task(&new);
    retry.retry_of = Some(old.clone());
    ledger.insert(alone(retry)).await;
    assert_eq!(ledger.task(&old).await.retried_as, Some(new.clone()));
    assert_eq!(ledger.task(&new).await.retry_of, Some(old));
}

async fn a_task_keeps_the_link_to_its_retry_when_it_ends(ledger: &Fixture) {
    let (old, new) = (new_id(), new_id());
    ledger.queue(&old).await;
    ledger.learn(&[event(&old, Phase::Received, 2), event(&old, Phase::Running, 3)], true).await.unwrap();
    let mut retry = task(&new);
    retry.retry_of = Some(old.clone());
    // Another replica inserts the retry, so this one knows the task without the link and tries its shortest statement.
    ledger.another().insert(&[alone(retry)]).await.unwrap().remove(0).unwrap();
    let events = ledger.learn(&[event(&old, Phase::Succeeded, 4)], true).await.unwrap();
    assert_eq!(events.iter().map(|event| event.phase).collect::<Vec<_>>(), [Phase::Succeeded]);
    let ended = ledger.task(&old).await;
    assert_eq!((ended.phase, ended.retried_as), (Phase::Succeeded, Some(new)));
}

async fn a_large_canvas_goes_in_whole(ledger: &Fixture) {
    let root = new_id();
    let tasks: Vec<_> = (0..5000)
        .map(|n| {
            let mut new = task(&if n == 0 { root.clone() } else { new_id() });
            new.root_id = root.clone();
            new
        })
        .collect();
    let edges = (1..5000).map(|n| Edge { from: n - 1, to: n, kind: EdgeKind::Next }).collect();
    let inserted = ledger.insert(Submission { edges, ..submission(tasks) }).await;
    assert_eq!(inserted.task_nos.len(), 5000);
    let (nodes, edges) = ledger.graph(&root).await.unwrap().unwrap();
    assert_eq!((nodes.len(), edges.len()), (5000, 4999));
}

async fn labels_and_options_with_odd_texts_come_back(ledger: &Fixture) {
    let id = id("an id with spaces, 'quotes\" and \\ backslashes");
    let mut new = task(&id);
    new.labels = vec![("b".to_owned(), "x\0y".to_owned()), ("a'\"".to_owned(), "z".repeat(5000))];
    new.body = r#"[["\u0000"], {}, {}]"#.to_owned();
    ledger.insert(alone(new)).await;
    let found = ledger.task(&id).await;
    let expected = vec![("a'\"".to_owned(), "z".repeat(5000)), ("b".to_owned(), "x\u{fffd}y".to_owned())];
    assert_eq!(found.labels, expected);
    assert_eq!(ledger.message(&id).await.unwrap().unwrap().body, r#"[["\u0000"], {}, {}]"#);
}

async fn a_pruned_id_is_free_again(ledger: &Fixture) {
    let old = new_id();
    ledger.queue(&old).await;
    ledger.learn(&[record(&old, Phase::Succeeded, 2)], true).await.unwrap();
    assert_eq!(ledger.prune(after(10), 100, after(11)).await.unwrap(), 1);
    let again = ledger.try_insert(alone(task(&old))).await.unwrap();
    assert_eq!(ledger.task(&old).await.no, again.task_nos[0]);
    ledger.learn(&[record(&old, Phase::Succeeded, 20)], true).await.unwrap();
    assert_eq!(ledger.prune(after(30), 100, after(31)).await.unwrap(), 1);
    assert_eq!(ledger.tombstone(old.as_str()).await.unwrap(), Some(after(31)));
}
