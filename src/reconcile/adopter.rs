//! Adopts tasks of other clients whose workers send no events: finds them in their queues, among reserved messages, and on the result
//! channel.
//!
//! Runs at the active recorder, while an online worker answers questions but sends no events. Everything here is sampling: a task that
//! comes and goes between two samples is seen only by its result, and a task that stores no result stays unknown. The recorder remembers
//! the results that were announced before such a worker was recognized. Channels are shared by all databases of a Redis, so a result
//! counts only if its record is in our database.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::recorder;
use super::workers::is_online;
use crate::live::hub::Hub;
use broker::Lists;
use broker::backend::Backend;
use celery::Envelope;
use celery::json::Fields;
use celery::result::ResultMeta;
use celery::task::{Phase, Priority, TaskId};
use ledger::{Adoption, News, SharedLedger, Source};
use runtime::clock;

const PERIOD: Duration = Duration::from_secs(2);
/// How many messages to read from one queue, and from the reserved ones: those that are served next come first.
const GLANCE: usize = 200;
/// How long to go on after the last worker without events was seen.
const KEEP: Duration = Duration::from_secs(60);
/// Ended tasks that are looked up together.
const RECORDS: usize = 1_000;

/// The service that looks for tasks of other clients.
pub struct Adopter {
    ledger: SharedLedger,
    lists: Lists,
    backend: Backend,
    hub: Hub,
    recorder: recorder::Handle,
}

/// What was seen of workers without events.
#[derive(Default)]
struct Seen {
    /// The queues that they serve.
    queues: Vec<String>,
    at: Option<Instant>,
    /// Tasks whose results were announced and that were not looked up yet.
    ended: Vec<TaskId>,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Redis(#[from] broker::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

impl Adopter {
    pub fn new(ledger: SharedLedger, lists: Lists, backend: Backend, hub: Hub, recorder: recorder::Handle) -> Self {
        Self { ledger, lists, backend, hub, recorder }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut seen = Seen::default();
        while !stop.is_cancelled() {
            if self.recorder.is_active()
                && let Err(trouble) = self.look(&mut seen).await
            {
                debug!(error = %trouble, "tasks of workers without events could not be read, trying again");
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PERIOD) => {} }
        }
    }

    async fn look(&self, seen: &mut Seen) -> Result<(), Trouble> {
        let queues = self.mute_queues().await?;
        if !queues.is_empty() {
            (seen.queues, seen.at) = (queues, Some(Instant::now()));
        }
        // A worker or the ledger may be late for a moment, and a worker that has stopped may have left results.
        if seen.at.is_none_or(|at| at.elapsed() > KEEP) {
            return Ok(());
        }
        if seen.ended.is_empty() {
            seen.ended = self.recorder.ended.take();
        }
        self.sample(&seen.queues, &mut seen.ended).await
    }

    /// Queues of online workers that have sent no event; empty if all workers send events.
    async fn mute_queues(&self) -> Result<Vec<String>, ledger::Error> {
        let now = clock::now();
        let workers = self.ledger.workers().await?.into_iter();
        let mute = workers.filter(|worker| is_online(worker, now) && worker.facts.heartbeat_at.is_none());
        let mut queues: Vec<String> = mute.flat_map(|worker| worker.facts.queues).collect();
        queues.sort();
        queues.dedup();
        Ok(queues)
    }

    /// Takes one sample. What is written is removed from `ended`.
    async fn sample(&self, queues: &[String], ended: &mut Vec<TaskId>) -> Result<(), Trouble> {
        let mut met: HashMap<TaskId, News> = HashMap::new();
        for queue in queues {
            match self.lists.contents(queue, 0, GLANCE as i64).await {
                Ok(standing) => met.extend(standing.iter().filter_map(|message| news(&message.payload, Phase::Queued))),
                // This key cannot be read, which is reported as an incident; go on with the other queues.
                Err(error) if error.is_refusal() => {}
                Err(error) => return Err(error.into()),
            }
        }
        for message in self.lists.reserved_messages(GLANCE).await? {
            met.extend(news(&message, Phase::Received));
        }
        self.learn(self.unknown(met).await?).await?;
        while !ended.is_empty() {
            let some = ended.len().min(RECORDS);
            self.learn(self.ends(&ended[..some]).await?).await?;
            ended.drain(..some);
        }
        Ok(())
    }

    /// Writes news together. News that the ledger refuses is searched for by halves and left out, so that it does not hold the rest.
    async fn learn(&self, found: Vec<News>) -> Result<(), Trouble> {
        let mut parts = vec![found];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.ledger.learn(&part, true).await {
                Ok(events) => self.hub.publish(&events),
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) if part.len() == 1 => {
                    warn!(task.id = %part[0].task_id, %error, "task {} cannot be adopted", part[0].task_id);
                }
                Err(_) => {
                    let half = part.split_off(part.len() / 2);
                    parts.extend([half, part]);
                }
            }
        }
        Ok(())
    }

    /// Ends of unknown tasks.
    async fn ends(&self, ended: &[TaskId]) -> Result<Vec<News>, Trouble> {
        let known: HashSet<TaskId> = self.ledger.standing(ended).await?.into_iter().map(|task| task.id).collect();
        let ids: HashSet<&TaskId> = ended.iter().filter(|id| !known.contains(*id)).collect();
        let ids: Vec<TaskId> = ids.into_iter().cloned().collect();
        let records = self.backend.records(&ids).await?;
        let end = |(id, record): (TaskId, Option<Vec<u8>>)| {
            let record = record?;
            let told = ResultMeta::decode(&record).ok()?.extended;
            let adoption = told.map_or_else(Adoption::default, |told| Adoption {
                name: told.name,
                queue: told.queue,
                ..Adoption::default()
            });
            Some(News { adoption: Some(adoption), ..recorder::end_of(id, &record)? })
        };
        Ok(ids.into_iter().zip(records).filter_map(end).collect())
    }

    async fn unknown(&self, mut met: HashMap<TaskId, News>) -> Result<Vec<News>, Trouble> {
        let ids: Vec<TaskId> = met.keys().cloned().collect();
        for task in self.ledger.standing(&ids).await? {
            met.remove(&task.id);
        }
        Ok(met.into_values().collect())
    }
}

