//! A simulated worker: it takes messages from a queue's list in Redis and sends the events of a worker. The time that a Celery worker needs
//! would hide how long a release takes.

use std::time::{Duration, Instant};

use celery::event::{self, Call, Event, Kind, TaskNews};
use celery::result::ResultMeta;
use celery::task::{TaskId, json as text};
use jiff::Timestamp;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use super::Bench;
use super::usage::Servers;

const WORKER: &str = "played@bench";
/// Seconds after which the queue counts as empty: longer than any release takes.
const EMPTY_AFTER: &str = "20";
const LONGEST: Duration = Duration::from_secs(30);
/// Messages that are taken together.
const AT_ONCE: u32 = 1_000;

pub struct Played {
    taking: MultiplexedConnection,
    telling: MultiplexedConnection,
    queue: &'static str,
}

impl Played {
    pub async fn on(bench: &Bench, queue: &'static str) -> Self {
        let client = redis::Client::open(bench.redis.url(0)).expect("the address is ours");
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(LONGEST));
        let taking = client.get_multiplexed_async_connection_with_config(&config).await;
        let telling = client.get_multiplexed_async_connection_with_config(&config).await;
        Self { taking: taking.expect("redis-server answers"), telling: telling.expect("redis-server answers"), queue }
    }

    /// Sends events, while this takes messages.
    pub fn teller(&self) -> Teller {
        Teller(self.telling.clone())
    }

    /// Waits for the next message and returns its task; `None` when no message comes.
    pub async fn take(&mut self) -> Option<TaskId> {
        let mut command = redis::cmd("BRPOP");
        command.arg(self.queue).arg(EMPTY_AFTER);
        let taken: Option<(String, String)> =
            command.query_async(&mut self.taking).await.expect("redis-server answers");
        Some(task_of(&taken?.1))
    }

    /// As [`Played::take`], and all others that are there by then.
    pub async fn take_all(&mut self) -> Vec<TaskId> {
        let Some(first) = self.take().await else { return Vec::new() };
        let mut command = redis::cmd("RPOP");
        command.arg(self.queue).arg(AT_ONCE);
        let others: Option<Vec<String>> = command.query_async(&mut self.taking).await.expect("redis-server answers");
        std::iter::once(first).chain(others.unwrap_or_default().iter().map(|message| task_of(message))).collect()
    }
}

/// The id of a message's task.
pub fn task_of(message: &str) -> TaskId {
    let message: serde_json::Value = serde_json::from_str(message).expect("a message is JSON");
    TaskId::parse(message["headers"]["id"].as_str().expect("a task's message")).expect("an id")
}

/// Sends a worker's events about tasks.
#[derive(Clone)]
pub struct Teller(MultiplexedConnection);

impl Teller {
    /// Reports that the worker has received the message.
    pub async fn received(&mut self, id: &TaskId) {
        self.received_all(std::slice::from_ref(id)).await;
    }

    /// The worker has these messages.
    pub async fn received_all(&mut self, ids: &[TaskId]) {
        let mut pipeline = redis::pipe();
        for id in ids {
            let call = Call { name: Some("demo.add".into()), ..Call::default() };
            publish(&mut pipeline, id, TaskNews::Received(Box::new(call)));
        }
        self.send(&pipeline).await;
    }

    /// Reports that the task ran and succeeded.
    pub async fn ended(&mut self, id: &TaskId) {
        let mut pipeline = redis::pipe();
        publish(&mut pipeline, id, TaskNews::Started);
        let key = format!("celery-task-meta-{id}");
        let record = ResultMeta::new(id.clone(), "SUCCESS", text::written("3".to_owned())).encode();
        pipeline.cmd("SELECT").arg(1).ignore().cmd("SETEX").arg(&key).arg(3600).arg(&record).ignore();
        pipeline.cmd("PUBLISH").arg(&key).arg(&record).ignore();
        publish(&mut pipeline, id, TaskNews::Succeeded { result: Some("3".into()), runtime: Some(0.001) });
        self.send(&pipeline).await;
    }

    async fn send(&mut self, pipeline: &redis::Pipeline) {
        pipeline.exec_async(&mut self.0).await.expect("redis-server answers");
    }
}

fn publish(pipeline: &mut redis::Pipeline, id: &TaskId, news: TaskNews) {
    let event = Event {
        hostname: WORKER.into(),
        pid: Some(1),
        clock: 1,
        utcoffset: 0.0,
        timestamp: Timestamp::now(),
        kind: Kind::Task { uuid: id.clone(), news },
    };
    // Pub/sub is not limited to a database; the channel's name contains it.
    let said = event::encode_tasks(&[event], "celeryev", "bench");
    pipeline.cmd("PUBLISH").arg("/0.celeryev/task.multi").arg(said).ignore();
}

/// The cost of releases, one at a time.
pub struct Releases {
    /// The time from a worker's event that it has a message until the next message is in Redis.
    pub took: Vec<Duration>,
    /// PostgreSQL's processor time for a task that is received, ends, and causes the next release.
    pub micros: f64,
}

/// Takes `count` messages and one more, one after the other, from a queue whose window is one.
pub async fn releases(bench: &Bench, queue: &'static str, count: usize) -> Releases {
    let mut worker = Played::on(bench, queue).await;
    let mut teller = worker.teller();
    let mut at_hand = worker.take().await.expect("the window has a message");
    let database = Servers::of(&[bench.cluster.id()]);
    let before = database.cpu_seconds();
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let told = Instant::now();
        teller.received(&at_hand).await;
        let next = worker.take().await.expect("more tasks wait");
        took.push(told.elapsed());
        teller.ended(&at_hand).await;
        at_hand = next;
    }
    teller.received(&at_hand).await;
    teller.ended(&at_hand).await;
    Releases { took, micros: (database.cpu_seconds() - before) * 1e6 / count as f64 }
}

/// The median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// In milliseconds, the value below which this share of the spans lies.
pub fn at(spans: &[Duration], share: f64) -> f64 {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    let place = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default().as_secs_f64() * 1_000.0
}
