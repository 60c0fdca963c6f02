//! A new ledger for each test, and short functions that fill it.

use std::ops::Deref;
use std::sync::Arc;

use celery::task::{Json, Phase, Priority, QueueName, TaskId, TaskName};
use ledger::postgres::{PostgresConfig, PostgresLedger};
use ledger::sqlite::{SqliteLedger, Synchronous};
use ledger::{
    Conflict, Event, Failure, Filter, Inserted, Ledger, NewTask, News, Page, Source, Submission, Task, TaskOptions, Way,
};
use runtime::clock::{self, Time};
use tokio_util::sync::CancellationToken;

use crate::harness::postgres::cluster;

/// The time from which all tests count.
pub const T0: Time = Time(1_763_662_650_000_000);

pub struct Fixture {
    pub ledger: Arc<dyn Ledger>,
    /// The URL of the PostgreSQL database, or the file's name for SQLite.
    pub url: String,
    stop: CancellationToken,
    _folder: Option<tempfile::TempDir>,
}

impl Fixture {
    pub async fn postgres() -> Self {
        let url = cluster().empty_database();
        let stop = CancellationToken::new();
        let ledger = PostgresLedger::connect(&PostgresConfig::new(&url), stop.clone()).unwrap();
        ledger.migrate().await.unwrap();
        Self { ledger: Arc::new(ledger), url, stop, _folder: None }
    }

    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let ledger = SqliteLedger::open(&path, Synchronous::Normal);
        ledger.migrate().await.unwrap();
        let url = path.to_string_lossy().into_owned();
        Self { ledger: Arc::new(ledger), url, stop: CancellationToken::new(), _folder: Some(folder) }
    }

    pub fn is_postgres(&self) -> bool {
        self.ledger.kind() == "postgres"
    }

    /// The same ledger as another process sees it.
    pub fn another(&self) -> Arc<dyn Ledger> {
        if self.is_postgres() {
            Arc::new(PostgresLedger::connect(&PostgresConfig::new(&self.url), self.stop.clone()).unwrap())
        } else {
            Arc::new(SqliteLedger::open(&self.url, Synchronous::Normal))
        }
    }

    /// Puts one task back into the outbox, unless the ledger skips it.
    pub async fn requeue(&self, id: &TaskId, seq: i64, reason: &str, at: Time) -> Option<Event> {
        let mut events = self.ledger.requeue(&[(id.clone(), seq)], reason, at).await.unwrap();
        assert!(events.len() <= 1, "{events:?}");
        events.pop()
    }

    /// Inserts one submission that must be taken.
    pub async fn insert(&self, submission: Submission) -> Inserted {
        self.try_insert(submission).await.expect("taken")
    }

    pub async fn try_insert(&self, submission: Submission) -> Result<Inserted, Conflict> {
        self.ledger.insert(&[submission]).await.unwrap().pop().expect("one answer for one submission")
    }

    /// A task that stands alone, accepted at `T0`; answers with its number.
    pub async fn accept(&self, id: &TaskId) -> i64 {
        self.insert(alone(task(id))).await.task_nos[0]
    }

    /// As [`Fixture::accept`], and in the broker one second later.
    pub async fn queue(&self, id: &TaskId) -> i64 {
        let no = self.accept(id).await;
        let events = self.ledger.published(&[(no, after(1))]).await.unwrap();
        assert_eq!(events.len(), 1);
        no
    }

    pub async fn task(&self, id: &TaskId) -> Task {
        self.ledger.task(id).await.unwrap().expect("known")
    }

    pub async fn phase(&self, id: &TaskId) -> Phase {
        self.task(id).await.phase
    }

    /// The history as (seq, phase).
    pub async fn history(&self, id: &TaskId) -> Vec<(i64, Phase)> {
        let events = self.ledger.events(id, 0, 1000).await.unwrap();
        events.iter().map(|event| (event.seq, event.phase)).collect()
    }

    /// Ids of a list's first page.
    pub async fn list(&self, filter: Filter) -> Vec<TaskId> {
        let (tasks, _) = self.ledger.tasks(&filter, &Page { limit: 100, after: None }).await.unwrap();
        tasks.into_iter().map(|task| task.id).collect()
    }
}

impl Deref for Fixture {
    type Target = dyn Ledger;
    fn deref(&self) -> &Self::Target {
        &*self.ledger
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn after(seconds: i64) -> Time {
    Time(T0.0 + seconds * 1_000_000)
}

pub fn new_id() -> TaskId {
    clock::new_id().into()
}

pub fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

pub fn json(text: &str) -> Json {
    Json::from(serde_json::value::RawValue::from_string(text.to_owned()).unwrap())
}

/// `tasks.add` on queue `celery`, priority 0, accepted.
pub fn task(id: &TaskId) -> NewTask {
    NewTask {
        id: id.clone(),
        name: TaskName::parse("tasks.add").unwrap(),
        queue: QueueName::parse("celery").unwrap(),
        priority: Priority::default(),
        phase: Phase::Accepted,
        headers: Some(r#"{"task":"tasks.add"}"#.to_owned()),
        body: "[[1, 2], {}, {}]".to_owned(),
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
        options: TaskOptions::default(),
        way: Way::Direct,
    }
}

pub fn alone(task: NewTask) -> Submission {
    submission(vec![task])
}

/// Accepted at `T0`.
pub fn submission(tasks: Vec<NewTask>) -> Submission {
    Submission {
        at: T0,
        tasks,
        edges: Vec::new(),
        groups: Vec::new(),
        idempotency: None,
        fan_out: None,
        unique: None,
        dag: None,
    }
}

/// News from a worker's event.
pub fn event(id: &TaskId, phase: Phase, seconds: i64) -> News {
    News::new(id.clone(), Source::Event, phase, after(seconds))
}

/// News from a record in the result backend.
pub fn record(id: &TaskId, phase: Phase, seconds: i64) -> News {
    News::new(id.clone(), Source::Result, phase, after(seconds))
}

pub fn failure(kind: &str, message: &str) -> Failure {
    Failure { kind: kind.to_owned(), message: message.to_owned() }
}
