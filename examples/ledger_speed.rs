//! Measures how fast the PostgreSQL ledger takes tasks and transitions: `ledger_speed URL [TASKS] [BATCH] [WRITERS]`.
//!
//! Every task is inserted, published, received, started and finished, in batches as the gateway and the recorder make them.
//! At the end it prints the storage that a finished task takes in each table, indexes included.
//! Run it on an empty database with `fsync` on, in a release build.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use celery::task::{Phase, Priority, QueueName, TaskId, TaskName};
use ledger::postgres::{PostgresConfig, PostgresLedger};
use ledger::{Ledger, NewTask, News, SharedLedger, Source, Submission, TaskOptions};
use runtime::clock::{self, Time};
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

/// About the size of the headers that Celery writes for a small task.
const HEADERS: usize = 600;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or_else(|| anyhow::anyhow!("which database?"))?;
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (tasks, batch, writers) = (number(200_000)?, number(256)?, number(2)?);
    let ledger = PostgresLedger::connect(&PostgresConfig::new(url.clone()), CancellationToken::new())?;
    ledger.migrate().await?;
    let empty = storage(&url).await?;
    let ledger: SharedLedger = Arc::new(ledger);
    let batches = tasks / batch / writers;
    let started = Instant::now();
    let lives = (0..writers).map(|_| submit(ledger.clone(), batches, batch));
    let submitted: Vec<Vec<(TaskId, i64)>> = futures_util::future::join_all(lives).await;
    report("submits", batches * batch * writers, started);
    for (what, phase) in [("received", Phase::Received), ("started", Phase::Running), ("succeeded", Phase::Succeeded)] {
        if phase == Phase::Received {
            let started = Instant::now();
            let work = submitted.iter().map(|own| publish(ledger.clone(), own.clone(), batch));
            futures_util::future::join_all(work).await;
            report("published", batches * batch * writers, started);
        }
        let started = Instant::now();
        let work = submitted.iter().map(|own| learn(ledger.clone(), own.clone(), batch, phase));
        futures_util::future::join_all(work).await;
        report(what, batches * batch * writers, started);
    }
    report_storage(&empty, &storage(&url).await?, batches * batch * writers);
    Ok(())
}

/// Bytes on disk by table, with its indexes and long texts.
async fn storage(url: &str) -> anyhow::Result<BTreeMap<String, i64>> {
    let mut connection = PgConnection::connect(url).await?;
    let tables = "select relname::text, pg_total_relation_size(oid) from pg_class \
                  where relnamespace = 'taskgate'::regnamespace and relkind = 'r'";
    Ok(sqlx::query_as(tables).fetch_all(&mut connection).await?.into_iter().collect())
}

fn report_storage(before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>, tasks: usize) {
    let grown = |table: &str, bytes: i64| bytes - before.get(table).copied().unwrap_or(0);
    let each = |bytes: i64| bytes as f64 / tasks.max(1) as f64;
    let all: i64 = after.iter().map(|(table, bytes)| grown(table, *bytes)).sum();
    println!("{:>10}: {:.0} bytes of storage per finished task", "storage", each(all));
    for (table, bytes) in after.iter().map(|(table, bytes)| (table, grown(table, *bytes))).filter(|one| one.1 > 0) {
        println!("{table:>10}: {:.0} bytes", each(bytes));
    }
}

fn report(what: &str, count: usize, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{what:>10}: {count} in {seconds:.2} s, {:.0}/s", count as f64 / seconds);
}

async fn submit(ledger: SharedLedger, batches: usize, batch: usize) -> Vec<(TaskId, i64)> {
    let mut known = Vec::with_capacity(batches * batch);
    for _ in 0..batches {
        let submissions: Vec<Submission> = (0..batch).map(|_| submission()).collect();
        let answers = ledger.insert(&submissions).await.expect("the database is there");
        for (submission, answer) in submissions.iter().zip(answers) {
            known.push((submission.tasks[0].id.clone(), answer.expect("ids are new").task_nos[0]));
        }
    }
    known
}

async fn publish(ledger: SharedLedger, known: Vec<(TaskId, i64)>, batch: usize) {
    for chunk in known.chunks(batch) {
        let now = clock::now();
        let pushed: Vec<(i64, Time)> = chunk.iter().map(|(_, no)| (*no, now)).collect();
        ledger.published(&pushed).await.expect("the database is there");
    }
}

async fn learn(ledger: SharedLedger, known: Vec<(TaskId, i64)>, batch: usize, phase: Phase) {
    for chunk in known.chunks(batch) {
        let now = clock::now();
        let news: Vec<News> = chunk.iter().map(|(id, _)| news(id, phase, now)).collect();
        let events = ledger.learn(&news, phase.is_final()).await.expect("the database is there");
        assert_eq!(events.len(), news.len());
    }
}

fn news(id: &TaskId, phase: Phase, now: Time) -> News {
    let mut news = News::new(id.clone(), Source::Result, phase, now);
    news.worker = Some("celery@worker-1".to_owned());
    if phase == Phase::Succeeded {
        news.result = serde_json::value::RawValue::from_string("{\"saved_items\": 12}".to_owned()).ok();
    }
    news
}

fn submission() -> Submission {
    let id: TaskId = clock::new_id().into();
    let task = NewTask {
        name: TaskName::parse("tasks.add").expect("a name"),
        queue: QueueName::parse("celery").expect("a name"),
        priority: Priority::default(),
        phase: Phase::Accepted,
        headers: Some(format!("{{\"task\":\"tasks.add\",\"pad\":\"{}\"}}", "x".repeat(HEADERS))),
        body: "[[1, 2], {}, {\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}]".to_owned(),
        due_at: None,
        expires_at: None,
        root_id: id.clone(),
        parent_id: None,
        group_id: None,
        group_index: None,
        ignore_result: false,
        retry_of: None,
        schedule: None,
        labels: Vec::new(),
        way: ledger::Way::Direct,
        options: TaskOptions::default(),
        id,
    };
    Submission {
        at: clock::now(),
        tasks: vec![task],
        edges: Vec::new(),
        groups: Vec::new(),
        idempotency: None,
        fan_out: None,
        dag: None,
        unique: None,
    }
}
