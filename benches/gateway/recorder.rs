//! The recorder: transitions per second into the ledger, how far it lags behind a faster fleet, and how soon it has caught up after
//! PostgreSQL was stopped for a while.
//!
//! This process simulates the fleet, with reports that were built before the measurement: for each task the events received, started and
//! succeeded, and a record that is stored and published.

use std::time::{Duration, Instant};

use celery::event::{self, Call, Event, Kind, TaskNews};
use celery::result::ResultMeta;
use celery::task::{TaskId, json as text};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;

use super::Bench;
use super::harness::postgres;
use super::usage::Servers;

const TASKS: usize = 100_000;
const WORKER: &str = "played@bench";
/// Tasks whose reports are sent in one round trip to Redis.
const CHUNK: usize = 100;
const TRANSITIONS: f64 = 3.0;
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(5);

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("Recorder: received, started, succeeded");
    bench.renew();
    let news = prepare(bench, TASKS).await;
    let started = Instant::now();
    tell(bench, &news).await;
    let told = started.elapsed();
    until_finished(bench, TASKS).await;
    let all = started.elapsed();
    bench.table.note(format!(
        "{:.0} transitions/s reported for {:.1} s; {:.0}/s into the ledger; the last {:.0} ms after its report",
        TASKS as f64 * TRANSITIONS / told.as_secs_f64(),
        told.as_secs_f64(),
        TASKS as f64 * TRANSITIONS / all.as_secs_f64(),
        (all - told).as_secs_f64() * 1_000.0
    ));
    let few = TASKS / 5;
    let news = prepare(bench, few).await;
    let database = Servers::of(&[bench.cluster.id()]);
    database.signal(libc::SIGSTOP);
    tell(bench, &news).await;
    tokio::time::sleep(PAUSE).await;
    database.signal(libc::SIGCONT);
    let resumed = Instant::now();
    until_finished(bench, TASKS + few).await;
    bench.table.note(format!(
        "PostgreSQL stood still for {PAUSE:?} while {few} tasks ran and ended: all {:.0} transitions known {:.1} s after it went on",
        few as f64 * TRANSITIONS,
        resumed.elapsed().as_secs_f64()
    ));
}

/// Redis commands, ready to be sent in chunks, with the reports of workers about `count` new tasks.
async fn prepare(bench: &Bench, count: usize) -> Vec<redis::Pipeline> {
    let one = json!({"task": "demo.add", "args": [1, 2], "queue": "played", "labels": {"bench": count.to_string()}});
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let answer = bench.http().post("/v1/tasks/batch", &json!(vec![&one; 1_000])).await.expect(202);
        let items = answer["items"].as_array().expect("a list").iter();
        ids.extend(items.map(|item| TaskId::parse(item["task_id"].as_str().expect("accepted")).expect("an id")));
    }
    let unpublished = "select count(*) from taskgate.flight where phase = 'accepted'";
    until(bench, unpublished, "0").await;
    bench.redis.command::<()>(0, &["DEL", "played"]);
    ids.chunks(CHUNK).map(chunk).collect()
}

fn chunk(ids: &[TaskId]) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    let received = |_: &TaskId| TaskNews::Received(Box::new(Call { name: Some("demo.add".into()), ..Call::default() }));
    publish(&mut pipeline, ids, received);
    publish(&mut pipeline, ids, |_| TaskNews::Started);
    for id in ids {
        let key = format!("celery-task-meta-{id}");
        let record = ResultMeta::new(id.clone(), "SUCCESS", text::written("3".to_owned())).encode();
        pipeline.cmd("SELECT").arg(1).ignore().cmd("SETEX").arg(&key).arg(3600).arg(&record).ignore();
        pipeline.cmd("PUBLISH").arg(&key).arg(&record).ignore();
    }
    publish(&mut pipeline, ids, |_| TaskNews::Succeeded { result: Some("3".into()), runtime: Some(0.001) });
    pipeline
}

fn publish(pipeline: &mut redis::Pipeline, ids: &[TaskId], news: impl Fn(&TaskId) -> TaskNews) {
    let event = |id: &TaskId| Event {
        hostname: WORKER.into(),
        pid: Some(1),
        clock: 1,
        utcoffset: 0.0,
        timestamp: Timestamp::now(),
        kind: Kind::Task { uuid: id.clone(), news: news(id) },
    };
    let events: Vec<Event> = ids.iter().map(event).collect();
    // Pub/sub does not heed the database; the channel's name does.
    pipeline
        .cmd("PUBLISH")
        .arg("/0.celeryev/task.multi")
        .arg(event::encode_tasks(&events, "celeryev", "bench"))
        .ignore();
}

/// Sends the reports over four connections, because a fleet has many.
async fn tell(bench: &Bench, news: &[redis::Pipeline]) {
    let client = redis::Client::open(bench.redis.url(0)).expect("the address is ours");
    let connections = news.chunks(news.len().div_ceil(4).max(1)).map(async |part| {
        let mut connection = client.get_multiplexed_async_connection().await.expect("redis-server answers");
        for pipeline in part {
            pipeline.exec_async(&mut connection).await.expect("redis-server answers");
        }
    });
    join_all(connections).await;
}

/// Waits until all tasks are finished. Counts only at the end, because counting would slow down what is measured.
async fn until_finished(bench: &Bench, count: usize) {
    until(bench, "select exists (select 1 from taskgate.flight)", "f").await;
    let finished = "select count(*) from taskgate.tasks where queue = 'played' and phase = 'succeeded'";
    assert_eq!(postgres::query(&bench.database, finished), count.to_string(), "every task has ended as it was told");
}

async fn until(bench: &Bench, question: &str, answer: &str) {
    let begin = Instant::now();
    loop {
        let found = postgres::query(&bench.database, question);
        if found == answer {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{question}: {found} instead of {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
