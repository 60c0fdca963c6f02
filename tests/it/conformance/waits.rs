//! Steps that wait: the first end counts, and one replica at a time settles an ended wait.

use celery::task::pause::OnTimeout;
use celery::task::{TaskId, json};
use ledger::{NewWait, WaitState};

use super::fixture::{Fixture, after};

super::on_both!(
    the_first_end_of_a_wait_counts,
    an_ended_wait_has_one_holder_until_its_claim_is_over,
    a_wait_that_cannot_be_settled_comes_after_those_that_were_not_tried,
    a_secret_is_made_once
);

fn wait(id: &str, since: i64, expires: i64) -> NewWait {
    NewWait {
        task_id: TaskId::parse(id).unwrap(),
        is_sleep: false,
        name: "approve".into(),
        since: after(since),
        expires_at: after(expires),
        schema: Some(json::written("{\"type\": \"integer\"}".into())),
        on_timeout: OnTimeout::Skip,
        input: None,
        token: Some("t1".into()),
        headers: "{}".into(),
        body: "[]".into(),
    }
}

async fn the_first_end_of_a_wait_counts(fixture: &Fixture) {
    fixture.begin_waits(&[wait("a", 1, 50), wait("b", 2, 20)]).await.unwrap();
    fixture.begin_waits(&[wait("a", 9, 99)]).await.unwrap();
    let open = fixture.open_waits(None, Some("t1"), 10).await.unwrap();
    let ids: Vec<_> = open.iter().map(|one| (one.new.task_id.as_str(), one.new.since)).collect();
    assert_eq!(ids, [("a", after(1)), ("b", after(2))]);
    let second = fixture.open_waits(Some((after(1), &open[0].new.task_id)), None, 10).await.unwrap();
    assert_eq!(second[0].new.task_id.as_str(), "b");
    assert!(fixture.open_waits(None, Some("t2"), 10).await.unwrap().is_empty());
    assert_eq!(fixture.next_expiry().await.unwrap(), Some(after(20)));

    let id = &open[0].new.task_id;
    let answer = json::written("7".into());
    let first = fixture.end_wait(id, WaitState::Answered, Some(&answer), after(3)).await.unwrap().unwrap();
    let again = fixture.end_wait(id, WaitState::Refused, None, after(4)).await.unwrap().unwrap();
    assert_eq!((first.is_first, again.is_first, again.wait.state), (true, false, WaitState::Answered));
    assert_eq!(again.wait.answer.unwrap().get(), "7");
    let nobody = TaskId::parse("c").unwrap();
    assert!(fixture.end_wait(&nobody, WaitState::Answered, None, after(4)).await.unwrap().is_none());
    assert_eq!(fixture.expire_waits(after(19)).await.unwrap(), 0);
    assert_eq!(fixture.expire_waits(after(60)).await.unwrap(), 1, "what was answered does not expire");
    assert_eq!(fixture.next_expiry().await.unwrap(), None);
}

async fn an_ended_wait_has_one_holder_until_its_claim_is_over(fixture: &Fixture) {
    fixture.begin_waits(&[wait("a", 1, 2)]).await.unwrap();
    assert!(fixture.claim_waits("r1", after(1), after(9), 10).await.unwrap().is_empty(), "it is open");
    fixture.expire_waits(after(2)).await.unwrap();
    let claimed = fixture.claim_waits("r1", after(3), after(9), 10).await.unwrap();
    assert_eq!((claimed.len(), claimed[0].state), (1, WaitState::Expired));
    assert!(fixture.claim_waits("r2", after(4), after(9), 10).await.unwrap().is_empty());
    assert_eq!(fixture.claim_waits("r1", after(4), after(9), 10).await.unwrap().len(), 1, "it tries again");
    assert_eq!(fixture.claim_waits("r2", after(10), after(19), 10).await.unwrap().len(), 1);
    let id = &claimed[0].new.task_id;
    fixture.settle_wait(id).await.unwrap();
    assert!(fixture.claim_waits("r2", after(30), after(39), 10).await.unwrap().is_empty());
    assert_eq!(fixture.forget_waits(after(1), 10).await.unwrap(), 0);
    assert_eq!(fixture.forget_waits(after(30), 10).await.unwrap(), 1);
    assert!(fixture.wait(id).await.unwrap().is_none());
}

async fn a_wait_that_cannot_be_settled_comes_after_those_that_were_not_tried(fixture: &Fixture) {
    fixture.begin_waits(&[wait("a", 1, 2), wait("b", 1, 3)]).await.unwrap();
    fixture.expire_waits(after(2)).await.unwrap();
    fixture.expire_waits(after(3)).await.unwrap();
    let ids = async |now, until| {
        let claimed = fixture.claim_waits("r1", after(now), after(until), 1).await.unwrap();
        claimed.iter().map(|one| one.new.task_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(4, 9).await, ["a"]);
    assert_eq!(ids(5, 10).await, ["b"], "the first one was tried");
    assert_eq!(ids(6, 11).await, ["a"], "both were");
}

async fn a_secret_is_made_once(fixture: &Fixture) {
    let first = fixture.shared_secret("waits", b"one").await.unwrap();
    assert_eq!(first, b"one");
    assert_eq!(fixture.another().shared_secret("waits", b"two").await.unwrap(), b"one");
}
