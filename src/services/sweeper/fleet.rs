//! Who is alive and who has what: asked of the workers themselves, and read from their heartbeats.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Trouble;
use super::verdict::Owner;
use crate::broker::{Broker, Request};
use crate::clock::{self, Time};
use crate::services::workers::is_online;
use crate::store::{SharedLedger, Task, Worker};
use crate::task::json::{self, Fields};

/// How long workers may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Ids in one question.
const CHUNK: usize = 200;

/// A task in a worker's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub worker: String,
    /// It runs and its message is not acknowledged yet.
    pub runs_unacknowledged: bool,
}

/// What the fleet said.
#[derive(Debug)]
pub struct Fleet {
    workers: HashMap<String, Worker>,
    answered: HashSet<String>,
    pub held: HashMap<String, Held>,
    now: Time,
}

impl Fleet {
    /// Reads the registry and asks every worker which of these tasks it has.
    pub async fn ask(ledger: &SharedLedger, broker: &Broker, ids: &[&str]) -> Result<Self, Trouble> {
        let mut fleet = Self::read(ledger).await?;
        let mut chunks = ids.chunks(CHUNK);
        let first = chunks.next().unwrap_or_default();
        fleet.answered = fleet.ask_chunk(broker, first).await?;
        for chunk in chunks {
            let answered = fleet.ask_chunk(broker, chunk).await?;
            // Whoever did not answer every question has not answered.
            fleet.answered.retain(|name| answered.contains(name));
        }
        Ok(fleet)
    }

    /// Reads the registry, asks nobody.
    pub async fn read(ledger: &SharedLedger) -> Result<Self, Trouble> {
        let workers = ledger.workers().await?.into_iter().map(|worker| (worker.hostname.clone(), worker)).collect();
        Ok(Self { workers, answered: HashSet::new(), held: HashMap::new(), now: clock::now() })
    }

    async fn ask_chunk(&mut self, broker: &Broker, ids: &[&str]) -> Result<HashSet<String>, Trouble> {
        let arguments = serde_json::json!({"ids": ids}).to_string();
        let replies = broker.ask(&Request::to_all("query_task", &arguments), PATIENCE).await?;
        let mut answered = HashSet::new();
        for (worker, reply) in replies {
            let Some(held) = held(reply.get()) else { continue };
            self.held.extend(
                held.into_iter()
                    .map(|(id, runs_unacknowledged)| (id, Held { worker: worker.clone(), runs_unacknowledged })),
            );
            answered.insert(worker);
        }
        Ok(answered)
    }

    /// Whether every worker that may be alive answered.
    pub fn all_answered(&self, patience: &Patience) -> bool {
        self.workers.values().all(|worker| self.answered.contains(&worker.hostname) || self.is_dead(worker, patience))
    }

    /// Whether the worker sends heartbeats in time.
    pub fn is_fresh(&self, name: &str) -> bool {
        self.workers.get(name).is_some_and(|worker| is_online(worker, self.now))
    }

    /// What is to be thought of the worker that the ledger names for a task.
    pub fn owner(&self, task: &Task, patience: &Patience) -> Owner {
        let Some(name) = task.worker.as_deref() else {
            // Heard of by its record only: nobody can be asked.
            return if self.all_answered(patience) { Owner::Denies } else { Owner::Unclear };
        };
        if self.answered.contains(name) {
            return Owner::Denies;
        }
        match self.workers.get(name) {
            Some(worker) if !self.is_dead(worker, patience) => Owner::Unclear,
            Some(_) => Owner::Dead,
            // Nothing was ever heard of it but this task: as long as a silent worker is given, it is given.
            None => {
                let last = task.started_at.max(task.received_at).unwrap_or(task.submitted_at);
                if self.now.since(last) > patience.busy { Owner::Dead } else { Owner::Unclear }
            }
        }
    }

    /// A busy worker with a solo pool says nothing until its task ends, so the visibility timeout decides; the same for one
    /// whose pool is not known.
    fn is_dead(&self, worker: &Worker, patience: &Patience) -> bool {
        let talks = worker.facts.pool.as_deref().is_some_and(|pool| pool != "solo");
        let silent = self.now.since(worker.seen_at);
        let said_goodbye = worker.offline_at.is_some();
        let allowed = if talks || said_goodbye { patience.lost } else { patience.lost.max(patience.busy) };
        silent > allowed
    }
}

/// How long silence means nothing.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Of a worker that talks while it works.
    pub lost: Duration,
    /// Of one that does not.
    pub busy: Duration,
}

/// `{id: [state, info]}`; `None` when it is no such answer.
fn held(reply: &str) -> Option<Vec<(String, bool)>> {
    let fields = Fields::parse(reply).ok()?;
    if fields.get("error").is_some() {
        return None;
    }
    let entry = |(id, value): (&str, &serde_json::value::RawValue)| {
        let parts = json::elements(value)?;
        let state = json::text(parts.first()?)?;
        let info = parts.get(1).and_then(|info| Fields::parse(info.get()).ok());
        let acknowledged = info.and_then(|info| info.boolean("acknowledged")).unwrap_or(true);
        (state != "ready").then(|| (id.to_owned(), state == "active" && !acknowledged))
    };
    Some(fields.iter().filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_what_a_worker_has_and_whether_it_acknowledges_late() {
        let reply = r#"{"a": ["active", {"acknowledged": false}], "b": ["reserved", {"acknowledged": false}], "c": ["active", {"acknowledged": true}], "d": ["ready", {}]}"#;
        let mut found = held(reply).unwrap();
        found.sort();
        assert_eq!(found, [("a".into(), true), ("b".into(), false), ("c".into(), false)]);
        assert_eq!(held(r#"{"error": "KeyError('query_task')"}"#), None);
        assert_eq!(held("{}"), Some(vec![]));
    }
}