/// Reads the task's id and state from a message.
fn news(message: &[u8], phase: Phase) -> Option<(TaskId, News)> {
    let envelope = Envelope::decode(message).ok()?;
    let headers = Fields::parse(&envelope.headers).ok()?;
    let id = TaskId::parse(headers.text("id")?).ok()?;
    let parsed = |name: &str| headers.text(name).and_then(|id| TaskId::parse(id).ok());
    let queue = envelope.properties.routing_key.to_string();
    let adoption = Adoption {
        name: headers.text("task"),
        shadow: headers.text("shadow"),
        queue: Some(queue).filter(|queue| !queue.is_empty()),
        priority: Some(Priority::clamped(envelope.properties.priority.into())),
        root_id: parsed("root_id"),
        parent_id: parsed("parent_id"),
        group_id: headers.text("group").and_then(|id| celery::task::GroupId::parse(id).ok()),
        argsrepr: headers.text("argsrepr"),
        kwargsrepr: headers.text("kwargsrepr"),
    };
    let news = News::new(id.clone(), Source::Ledger, phase, clock::now());
    Some((id, News { adoption: Some(adoption), ..news }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_its_name_its_queue_and_its_priority() {
        let message =
            br#"{"body": "W10=", "headers": {"id": "t1", "task": "app.send", "shadow": "other", "root_id": "r"},
            "properties": {"priority": 6, "delivery_info": {"exchange": "", "routing_key": "mail"}}}"#;
        let (id, news) = news(message, Phase::Queued).unwrap();
        let adoption = news.adoption.unwrap();
        assert_eq!(
            (id.as_str(), adoption.name.as_deref(), adoption.queue.as_deref()),
            ("t1", Some("app.send"), Some("mail"))
        );
        assert_eq!(adoption.priority.map(Priority::get), Some(6));
        assert!(super::news(b"nonsense", Phase::Queued).is_none());
    }
}
