//! How late a task that waits for a limit is in Redis, after the time from which it may go: for a rate its next opening, for a number
//! of tasks under way the word that one has ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use celery::task::TaskId;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Bench;
use super::harness::postgres;
use super::played::{Played, at};

const PROMISED_MS: f64 = 20.0;
/// Keys with a rate of one in a second, and tasks of each.
const RATED: (usize, usize) = (50, 12);
/// One key, many in a second.
const FAST: usize = 500;
const FAST_EVERY: Duration = Duration::from_millis(20);
/// How late a release of such a rate may be for the next one to be on time, in microseconds.
const MADE_UP_FOR: i64 = 20_000;
/// Keys of which one task at a time may run, tasks of each, and how long each runs.
const ALONE: (usize, usize) = (20, 40);
const RUNS: Duration = Duration::from_millis(200);

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("Limits: how late after its permitted time a task is in Redis");
    bench.renew();
    rates(bench).await;
    bench.renew();
    fast(bench).await;
    bench.renew();
    ends(bench, false).await;
    bench.renew();
    ends(bench, true).await;
    bench.renew();
}

fn note(bench: &mut Bench, what: &str, late: &[Duration]) {
    let p99 = at(late, 0.99);
    let word = if p99 <= PROMISED_MS { "holds" } else { "DOES NOT HOLD" };
    bench.table.note(format!(
        "{what:<64} {:>6} releases  p50 {:>6.1} ms  p99 {p99:>6.1} ms  at most {:>6.1} ms   {word}",
        late.len(),
        at(late, 0.5),
        at(late, 1.0)
    ));
}

/// Tasks with these limits: the key of each.
async fn submitted(
    bench: &Bench,
    queue: &str,
    keys: usize,
    each: usize,
    limit: impl Fn(&str) -> Value,
) -> HashMap<TaskId, usize> {
    let one = |n: usize| {
        let key = format!("key-{}", n % keys);
        json!({"task": "demo.add", "args": [n, 1], "queue": queue, "limits": [limit(&key)]})
    };
    let tasks: Vec<Value> = (0..keys * each).map(one).collect();
    let mut of = HashMap::new();
    for (chunk, tasks) in tasks.chunks(500).enumerate() {
        let answer = bench.http().post("/v1/tasks/batch", &json!(tasks)).await.expect(202);
        let items = answer["items"].as_array().expect("a list").iter();
        let ids = items.map(|item| TaskId::parse(item["task_id"].as_str().expect("accepted")).expect("an id"));
        of.extend(ids.enumerate().map(|(n, id)| (id, (chunk * 500 + n) % keys)));
    }
    of
}

fn micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// Arrivals in Redis by task, in microseconds since 1970. What the worker says of them must not delay the next look.
async fn arrivals(bench: &Bench, queue: &'static str, count: usize) -> HashMap<TaskId, i64> {
    let mut worker = Played::on(bench, queue).await;
    let mut found = HashMap::new();
    while found.len() < count {
        let ids = worker.take_all().await;
        assert!(!ids.is_empty(), "tasks come");
        let now = micros();
        found.extend(ids.iter().map(|id| (id.clone(), now)));
        let mut teller = worker.teller();
        tokio::spawn(async move { teller.received_all(&ids).await });
    }
    found
}

async fn rates(bench: &mut Bench) {
    let (keys, each) = RATED;
    let late = after_opening(bench, "slow", (keys, each), "1/s", Duration::from_secs(1)).await;
    note(bench, &format!("{keys} keys, each with a rate of 1/s"), &late);
}

async fn fast(bench: &mut Bench) {
    let late = after_opening(bench, "fast", (1, FAST), "50/s", FAST_EVERY).await;
    note(bench, "one key with a rate of 50/s", &late);
}

/// How long after its permitted time each task but the first of a key is in Redis.
async fn after_opening(
    bench: &Bench,
    queue: &'static str,
    (keys, each): (usize, usize),
    rate: &str,
    interval: Duration,
) -> Vec<Duration> {
    let taking = arrivals(bench, queue, keys * each);
    let sending = submitted(bench, queue, keys, each, |key| json!({"key": key, "rate": rate}));
    let (of, arrived) = tokio::join!(sending, taking);
    let passed = "select task_id, queued_at from taskgate.tasks where queued_at is not null";
    let mut times: HashMap<usize, Vec<(i64, i64)>> = HashMap::new();
    for row in postgres::query(&bench.database, passed).lines() {
        let (id, at) = row.split_once('|').expect("two columns");
        let id = TaskId::parse(id).expect("an id");
        let (Some(key), Some(arrival)) = (of.get(&id), arrived.get(&id)) else { continue };
        times.entry(*key).or_default().push((at.parse().expect("a number"), *arrival));
    }
    times.into_values().flat_map(|times| lateness(times, interval.as_micros() as i64)).collect()
}

/// When the ledger let each task of a key go, and its arrival. The next one is permitted an interval after the permitted time of the
/// one before, where a fast rate makes up for a late release, and else an interval after its release.
fn lateness(mut times: Vec<(i64, i64)>, interval: i64) -> Vec<Duration> {
    times.sort_unstable();
    let is_slow = interval >= 1_000_000;
    let mut times = times.into_iter();
    let Some((mut permitted, _)) = times.next() else { return Vec::new() };
    let mut late = Vec::new();
    for (released, arrival) in times {
        permitted += interval;
        late.push(span(arrival - permitted));
        if is_slow || released - permitted > MADE_UP_FOR {
            permitted = released;
        }
    }
    late
}

/// The next one may go when a worker says that the one before has ended. The ends of the keys come one after the other, or (`at_once`) all
/// together.
async fn ends(bench: &mut Bench, at_once: bool) {
    let (keys, each) = ALONE;
    let apart = if at_once { Duration::ZERO } else { RUNS / keys as u32 };
    let mut taken = 0;
    let mut worker = Played::on(bench, "alone").await;
    let of = submitted(bench, "alone", keys, each, |key| json!({"key": key, "max": 1})).await;
    let told: Arc<Mutex<HashMap<usize, Instant>>> = Arc::default();
    let mut late = Vec::new();
    for _ in 0..keys * each {
        let id = worker.take().await.expect("a task comes");
        let (key, arrived) = (of[&id], Instant::now());
        if let Some(told) = told.lock().await.remove(&key) {
            late.push(arrived - told);
        }
        let (mut teller, told) = (worker.teller(), Arc::clone(&told));
        // The first tasks of all keys start together.
        let more = if taken < keys { apart * taken as u32 } else { Duration::ZERO };
        taken += 1;
        tokio::spawn(async move {
            teller.received(&id).await;
            tokio::time::sleep(RUNS + more).await;
            told.lock().await.insert(key, Instant::now());
            teller.ended(&id).await;
        });
    }
    let when = if at_once { "all at first at once".to_owned() } else { format!("each {} ms", apart.as_millis()) };
    note(bench, &format!("{keys} keys, one task of each under way, an end {when}"), &late);
}

fn span(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
