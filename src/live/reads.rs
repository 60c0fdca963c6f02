//! Reads single tasks by id. Concurrent callers share queries, and finished tasks are cached for a moment.
//!
//! There is no timer: a query fetches whatever was requested while the previous queries ran. A lone reader never waits.
//! An unfinished task is read again by every query. A finished task does not change, except when it is pruned or when a second run of
//! it is recorded; an answer may miss that for up to [`FRESH`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use celery::task::{Phase, TaskId};
use ledger::{Error, SharedLedger, Task};

/// How long a finished task is answered from the cache.
const FRESH: Duration = Duration::from_secs(1);
/// Memory for the cache, and the largest record it keeps: a larger one would evict hundreds of others.
const CACHE_BYTES: u64 = 32 << 20;
const LARGEST: usize = 256 << 10;
/// Rough size of a task's names and ids.
const SMALL_TEXTS: usize = 256;
/// Expected number of cached tasks, which sizes the table.
const CACHE_TASKS: usize = 8_192;
/// Reads that may wait for a query: more than the connections of one replica usually send at once. Further callers wait for room.
const CAPACITY: usize = 4_096;
/// Tasks in one query, and concurrent queries: with two, the database works on one while the answers of the other are passed on.
const BATCH: usize = 256;
const QUERIES: usize = 2;

type Answer = Result<Option<Arc<Task>>, Error>;

struct Request {
    id: TaskId,
    reply: oneshot::Sender<Answer>,
}

#[derive(Clone)]
struct Ended {
    task: Arc<Task>,
    until: Instant,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<TaskId, Ended> for Bytes {
    fn weight(&self, _: &TaskId, ended: &Ended) -> u64 {
        size(&ended.task) as u64
    }
}

type Memory = Arc<Cache<TaskId, Ended, Bytes>>;

/// The caller's handle. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    memory: Memory,
    ledger: SharedLedger,
}

impl Handle {
    /// The task as the ledger has it.
    ///
    /// # Errors
    /// As [`Ledger::task`](ledger::Ledger::task).
    ///
    /// # Cancel safety
    /// Dropping the call only loses the answer.
    pub async fn task(&self, id: &TaskId) -> Answer {
        if let Some(ended) = self.memory.get(id).filter(|ended| ended.until > Instant::now()) {
            return Ok(Some(ended.task));
        }
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request { id: id.clone(), reply }).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        // The reader has stopped, so this read fails like a lost connection.
        Ok(self.ledger.task(id).await?.map(Arc::new))
    }
}

/// Fetches many tasks with one query.
pub struct Reader {
    requests: mpsc::Receiver<Request>,
    memory: Memory,
    ledger: SharedLedger,
}

impl Reader {
    pub fn new(ledger: SharedLedger) -> (Self, Handle) {
        let (sender, requests) = mpsc::channel(CAPACITY);
        let memory = Arc::new(Cache::with_weighter(CACHE_TASKS, CACHE_BYTES, Bytes));
        let handle = Handle { requests: sender, memory: Arc::clone(&memory), ledger: ledger.clone() };
        (Self { requests, memory, ledger }, handle)
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut waiting = Vec::new();
        let mut queries = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = queries.join_next() => {}
                count = self.requests.recv_many(&mut waiting, BATCH), if queries.len() < QUERIES => {
                    if count == 0 {
                        break;
                    }
                    let batch = std::mem::take(&mut waiting);
                    queries.spawn(answer(batch, self.ledger.clone(), Arc::clone(&self.memory)));
                }
            }
        }
        while queries.join_next().await.is_some() {}
    }
}

async fn answer(batch: Vec<Request>, ledger: SharedLedger, memory: Memory) {
    let mut wanted: HashMap<TaskId, Vec<oneshot::Sender<Answer>>> = HashMap::with_capacity(batch.len());
    for Request { id, reply } in batch {
        wanted.entry(id).or_default().push(reply);
    }
    if wanted.len() > 1 {
        let ids: Vec<TaskId> = wanted.keys().cloned().collect();
        if let Ok(found) = ledger.tasks_by_id(&ids).await {
            for task in found.into_iter().map(Arc::new) {
                remember(&memory, &task);
                for reply in wanted.remove(&task.id).unwrap_or_default() {
                    let _ = reply.send(Ok(Some(Arc::clone(&task))));
                }
            }
            for reply in wanted.into_values().flatten() {
                let _ = reply.send(Ok(None));
            }
            return;
        }
        // It is unknown which id caused the failure, so each caller gets a copy of the error.
    }
    for (id, replies) in wanted {
        answer_alone(&id, replies, &ledger, &memory).await;
    }
}

async fn answer_alone(id: &TaskId, replies: Vec<oneshot::Sender<Answer>>, ledger: &SharedLedger, memory: &Memory) {
    let found = ledger.task(id).await.map(|task| task.map(Arc::new)).map_err(Arc::new);
    if let Ok(Some(task)) = &found {
        remember(memory, task);
    }
    for reply in replies {
        let _ = reply.send(found.clone().map_err(shared));
    }
}

/// A copy of the error for each of several callers.
fn shared(error: Arc<Error>) -> Error {
    if error.is_transient() { Error::Unavailable(Box::new(error)) } else { Error::Refused(Box::new(error)) }
}

/// `lost` may be corrected when the result turns up after all, so it is never cached.
fn remember(memory: &Memory, task: &Arc<Task>) {
    if matches!(task.phase, Phase::Succeeded | Phase::Failed) && size(task) <= LARGEST {
        memory.insert(task.id.clone(), Ended { task: Arc::clone(task), until: Instant::now() + FRESH });
    }
}

fn size(task: &Task) -> usize {
    let values = [&task.result, &task.progress, &task.children];
    let values: usize = values.iter().filter_map(|value| value.as_ref()).map(|value| value.get().len()).sum();
    let failure = task.failure.as_ref().map_or(0, |failure| failure.kind.len() + failure.message.len());
    size_of::<Task>() + SMALL_TEXTS + values + failure + task.traceback.as_ref().map_or(0, String::len)
}
