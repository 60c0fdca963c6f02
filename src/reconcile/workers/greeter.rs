//! Asks workers about themselves, and tells workers that came online what they missed: revokes, pauses, and to send task events.
//! All of this may be repeated without harm.

use std::collections::BTreeMap;

use tracing::debug;

use super::{PATIENCE, REVOKES, queue_names};
use broker::{Broker, Replies, Request};
use celery::commands;
use ledger::SharedLedger;

/// Which workers to ask what.
pub struct Whom {
    /// Workers that came online.
    pub strangers: Vec<String>,
    /// Workers to ask for their registered tasks.
    pub untold: Vec<String>,
    /// Workers to ask for task events.
    pub mute: Vec<String>,
    /// Whether to ask all workers for their state.
    pub everybody: bool,
}

/// The answers of workers.
pub struct Heard {
    pub stats: Replies,
    pub queues: Replies,
    pub registered: Replies,
    /// Replies of the workers that were asked for task events.
    pub events: Replies,
    /// The workers that were greeted.
    pub greeted: Vec<String>,
}

/// Talks to workers while the registry listens.
pub struct Greeter {
    pub ledger: SharedLedger,
    pub broker: Broker,
}

impl Greeter {
    /// Asks and greets workers. `None` when they could not be asked.
    pub async fn greet(self, whom: Whom) -> Option<Heard> {
        let Whom { strangers, untold, mute, everybody } = whom;
        let to = if everybody { None } else { Some(strangers.clone()) };
        let ask = |method: &str| Request::to_all(method, "{}").to(to.clone());
        let (stats, queues) = (ask("stats"), ask("active_queues"));
        let registered = Request::to_all("registered", "{}").to(Some(untold.clone()));
        let (stats, queues, registered) =
            tokio::join!(self.broker.ask(&stats, PATIENCE), self.broker.ask(&queues, PATIENCE), async {
                if untold.is_empty() { Ok(Replies::default()) } else { self.broker.ask(&registered, PATIENCE).await }
            },);
        let (stats, queues, registered) = (stats.ok()?, queues.ok()?, registered.ok()?);
        let answered: Vec<String> = strangers.into_iter().filter(|name| stats.contains_key(name)).collect();
        let asked: Vec<String> = mute.into_iter().filter(|name| stats.contains_key(name)).collect();
        let events = self.ask_for_events(asked).await;
        let mut greeted = Vec::new();
        if !answered.is_empty() && self.welcome(&answered, &queues).await {
            greeted = answered;
        }
        Some(Heard { stats, queues, registered, events, greeted })
    }

    /// Asks these workers for task events. One that was started without events answers that it cannot send them.
    async fn ask_for_events(&self, names: Vec<String>) -> Replies {
        if names.is_empty() {
            return Replies::default();
        }
        let request = Request::to_all("enable_events", "{}").to(Some(names));
        self.broker.ask(&request, PATIENCE).await.unwrap_or_default()
    }

    /// Tells workers that came online what they missed. May be repeated without harm.
    async fn welcome(&self, names: &[String], queues: &Replies) -> bool {
        let told = async {
            self.tell_revokes(names).await?;
            self.tell_pauses(names, queues).await
        };
        told.await.inspect_err(|error| debug!(error, "workers could not be greeted, trying again")).is_ok()
    }

    async fn tell_revokes(&self, names: &[String]) -> Result<(), String> {
        let open = self.ledger.open_revocations(REVOKES).await.map_err(|error| error.to_string())?;
        let mut kinds: BTreeMap<(bool, &str), Vec<&str>> = BTreeMap::new();
        for revocation in &open {
            kinds.entry((revocation.terminate, &revocation.signal)).or_default().push(revocation.task_id.as_str());
        }
        for ((terminate, signal), ids) in kinds {
            let arguments = commands::revoke_arguments(&ids, terminate, signal);
            let request = Request::to_all("revoke", &arguments).to(Some(names.to_vec()));
            self.broker.tell(&request).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn tell_pauses(&self, names: &[String], queues: &Replies) -> Result<(), String> {
        let paused = self.ledger.paused_queues().await.map_err(|error| error.to_string())?;
        for (queue, _) in paused {
            let serves = |name: &&String| queues.get(*name).is_some_and(|reply| queue_names(reply).contains(&queue));
            let consumers: Vec<String> = names.iter().filter(serves).cloned().collect();
            if consumers.is_empty() {
                continue;
            }
            self.ledger.note_paused_consumers(&queue, &consumers).await.map_err(|error| error.to_string())?;
            let arguments = serde_json::json!({"queue": queue}).to_string();
            let request = Request::to_all("cancel_consumer", &arguments).to(Some(consumers));
            self.broker.tell(&request).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
