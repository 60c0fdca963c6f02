//! What a task costs, compared with the least that the same machine needs for it: inserting a bare row with a UUID key and as many bytes, in
//! groups of sixteen.
//!
//! First the ledger alone, in groups as large as those of a gateway under load: processor time of PostgreSQL (all its processes), WAL, and
//! storage at the end. Then a gateway at 32 connections, compared with the same bare row and with a handler that only answers.

use std::sync::Arc;
use std::time::Duration;

use celery::task::{Phase, Priority, QueueName, TaskId, TaskName};
use ledger::postgres::{PostgresConfig, PostgresLedger};
use ledger::{Ledger, NewTask, News, Source, Submission, TaskOptions};
use runtime::clock;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::harness::postgres;
use super::load::{self, Load};
use super::usage::Servers;
use super::{Bench, SPAN, floors};

const GROUP: usize = 16;
/// News in one batch; these batches are larger than those of submissions.
const NEWS: usize = 96;
const TASKS: usize = 24_000;
const SUBMIT: &str = r#"{"task": "demo.add", "args": [2, 3], "queue": "bench"}"#;
const BODY: &str =
    r#"[["봉사 공지사항 크롤링"], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#;

/// The cost of one task: seconds of PostgreSQL's processor time, and bytes of WAL.
#[derive(Clone, Copy, Default)]
struct Cost {
    micros: f64,
    wal: f64,
}

impl std::ops::Add for Cost {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { micros: self.micros + other.micros, wal: self.wal + other.wal }
    }
}

/// Measures the cost of what happens between two readings.
struct Meter {
    server: Servers,
    database: String,
}

impl Meter {
    fn look(&self) -> (f64, f64) {
        let wal = postgres::query(&self.database, "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn");
        (self.server.cpu_seconds(), wal.parse().expect("a number"))
    }

    async fn cost(&self, tasks: usize, work: impl Future<Output = ()>) -> Cost {
        let before = self.look();
        work.await;
        let after = self.look();
        Cost { micros: (after.0 - before.0) * 1e6 / tasks as f64, wal: (after.1 - before.1) / tasks as f64 }
    }
}

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("Cost, in bare rows (UUID key, the same bytes, groups of 16)");
    let database = bench.cluster.empty_database();
    let meter = Meter { server: Servers::of(&[bench.cluster.id()]), database: database.clone() };
    // A checkpoint during the measurement would add whole pages to the WAL.
    postgres::query(&bench.cluster.url("postgres"), "checkpoint");
    let bare = bare_rows(&meter).await;
    note(bench, "floor: a bare row", bare, bare);
    let ledger = PostgresLedger::connect(&PostgresConfig::new(&database), CancellationToken::new());
    let ledger: Arc<dyn Ledger> = Arc::new(ledger.expect("the address is ours"));
    ledger.migrate().await.expect("an empty database");
    postgres::query(&bench.cluster.url("postgres"), "checkpoint");
    lives(bench, &meter, &*ledger, bare).await;
    let again = bare_rows(&meter).await;
    note(bench, "floor again: a bare row", again, bare);
    gateway(bench, bare).await;
}

fn note(bench: &mut Bench, name: &str, cost: Cost, bare: Cost) {
    let rows = cost.micros / bare.micros;
    bench.table.note(format!("{name:<64} {:>7.1} µs  {rows:>5.2} bare rows  {:>6.0} B WAL", cost.micros, cost.wal));
}

async fn bare_rows(meter: &Meter) -> Cost {
    let mut connection = PgConnection::connect(&meter.database).await.expect("the cluster is up");
    let table = "drop table if exists bare; create table bare (id uuid primary key, doc text)";
    sqlx::raw_sql(table).execute(&mut connection).await.expect("a new table");
    let doc = format!("{BODY}{}", "x".repeat(540));
    meter
        .cost(TASKS, async {
            for _ in 0..TASKS / GROUP {
                let ids: Vec<Uuid> = (0..GROUP).map(|_| clock::new_id()).collect();
                let insert = sqlx::query("insert into bare select * from unnest($1::uuid[], $2::text[])");
                let done = insert.bind(ids).bind(vec![doc.as_str(); GROUP]).execute(&mut connection).await;
                done.expect("new ids");
            }
        })
        .await
}

/// Runs the same tasks twice, and reports the second run, when caches and plans are warm.
async fn lives(bench: &mut Bench, meter: &Meter, ledger: &dyn Ledger, bare: Cost) {
    live(meter, ledger).await;
    let [submitted, published, news] = live(meter, ledger).await;
    note(bench, "a submission", submitted, bare);
    note(bench, "its publication", published, bare);
    note(bench, "both", submitted + published, bare);
    note(bench, "received, started, succeeded, in batches of 96", news, bare);
    note(bench, "a whole life", submitted + published + news, bare);
    let stored = "select (select sum(pg_total_relation_size(c.oid)) from pg_class c where c.relnamespace = 'taskgate'::regnamespace \
                  and c.relkind = 'r') / greatest(count(*), 1) from taskgate.task";
    let vacuum = "vacuum full";
    let as_it_is = postgres::query(&meter.database, stored);
    postgres::query(&meter.database, vacuum);
    let packed = postgres::query(&meter.database, stored);
    bench.table.note(format!("stored for a finished task: {as_it_is} bytes, {packed} after a vacuum full"));
}

