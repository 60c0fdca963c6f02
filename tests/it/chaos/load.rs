//! The load: clients that submit (some of them hang up), and readers that follow tasks.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::world::World;
use super::{Broker, Plan};
use crate::harness::Http;
use crate::harness::reader::Reader;

/// One submission in this many is watched by a reader.
const WATCHED: u32 = 40;
const READERS: usize = 12;
/// One submission in twenty kills or outlives something; of these, one in this many kills the process that runs it, at every delivery,
const POISON: u32 = 8;
/// and one in this many kills its whole worker.
const CRASHES: u32 = 150;

/// Accepted tasks that no worker has begun. With more of them nothing is submitted: workers on a slow machine would not get through.
const BEHIND: usize = 3_000;

/// How far the workers are, by their journal.
struct Progress {
    journal: PathBuf,
    read: Mutex<(u64, usize)>,
}

impl Progress {
    /// Executions that have begun. Reads what was written since the last call.
    fn begun(&self) -> usize {
        let mut read = self.read.lock().expect("nothing panics here");
        let mut more = Vec::new();
        if let Ok(mut file) = File::open(&self.journal)
            && file.seek(SeekFrom::Start(read.0)).is_ok()
            && file.read_to_end(&mut more).is_ok()
        {
            // A line may be half written.
            let whole = more.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            read.0 += whole as u64;
            read.1 += more[..whole].split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"start ")).count();
        }
        read.1
    }
}

/// The outcome of the load.
#[derive(Default)]
pub struct Submitted {
    /// Ids that were answered 202.
    pub accepted: Vec<String>,
    /// Requests without an answer, or with one that leaves the outcome unknown.
    pub open: usize,
    /// Refused requests, for which nothing was promised.
    pub refused: usize,
    pub readers: Vec<(String, JoinHandle<Vec<u64>>)>,
}

pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    submitted: Arc<Mutex<Submitted>>,
}

impl Load {
    pub fn start(plan: Plan, world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let submitted = Arc::new(Mutex::new(Submitted::default()));
        let progress = Arc::new(Progress { journal: world.journal.clone(), read: Mutex::default() });
        let clients = (0..plan.clients).map(|number| {
            let client = Client {
                gateways: world.https(),
                rng: StdRng::seed_from_u64(plan.seed.wrapping_mul(1_000) + number as u64),
                submitted: Arc::clone(&submitted),
                progress: Arc::clone(&progress),
                broker: plan.broker,
            };
            tokio::spawn(client.run(Arc::clone(&stop)))
        });
        Self { clients: clients.collect(), stop, submitted }
    }

    pub async fn stop(self) -> Submitted {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("a client does not panic");
        }
        std::mem::take(&mut *self.submitted.lock().expect("nothing panics here"))
    }
}

struct Client {
    gateways: Vec<Http>,
    rng: StdRng,
    submitted: Arc<Mutex<Submitted>>,
    progress: Arc<Progress>,
    broker: Broker,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            if self.is_too_early() {
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            }
            self.submit().await;
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(5..60))).await;
        }
    }

    fn is_too_early(&self) -> bool {
        let accepted = self.submitted.lock().expect("nothing panics here").accepted.len();
        accepted > BEHIND && accepted - BEHIND > self.progress.begun()
    }

    async fn submit(&mut self) {
        let at = self.rng.random_range(0..self.gateways.len());
        let (path, body) = self.call();
        let headers = [("content-type", "application/json")];
        let call =
            self.gateways[at].try_send(reqwest::Method::POST, path, &headers, Some(body.to_string().into_bytes()));
        // Some clients hang up before the answer.
        let patience = if self.rng.random_bool(0.05) { Duration::from_millis(3) } else { Duration::from_secs(20) };
        let answer = tokio::time::timeout(patience, call).await;
        let mut submitted = self.submitted.lock().expect("nothing panics here");
        match answer {
            Ok(Ok(answer)) if answer.status == 202 => {
                let ids = ids(&answer.json());
                if self.rng.random_ratio(1, WATCHED) && submitted.readers.len() < READERS {
                    let reader = Reader::new(&self.gateways, at, &ids[0]).follow();
                    submitted.readers.push((ids[0].clone(), tokio::spawn(reader)));
                }
                submitted.accepted.extend(ids);
            }
            Ok(Ok(answer)) => {
                assert_eq!(answer.status, 503, "{}: {}", answer.what, answer.text());
                submitted.refused += 1;
            }
            Ok(Err(_)) | Err(_) => submitted.open += 1,
        }
    }

    /// A task of some kind, or a canvas.
    fn call(&mut self) -> (&'static str, Value) {
        match self.rng.random_range(0..20) {
            0 => ("/chain", json!({"tasks": [self.task(), self.task()]})),
            1 => ("/chord", json!({"header": [self.task(), self.task(), self.task()], "body": self.task()})),
            // RabbitMQ's classic queues deliver poison for ever, and nobody tells what ended without a word from what waits there.
            3 | 4 if self.broker == Broker::RabbitMq => ("/v1/tasks", self.task()),
            // A task that ends without a record, or is replaced by tasks with other ids.
            3 => ("/v1/tasks", self.odd()),
            4 if self.rng.random_ratio(1, POISON) => ("/v1/tasks", json!({"task": "demo.poison", "queue": "poison"})),
            4 if self.rng.random_ratio(1, CRASHES) => {
                ("/v1/tasks", json!({"task": "demo.crash_loop", "queue": "celery"}))
            }
            2 => {
                let mut task = self.task();
                task["countdown"] = json!(1);
                ("/v1/tasks", task)
            }
            _ => ("/v1/tasks", self.task()),
        }
    }

    fn odd(&mut self) -> Value {
        let names = ["demo.end_ignored", "demo.end_ignored_late", "demo.replace_brief", "demo.end_by_hand"];
        let name = names[self.rng.random_range(0..names.len())];
        // Some replacements run for longer than a task may be missing.
        let seconds = if self.rng.random_bool(0.1) { self.rng.random_range(4.5..7.0) } else { 0.3 };
        let kwargs = if name == "demo.replace_brief" { json!({"seconds": seconds}) } else { json!({}) };
        json!({"task": name, "queue": "celery", "kwargs": kwargs})
    }

    fn task(&mut self) -> Value {
        let names =
            [("demo.work", "celery"), ("demo.work_late", "celery"), ("rs.work", "rust"), ("rs.work_late", "rust")];
        let (name, queue) = names[self.rng.random_range(0..names.len())];
        // Most are quick; some are long enough to run when something is killed.
        let millis =
            if self.rng.random_bool(0.05) { self.rng.random_range(500..3_000) } else { self.rng.random_range(0..30) };
        let seconds = f64::from(millis) / 1_000.0;
        json!({"task": name, "queue": queue, "kwargs": {"seconds": seconds}, "immutable": true})
    }
}

/// The ids of all tasks that an answer names.
fn ids(answer: &Value) -> Vec<String> {
    let children = answer["children"].as_array().cloned().unwrap_or_default();
    let mut ids: Vec<String> =
        children.iter().filter_map(|child| child["task_id"].as_str().map(str::to_owned)).collect();
    let own = answer["task_id"].as_str().expect("an id").to_owned();
    if !ids.contains(&own) {
        ids.push(own);
    }
    ids
}
