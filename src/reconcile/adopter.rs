//! Adopts tasks of others that no event tells of, because their workers send none: from what stands in their queues, from what workers
//! have reserved, and from the result channel.
//!
//! Runs while a worker is online that answers and sends no events, at the replica that records. Everything here is a glance: what
//! passes between two looks is seen by its result, and a task that stores none stays unknown. Channels are shared by all
//! databases of a Redis, so a result counts only when its record stands in ours.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::recorder;
use super::workers::is_online;
use crate::live::hub::Hub;
use broker::Lists;
use broker::backend::{Backend, Heard, Watch};
use celery::Envelope;
use celery::json::Fields;
use celery::result::ResultMeta;
use celery::task::{Phase, Priority, TaskId};
use ledger::{Adoption, News, SharedLedger, Source};
use runtime::clock;

const PERIOD: Duration = Duration::from_secs(2);
/// Messages looked at in one queue, and among those reserved: the next to be served stand first.
const GLANCE: usize = 200;
/// Records heard between two looks. The sender waits while it is full, and Redis drops a subscriber that stays slow.
const RECORDS: usize = 4_096;

/// Looks for tasks of others.
pub struct Adopter {
    ledger: SharedLedger,
    lists: Lists,
    backend: Backend,
    hub: Hub,
    recorder: recorder::Handle,
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
        // Dropping the set ends the subscription.
        let mut records: Option<(mpsc::Receiver<Heard>, JoinSet<()>)> = None;
        while !stop.is_cancelled() {
            let queues = if self.recorder.is_active() { self.mute_queues().await } else { Vec::new() };
            match (&mut records, queues.is_empty()) {
                (None, false) => records = Some(self.listen(&stop)),
                (Some(_), true) => records = None,
                (Some(_), false) | (None, true) => {}
            }
            if let Some((heard, _)) = &mut records
                && let Err(trouble) = self.look(&queues, heard).await
            {
                debug!(error = %trouble, "tasks of workers without events are not looked for");
            }
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PERIOD) => {} }
        }
    }

    /// Queues of workers that are online and have sent no event; empty while every worker sends them.
    async fn mute_queues(&self) -> Vec<String> {
        let now = clock::now();
        let workers = self.ledger.workers().await.unwrap_or_default();
        let mute = workers.into_iter().filter(|worker| is_online(worker, now) && worker.facts.heartbeat_at.is_none());
        let mut queues: Vec<String> = mute.flat_map(|worker| worker.facts.queues).collect();
        queues.sort();
        queues.dedup();
        queues
    }

    fn listen(&self, stop: &CancellationToken) -> (mpsc::Receiver<Heard>, JoinSet<()>) {
        let (sink, heard) = mpsc::channel(RECORDS);
        let mut listening = JoinSet::new();
        listening.spawn(Watch::new(self.backend.clone(), sink).run(stop.clone()));
        (heard, listening)
    }

    async fn look(&self, queues: &[String], heard: &mut mpsc::Receiver<Heard>) -> Result<(), Trouble> {
        let mut met: HashMap<TaskId, News> = HashMap::new();
        for queue in queues {
            for standing in self.lists.contents(queue, 0, GLANCE as i64).await? {
                met.extend(news(&standing.payload, Phase::Queued));
            }
        }
        for message in self.lists.reserved_messages(GLANCE).await? {
            met.extend(news(&message, Phase::Received));
        }
        let mut found: Vec<News> = self.unknown(met).await?;
        found.extend(self.ended(heard).await?);
        if !found.is_empty() {
            self.hub.publish(&self.ledger.learn(&found, true).await?);
        }
        Ok(())
    }

    /// Ends that were heard since the last look, of tasks that nobody knew.
    async fn ended(&self, heard: &mut mpsc::Receiver<Heard>) -> Result<Vec<News>, Trouble> {
        let mut ids = Vec::new();
        while let Ok(one) = heard.try_recv() {
            if let Heard::Record { task_id, .. } = one {
                ids.extend(TaskId::parse(task_id));
            }
        }
        let known = self.ledger.standing(&ids).await?;
        ids.retain(|id| known.iter().all(|task| task.id != *id));
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

/// What a message says of its task.
fn news(message: &[u8], phase: Phase) -> Option<(TaskId, News)> {
    let envelope = Envelope::decode(message).ok()?;
    let headers = Fields::parse(&envelope.headers).ok()?;
    let id = TaskId::parse(headers.text("id")?).ok()?;
    let parsed = |name: &str| headers.text(name).and_then(|id| TaskId::parse(id).ok());
    let queue = envelope.properties.routing_key.to_string();
    let adoption = Adoption {
        name: headers.text("task"),
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