async fn live(meter: &Meter, ledger: &dyn Ledger) -> [Cost; 3] {
    let mut tasks: Vec<(i64, TaskId)> = Vec::with_capacity(TASKS);
    let submitted = meter
        .cost(TASKS, async {
            for _ in 0..TASKS / GROUP {
                tasks.extend(submit(ledger).await);
            }
        })
        .await;
    let published = meter
        .cost(TASKS, async {
            for group in tasks.chunks(GROUP) {
                let pushed: Vec<_> = group.iter().map(|(no, _)| (*no, clock::now())).collect();
                ledger.published(&pushed).await.expect("the ledger answers");
            }
        })
        .await;
    let news = meter
        .cost(TASKS, async {
            for batch in tasks.chunks(NEWS) {
                for phase in [Phase::Received, Phase::Running, Phase::Succeeded] {
                    let news: Vec<News> = batch.iter().map(|(_, id)| heard(id, phase)).collect();
                    ledger.learn(&news, phase.is_final()).await.expect("the ledger answers");
                }
            }
        })
        .await;
    [submitted, published, news]
}

async fn submit(ledger: &dyn Ledger) -> Vec<(i64, TaskId)> {
    let ids: Vec<TaskId> = (0..GROUP).map(|_| clock::new_id().into()).collect();
    let batch: Vec<Submission> = ids.iter().map(submission).collect();
    let answers = ledger.insert(&batch).await.expect("the ledger answers");
    let number = |answer: Result<ledger::Inserted, ledger::Conflict>| answer.expect("a new id").task_nos[0];
    answers.into_iter().map(number).zip(ids).collect()
}

fn submission(id: &TaskId) -> Submission {
    let headers = format!(
        "{{\"lang\": \"py\", \"task\": \"hidden.crawl\", \"id\": \"{id}\", \"shadow\": null, \"eta\": null, \"expires\": null, \
         \"group\": null, \"group_index\": null, \"retries\": 0, \"timelimit\": [null, null], \"root_id\": \"{id}\", \
         \"parent_id\": null, \"argsrepr\": \"('...')\", \"kwargsrepr\": \"{{}}\", \"origin\": \"taskgate@host\", \
         \"ignore_result\": false, \"replaced_task_nesting\": 0, \"stamped_headers\": null, \"stamps\": {{}}}}"
    );
    let task = NewTask {
        id: id.clone(),
        name: TaskName::parse("hidden.crawl").expect("a name"),
        queue: QueueName::parse("celery").expect("a queue"),
        priority: Priority::default(),
        phase: Phase::Accepted,
        headers: Some(headers),
        body: BODY.to_owned(),
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

fn heard(id: &TaskId, phase: Phase) -> News {
    let mut news = News::new(id.clone(), Source::Event, phase, clock::now());
    news.worker = Some("celery@crawler-1".to_owned());
    if phase.is_final() {
        news.runtime = Some(0.125);
        let result = serde_json::value::RawValue::from_string(r#"{"total_items": 42}"#.to_owned()).expect("JSON");
        news.result = Some(result);
    }
    news
}

/// A gateway at 32 connections: processor time of PostgreSQL, Redis and the gateway for one submission that is published.
async fn gateway(bench: &mut Bench, bare: Cost) {
    bench.renew();
    let (database, redis) = (Servers::of(&[bench.cluster.id()]), Servers::of(&[bench.redis.id()]));
    let before = (database.cpu_seconds(), redis.cpu_seconds());
    let load = Load::post(&bench.target(), "/v1/tasks", SUBMIT, 32);
    let rate = load::run(&load, SPAN, &bench.servers()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let micros = |seconds: f64| seconds * 1e6 / rate.answers.max(1) as f64;
    let taken = [
        ("PostgreSQL", micros(database.cpu_seconds() - before.0)),
        ("gateway", rate.cpu_seconds_per_thousand * 1e3),
        ("Redis", micros(redis.cpu_seconds() - before.1)),
    ];
    bench.table.row("a gateway, 32 connections, committed and published", &rate, &[]);
    for (name, micros) in taken {
        bench.table.note(format!(
            "{:<64} {micros:>7.1} µs  {:>5.2} bare rows",
            format!("    {name} for a submission"),
            micros / bare.micros
        ));
    }
    let empty = floors::empty_handler().await;
    bench.table.row("floor: a handler that only answers, 32 connections", &empty, &[]);
    let handler = empty.cpu_seconds_per_thousand * 1e3;
    bench.table.note(format!(
        "{:<64} {handler:>7.1} µs  {:>5.2} bare rows",
        "    of it, for an answer",
        handler / bare.micros
    ));
}
