//! Asks workers for what events leave out about tasks of other clients: their real names (an event may have a replacement, `shadow`),
//! their queues and their priorities.
//!
//! Runs at the active recorder. Asks at most once in [`PAUSE`] and for [`CAPACITY`] tasks at a time, so that a busy fleet is not
//! disturbed: further tasks, and those that ended before their worker was asked, keep the data of their events. The queue of such a
//! task is known anyway if its worker serves only one.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use broker::{Broker, Request};
use celery::json::{self, Fields};
use celery::task::{Phase, Priority, TaskId};
use ledger::{Adoption, News, SharedLedger, Source, Task};
use runtime::clock;

/// Maximum number of tasks in one request.
const CAPACITY: usize = 200;
const PAUSE: Duration = Duration::from_secs(1);
/// How long workers may take to answer; a busy worker does not answer in time.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a task is checked whose worker has not reported its queues.
const TRIES: u8 = 30;

/// Tasks that wait for a second look; of more, the later ones keep what events said.
const MOST: usize = 10_000;

/// The recorder's handle, for tasks that it has just adopted.
pub type Sink = mpsc::Sender<TaskId>;

/// The service that completes the data of adopted tasks.
pub struct Details {
    adopted: mpsc::Receiver<TaskId>,
    ledger: SharedLedger,
    broker: Broker,
}

/// Tasks of workers that have not said yet which queues they serve, with how often that was so. They take turns: those that were
/// looked at go to the end.
#[derive(Debug, Default)]
struct Again(VecDeque<(TaskId, u8)>);

impl Again {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those whose turn it is.
    fn take(&mut self) -> Vec<(TaskId, u8)> {
        self.0.drain(..self.0.len().min(CAPACITY)).collect()
    }

