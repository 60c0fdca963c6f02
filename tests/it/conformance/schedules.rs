//! Schedules: only the replica that moves a row forward submits its tick.

use celery::task::{Phase, TaskId};
use ledger::{
    Conflict, Created, Edit, Firing, Firings, MOST_AHEAD, NewRun, NextTick, Outcome, Page, Schedule, Submission,
    UniqueKey,
};
use runtime::clock::{self, Time};

use super::fixture::{Fixture, T0, after, alone, event, new_id, task};
use super::on_both;

on_both!(
    a_schedule_reads_back,
    names_are_taken_once_and_seeds_come_once,
    an_edit_needs_the_version_and_the_tick_it_saw,
    a_tick_is_submitted_by_whoever_moves_the_row,
    a_tick_is_seen_at_its_time,
    two_replicas_fire_each_tick_once,
    a_tick_whose_task_exists_is_not_fired_again,
    a_joined_tick_is_skipped_and_names_the_task,
    an_edited_schedule_does_not_fire_its_old_tick,
    a_run_by_hand_leaves_the_next_tick,
    runs_are_paged_newest_first_and_pruned,
    a_schedule_that_is_deleted_takes_its_runs_along,
    what_a_firing_left_running_is_known,
);

fn schedule(name: &str, due: i64) -> Schedule {
    Schedule {
        id: clock::new_id().to_string(),
        namespace: None,
        name: name.to_owned(),
        version: 1,
        document: serde_json::from_str(r#"{"task": "a", "every": 60}"#).unwrap(),
        paused: false,
        created_at: T0,
        updated_at: T0,
        anchor_at: T0,
        next: Some(NextTick { tick: after(due), due_at: after(due) }),
        last_tick_at: None,
        last_run_at: None,
        last_task_id: None,
        last_tasks: None,
    }
}

async fn created(ledger: &Fixture, name: &str, due: i64) -> Schedule {
    let schedule = schedule(name, due);
    assert_eq!(ledger.create_schedule(&schedule, false).await.unwrap(), Created::Done);
    schedule
}

fn next(at: i64) -> Option<NextTick> {
    Some(NextTick { tick: after(at), due_at: after(at) })
}

fn submission(schedule: &str, id: &TaskId) -> Submission {
    let mut task = task(id);
    task.schedule = Some(schedule.to_owned());
    alone(task)
}

fn run(schedule: &Schedule, tick: Time, id: &TaskId) -> NewRun {
    NewRun {
        scheduled_at: tick,
        fired_at: tick,
        outcome: Outcome::Fired,
        reason: None,
        task_id: Some(id.clone()),
        submission: Some(submission(&schedule.name, id)),
    }
}

/// Fires the schedule's next tick as `id`, then waits a minute.
fn firing(schedule: &Schedule, id: &TaskId) -> Firing {
    let tick = schedule.next.unwrap().tick;
    Firing {
        schedule_id: schedule.id.clone(),
        version: schedule.version,
        expected: tick,
        last_tick_at: tick,
        next: Some(NextTick { tick: Time(tick.0 + 60_000_000), due_at: Time(tick.0 + 60_000_000) }),
        runs: vec![run(schedule, tick, id)],
    }
}

fn edit(schedule: &Schedule) -> Edit {
    Edit {
        expected: schedule.version,
        seen: schedule.next.map(|next| next.tick),
        at: after(5),
        document: serde_json::from_str(r#"{"task": "b", "every": 30}"#).unwrap(),
        paused: false,
        anchor_at: after(5),
        next: next(35),
    }
}

async fn outcomes(ledger: &Fixture, schedule: &Schedule) -> Vec<(Outcome, Option<TaskId>)> {
    let (runs, _) = ledger.runs(&schedule.id, &Page { limit: 100, after: None }).await.unwrap();
    runs.into_iter().map(|run| (run.outcome, run.task_id)).collect()
}

async fn a_schedule_reads_back(ledger: &Fixture) {
    let made = created(ledger, "b", 60).await;
    created(ledger, "a", 120).await;
    let read = ledger.schedule("b").await.unwrap().unwrap();
    assert_eq!((read.id, read.version, read.next, read.paused), (made.id, 1, made.next, false));
    assert_eq!(read.document.get(), made.document.get());
    let names = |schedules: Vec<Schedule>| schedules.into_iter().map(|one| one.name).collect::<Vec<_>>();
    assert_eq!(names(ledger.schedules(None, 10).await.unwrap()), ["a", "b"]);
    assert_eq!(names(ledger.schedules(Some("a"), 10).await.unwrap()), ["b"]);
    assert_eq!(names(ledger.upcoming(after(120), 10).await.unwrap()), ["b", "a"]);
    assert_eq!(names(ledger.upcoming(after(119), 10).await.unwrap()), ["b"]);
    assert!(ledger.schedule("c").await.unwrap().is_none());
}

async fn names_are_taken_once_and_seeds_come_once(ledger: &Fixture) {
    let seed = schedule("seed", 60);
    assert_eq!(ledger.create_schedule(&seed, true).await.unwrap(), Created::Done);
    assert_eq!(ledger.create_schedule(&schedule("seed", 60), false).await.unwrap(), Created::NameTaken);
    assert_eq!(ledger.create_schedule(&schedule("seed", 60), true).await.unwrap(), Created::SeededBefore);
    assert!(ledger.delete_schedule(&seed.id, None).await.unwrap());
    assert_eq!(ledger.create_schedule(&schedule("seed", 60), true).await.unwrap(), Created::SeededBefore);
    assert_eq!(ledger.create_schedule(&schedule("seed", 60), false).await.unwrap(), Created::Done);
}

async fn an_edit_needs_the_version_and_the_tick_it_saw(ledger: &Fixture) {
    let made = created(ledger, "a", 60).await;
    assert_eq!(ledger.edit_schedule(&made.id, &Edit { expected: 2, ..edit(&made) }).await.unwrap(), None);
    assert_eq!(ledger.edit_schedule(&made.id, &Edit { seen: Some(after(1)), ..edit(&made) }).await.unwrap(), None);
    assert_eq!(ledger.edit_schedule(&made.id, &edit(&made)).await.unwrap(), Some(2));
    let read = ledger.schedule("a").await.unwrap().unwrap();
    assert_eq!((read.version, read.next, read.anchor_at, read.updated_at), (2, next(35), after(5), after(5)));
    let paused = Edit { expected: 2, seen: Some(after(35)), paused: true, next: None, ..edit(&made) };
    assert_eq!(ledger.edit_schedule(&made.id, &paused).await.unwrap(), Some(3));
    assert!(ledger.upcoming(after(1_000_000), 10).await.unwrap().is_empty());
    let resumed = Edit { expected: 3, seen: None, ..edit(&made) };
    assert_eq!(ledger.edit_schedule(&made.id, &resumed).await.unwrap(), Some(4));
}

async fn a_tick_is_submitted_by_whoever_moves_the_row(ledger: &Fixture) {
    let made = created(ledger, "a", 60).await;
    let id = new_id();
    let fired = ledger.fire(&[firing(&made, &id)], after(0)).await.unwrap();
    let inserted = fired[0].as_ref().unwrap()[0].as_ref().unwrap().as_ref().unwrap();
    assert_eq!(inserted.task_nos.len(), 1);
    assert_eq!(ledger.phase(&id).await, Phase::Accepted);
    assert_eq!(ledger.backlog(after(60)).await.unwrap().due, 1, "its message is in the outbox");
    let again = ledger.fire(&[firing(&made, &new_id())], after(0)).await.unwrap();
    assert!(again[0].is_none(), "the row has moved");
    let read = ledger.schedule("a").await.unwrap().unwrap();
    assert_eq!((read.next, read.last_tick_at, read.last_run_at), (next(120), Some(after(60)), Some(after(60))));
    assert_eq!((read.last_task_id, read.version), (Some(id.clone()), 1));
    assert_eq!(outcomes(ledger, &made).await, [(Outcome::Fired, Some(id))]);
}

async fn a_tick_is_seen_at_its_time(ledger: &Fixture) {
    let made = created(ledger, "a", 60).await;
    let at = clock::now().plus(MOST_AHEAD);
    let read = async {
        let schedule = ledger.schedule("a").await.unwrap().unwrap();
        (schedule.next, clock::now())
    };
    let firings = [firing(&made, &new_id())];
    let (fired, (seen, when)) = tokio::join!(ledger.fire(&firings, at), read);
    assert!(fired.unwrap()[0].is_some());
    assert!(clock::now() >= at, "it is committed at its time");
    assert!(seen == made.next || when >= at, "and nobody has seen it before");
}

async fn two_replicas_fire_each_tick_once(ledger: &Fixture) {
    let mut schedules = Vec::new();
    for number in 0..40 {
        schedules.push(created(ledger, &format!("s{number:02}"), 60).await);
    }
    let ids: Vec<TaskId> = schedules.iter().map(|_| new_id()).collect();
    let firings: Vec<Firing> = schedules.iter().zip(&ids).map(|(schedule, id)| firing(schedule, id)).collect();
    let replicas = [ledger.another(), ledger.another(), ledger.another()];
    let mut won = 0;
    let passes = replicas.iter().map(|replica| replica.fire(&firings, after(0)));
    for fired in futures_util::future::join_all(passes).await {
        won += fired.unwrap().iter().flatten().count();
    }
    // A row that one replica skips, because another has locked it, is moved by that other replica.
    assert_eq!(won, 40);
    for (schedule, id) in schedules.iter().zip(&ids) {
        assert_eq!(outcomes(ledger, schedule).await, [(Outcome::Fired, Some(id.clone()))]);
        assert_eq!(ledger.history(id).await, [(1, Phase::Accepted)]);
    }
}

async fn a_tick_whose_task_exists_is_not_fired_again(ledger: &Fixture) {
    let made = created(ledger, "a", 60).await;
    let (id, other) = (new_id(), created(ledger, "b", 60).await);
    ledger.accept(&id).await;
    let fresh = new_id();
    let fired = ledger.fire(&[firing(&made, &id), firing(&other, &fresh)], after(0)).await.unwrap();
    assert!(matches!(&fired[0].as_ref().unwrap()[0], Some(Err(Conflict::TaskId(taken))) if *taken == id));
    assert!(matches!(&fired[1].as_ref().unwrap()[0], Some(Ok(_))), "its neighbour fires");
    assert_eq!(ledger.schedule("a").await.unwrap().unwrap().next, next(120), "the row goes on");
    assert_eq!(outcomes(ledger, &made).await, [(Outcome::Skipped, Some(id))]);
    assert_eq!(ledger.phase(&fresh).await, Phase::Accepted);
}

async fn a_joined_tick_is_skipped_and_names_the_task(ledger: &Fixture) {
    let made = created(ledger, "a", 60).await;
    let unique = |id: &TaskId| UniqueKey { key: "k".to_owned(), until: None, task_id: id.clone(), replaces: None };
    let first = new_id();
    ledger.insert(Submission { unique: Some(unique(&first)), ..alone(task(&first)) }).await;
    let second = new_id();
    let mut firing = firing(&made, &second);
    firing.runs[0].submission.as_mut().unwrap().unique = Some(unique(&second));
    ledger.fire(&[firing], after(0)).await.unwrap();
    assert_eq!(outcomes(ledger, &made).await, [(Outcome::Skipped, Some(first))]);
    assert!(ledger.ledger.task(&second).await.unwrap().is_none());
}

async fn an_edited_schedule_does_not_fire_its_old_tick(ledger: &Fixture) {
    let made = created(ledger, "a", 60).await;
    ledger.edit_schedule(&made.id, &edit(&made)).await.unwrap().unwrap();
    let id = new_id();
    assert!(ledger.fire(&[firing(&made, &id)], after(0)).await.unwrap()[0].is_none());
    assert!(ledger.ledger.task(&id).await.unwrap().is_none());
}

async fn a_run_by_hand_leaves_the_next_tick(ledger: &Fixture) {
    let made = created(ledger, "a", 60).await;
    let id = new_id();
    let run = NewRun { reason: Some("by hand".to_owned()), ..run(&made, after(7), &id) };
    let fired = ledger.run_schedule(&made.id, &run).await.unwrap().unwrap();
    assert!(matches!(fired[0], Some(Ok(_))));
    let read = ledger.schedule("a").await.unwrap().unwrap();
    assert_eq!((read.next, read.last_run_at, read.last_task_id), (next(60), Some(after(7)), Some(id.clone())));
    assert!(read.last_tick_at.is_none(), "the timetable did not move");
    assert_eq!(outcomes(ledger, &made).await, [(Outcome::Fired, Some(id))]);
    assert!(ledger.run_schedule("gone", &run).await.unwrap().is_none());
}

async fn runs_are_paged_newest_first_and_pruned(ledger: &Fixture) {
    let made = created(ledger, "a", 60).await;
    let missed = |second: i64| NewRun {
        scheduled_at: after(second),
        fired_at: after(second),
        outcome: Outcome::Missed,
        reason: Some("late".to_owned()),
        task_id: None,
        submission: None,
    };
    let runs = (60..65).map(missed).collect();
    ledger
        .fire(&[Firing { runs, last_tick_at: after(64), next: None, ..firing(&made, &new_id()) }], after(0))
        .await
        .unwrap();
    assert_eq!(ledger.schedule("a").await.unwrap().unwrap().next, None);
    let (first, cursor) = ledger.runs(&made.id, &Page { limit: 3, after: None }).await.unwrap();
    assert_eq!(first.iter().map(|run| run.scheduled_at).collect::<Vec<_>>(), [after(64), after(63), after(62)]);
    let (second, end) = ledger.runs(&made.id, &Page { limit: 3, after: cursor }).await.unwrap();
    assert_eq!((second.len(), end), (2, None));
    assert_eq!(ledger.prune_runs(after(62), 100).await.unwrap(), 2);
    assert_eq!(ledger.prune_runs(after(62), 100).await.unwrap(), 0);
    assert_eq!(outcomes(ledger, &made).await.len(), 3);
}

async fn a_schedule_that_is_deleted_takes_its_runs_along(ledger: &Fixture) {
    let made = created(ledger, "a", 60).await;
    ledger.fire(&[firing(&made, &new_id())], after(0)).await.unwrap();
    assert!(!ledger.delete_schedule(&made.id, Some(7)).await.unwrap());
    assert!(ledger.delete_schedule(&made.id, Some(1)).await.unwrap());
    assert!(!ledger.delete_schedule(&made.id, None).await.unwrap());
    assert!(outcomes(ledger, &made).await.is_empty());
}

async fn what_a_firing_left_running_is_known(ledger: &Fixture) {
    let made = created(ledger, "a", 60).await;
    let id = new_id();
    ledger.fire(&[firing(&made, &id)], after(0)).await.unwrap();
    let (first_no, last_no) = ledger.schedule("a").await.unwrap().unwrap().last_tasks.unwrap();
    let firings = [Firings { schedule: "a".to_owned(), first_no, last_no }];
    assert_eq!(ledger.still_running(&firings).await.unwrap(), [("a".to_owned(), id.clone())]);
    let news = event(&id, Phase::Succeeded, 61);
    ledger.learn(&[news], true).await.unwrap();
    assert!(ledger.still_running(&firings).await.unwrap().is_empty());
}