    /// Keeps what is still unclear, up to [`MOST`] and for [`TRIES`] looks.
    fn put(&mut self, unclear: Vec<TaskId>, tried: &HashMap<TaskId, u8>) {
        for id in unclear {
            let tries = tried.get(&id).map_or(1, |tries| tries + 1);
            if tries < TRIES && self.0.len() < MOST {
                self.0.push_back((id, tries));
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

impl Details {
    pub fn new(ledger: SharedLedger, broker: Broker) -> (Self, Sink) {
        let (sink, adopted) = mpsc::channel(CAPACITY);
        (Self { adopted, ledger, broker }, sink)
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut again = Again::default();
        let mut ids = Vec::new();
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                count = self.adopted.recv_many(&mut ids, CAPACITY) => if count == 0 { return },
                () = tokio::time::sleep(PAUSE), if !again.is_empty() => {}
            }
            let tried = again.take();
            ids.extend(tried.iter().map(|(id, _)| id.clone()));
            let unclear = self.complete(&ids).await.unwrap_or_else(|trouble| {
                debug!(error = %trouble, "{} tasks of others keep what their events say for now", ids.len());
                ids.clone()
            });
            again.put(unclear, &tried.into_iter().collect());
            ids.clear();
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(PAUSE) => {} }
        }
    }

    /// Returns the tasks that can be completed later.
    async fn complete(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, Trouble> {
        let tasks = self.ledger.standing(ids).await?;
        let told = self.asked(&tasks).await?;
        let workers = self.ledger.workers().await?;
        let queues: HashMap<&str, &[String]> =
            workers.iter().map(|worker| (worker.hostname.as_str(), worker.facts.queues.as_slice())).collect();
        let (mut news, mut unclear) = (Vec::new(), Vec::new());
        for task in tasks.iter().filter(|task| task.adopted) {
            let served = task.worker.as_deref().and_then(|worker| queues.get(worker)).copied().unwrap_or_default();
            let known = known(told.get(task.id.as_str()).cloned().unwrap_or_default(), served);
            let has_queue = task.queue.is_some() || known.queue.is_some();
            news.push(completion(task, known));
            if !has_queue && served.is_empty() {
                unclear.push(task.id.clone());
            }
        }
        if !news.is_empty() {
            self.ledger.learn(&news, false).await?;
        }
        Ok(unclear)
    }

    /// The workers' answers about the tasks that they have.
    async fn asked(&self, tasks: &[Task]) -> Result<HashMap<String, Told>, Trouble> {
        let unfinished = || tasks.iter().filter(|task| task.adopted && !task.phase.is_final());
        let workers: BTreeSet<String> = unfinished().filter_map(|task| task.worker.clone()).collect();
        if workers.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<&str> = unfinished().map(|task| task.id.as_str()).collect();
        let arguments = serde_json::json!({ "ids": ids }).to_string();
        let request = Request::to_all("query_task", &arguments).to(Some(workers.into_iter().collect()));
        let replies = self.broker.ask(&request, PATIENCE).await?;
        Ok(replies.values().flat_map(|reply| details(reply.get())).collect())
    }
}

/// A worker's answer about a task. In place of the queue it has the routing key.
#[derive(Debug, Clone, Default)]
struct Told {
    exchange: Option<String>,
    adoption: Adoption,
}

/// `{id: [state, {name, type, delivery_info: {routing_key, priority}}]}`
fn details(reply: &str) -> Vec<(String, Told)> {
    let fields = Fields::parse(reply).unwrap_or_default();
    let entry = |(id, value): (&str, &serde_json::value::RawValue)| {
        let info = Fields::parse(json::elements(value)?.get(1)?.get()).ok()?;
        let delivery = info.get("delivery_info").and_then(|delivery| Fields::parse(delivery.get()).ok());
        let delivery = delivery.unwrap_or_default();
        let adoption = Adoption {
            name: info.text("type"),
            shadow: info.text("name"),
            queue: delivery.text("routing_key"),
            priority: delivery.number("priority").map(|priority| Priority::clamped(priority as i64)),
            ..Adoption::default()
        };
        Some((id.to_owned(), Told { exchange: delivery.text("exchange"), adoption }))
    };
    fields.iter().filter_map(entry).collect()
}

/// The queue of a routing key: the queue of that name, with the default exchange or if the worker serves one; else the worker's only
/// queue.
fn known(told: Told, served: &[String]) -> Adoption {
    let only = || served.first().filter(|_| served.len() == 1).cloned();
    let is_direct = told.exchange.as_deref() == Some("");
    let queue = told.adoption.queue.filter(|queue| is_direct || served.contains(queue)).or_else(only);
    Adoption { queue, ..told.adoption }
}

/// News that completes the task without a change of state: an adopted task had been queued before.
fn completion(task: &Task, adoption: Adoption) -> News {
    let news = News::new(task.id.clone(), Source::Ledger, Phase::Queued, clock::now());
    News { adoption: Some(adoption), if_seq: Some(task.seq), ..news }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = r#"{"a": ["active", {"id": "a", "name": "nick", "type": "app.send", "delivery_info":
        {"exchange": "", "routing_key": "mail", "priority": 6, "redelivered": false}}], "b": ["ready", {}]}"#;

    #[test]
    fn tasks_that_are_unclear_take_turns_and_none_is_forgotten() {
        let ids: Vec<TaskId> = (0..450).map(|n| TaskId::parse(format!("t{n}")).unwrap()).collect();
        let mut again = Again::default();
        again.put(ids, &HashMap::new());
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let turn = again.take();
            assert!(turn.len() <= CAPACITY);
            seen.extend(turn.iter().map(|(id, _)| id.to_string()));
            again.put(turn.iter().map(|(id, _)| id.clone()).collect(), &turn.into_iter().collect());
        }
        assert_eq!((seen.len(), again.0.len()), (450, 450));
        for _ in 0..3 * usize::from(TRIES) {
            let turn = again.take();
            again.put(turn.iter().map(|(id, _)| id.clone()).collect(), &turn.into_iter().collect());
        }
        assert!(again.is_empty(), "nobody waits for ever");
        again.put((0..MOST + 5).map(|n| TaskId::parse(format!("u{n}")).unwrap()).collect(), &HashMap::new());
        assert_eq!(again.0.len(), MOST);
    }

    #[test]
    fn a_worker_says_the_own_name_the_queue_and_the_priority() {
        let told: HashMap<String, Told> = details(REPLY).into_iter().collect();
        let a = &told["a"].adoption;
        assert_eq!((a.name.as_deref(), a.shadow.as_deref()), (Some("app.send"), Some("nick")));
        assert_eq!((a.queue.as_deref(), a.priority.map(Priority::get)), (Some("mail"), Some(6)));
        assert!(told["b"].adoption.name.is_none());
        assert!(details(r#"{"error": "KeyError"}"#).is_empty());
        assert!(details("nonsense").is_empty());
    }

    #[test]
    fn a_routing_key_is_no_queue_that_nobody_serves() {
        let told = |exchange: &str, key: &str| Told {
            exchange: Some(exchange.to_owned()),
            adoption: Adoption { queue: Some(key.to_owned()), ..Adoption::default() },
        };
        let two = ["mail".to_owned(), "celery".to_owned()];
        assert_eq!(known(told("news", "mail"), &two).queue.as_deref(), Some("mail"));
        assert_eq!(known(told("news", "news.#"), &two).queue, None);
        assert_eq!(known(told("", "mail"), &[]).queue.as_deref(), Some("mail"));
        assert_eq!(known(told("news", "news.#"), &two[1..]).queue.as_deref(), Some("celery"));
        assert_eq!(known(Told::default(), &[]).queue, None);
    }
}
