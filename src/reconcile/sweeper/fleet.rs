//! Who is alive and who has what: asked of the workers themselves, and read from their heartbeats.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Trouble;
use super::decision::Taker;
use crate::reconcile::process::{self, Sameness, serves};
use crate::reconcile::workers::is_online;
use broker::{Lists, Replies, Request};
use celery::task::json::{self, Fields};
use ledger::change::is_unheard;
use ledger::{SharedLedger, Task, Worker};
use runtime::clock::{self, Time};

/// How long workers may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Ids in one question.
const CHUNK: usize = 500;
/// A worker that is not gone is heard within this time, at Celery's usual two seconds between heartbeats.
const HEARTBEATS: Duration = Duration::from_secs(3);
/// Why a worker that answers tells nothing.
const FLAGS: &str = "it was started with --without-heartbeat, --without-gossip and --without-mingle";
/// Questions on their way at a time: a worker that is too busy to answer costs each of them its whole patience.
const QUESTIONS: usize = 4;

/// A task in a worker's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub worker: String,
    /// It runs and its message is not acknowledged yet.
    pub runs_unacknowledged: bool,
    /// Its message was delivered before.
    pub redelivered: bool,
    /// When it started, by the worker's clock.
    pub started_at: Option<Time>,
}

/// What the fleet said.
#[derive(Debug)]
pub struct Fleet {
    workers: HashMap<String, Worker>,
    answered: HashSet<String>,
    pub held: HashMap<String, Held>,
    /// Names of tasks that some worker runs at a limited rate.
    limited: HashSet<String>,
    now: Time,
}

impl Fleet {
    /// Reads the registry and asks every worker which of these tasks it has.
    pub async fn ask(ledger: &SharedLedger, broker: &Lists, ids: &[&str]) -> Result<Self, Trouble> {
        let mut fleet = Self::read(ledger).await?;
        let chunks: Vec<&[&str]> = if ids.is_empty() { vec![&[]] } else { ids.chunks(CHUNK).collect() };
        let mut first = true;
        for some in chunks.chunks(QUESTIONS) {
            let asked = some.iter().map(|chunk| ask_chunk(broker, chunk));
            for replies in futures_util::future::try_join_all(asked).await? {
                let answered = fleet.take(replies);
                // Whoever did not answer every question has not answered.
                if first {
                    fleet.answered = answered;
                } else {
                    fleet.answered.retain(|name| answered.contains(name));
                }
                first = false;
            }
        }
        Ok(fleet)
    }

    /// Reads the registry, asks nobody.
    pub async fn read(ledger: &SharedLedger) -> Result<Self, Trouble> {
        let workers = ledger.workers().await?.into_iter().map(|worker| (worker.hostname.clone(), worker)).collect();
        Ok(Self { workers, answered: HashSet::new(), held: HashMap::new(), limited: HashSet::new(), now: clock::now() })
    }

    /// What `query_task` does not tell: messages with an ETA (before Celery 5.7), and names of tasks whose messages a worker may
    /// keep back for a rate limit, where nothing shows them.
    pub async fn ask_for_unseen(&mut self, broker: &Lists) -> Result<(), Trouble> {
        let scheduled = Request::to_all("scheduled", "{}");
        let registered = Request::to_all("registered", r#"{"taskinfoitems": ["rate_limit"]}"#);
        let (scheduled, registered) =
            tokio::try_join!(broker.ask(&scheduled, PATIENCE), broker.ask(&registered, PATIENCE))?;
        for (worker, reply) in scheduled {
            for id in scheduled_ids(reply.get()) {
                self.held.entry(id).or_insert_with(|| Held::reserved(&worker));
            }
        }
        self.limited.extend(registered.values().flat_map(|reply| limited_names(reply.get())));
        Ok(())
    }

    /// Whether a worker may keep it back for a rate limit: its name has one, and whoever took it then is still there.
    pub fn may_hold_unseen(&self, task: &Task, since: Time, patience: &Patience) -> bool {
        let left = |worker: &Worker| {
            process::since(worker, since) == Sameness::Replaced
                || worker.offline_at.is_some_and(|at| at >= since)
                || self.is_dead(worker, patience)
        };
        let is_limited = task.name.as_ref().is_some_and(|name| self.limited.contains(name));
        is_limited && !self.workers.values().any(left)
    }

    fn take(&mut self, replies: Replies) -> HashSet<String> {
        let mut answered = HashSet::new();
        for (worker, reply) in replies {
            let Some(held) = held(&worker, reply.get()) else { continue };
            self.held.extend(held);
            answered.insert(worker);
        }
        answered
    }

    /// Whether every worker that may be alive, and answers at all, answered.
    pub fn all_answered(&self, patience: &Patience) -> bool {
        self.workers.values().all(|worker| self.has_answered(worker, patience))
    }

    /// Whether a worker that may be alive did not answer, or never does.
    pub fn is_anybody_silent(&self, patience: &Patience) -> bool {
        let mut others = self.workers.values().filter(|worker| !self.answered.contains(&worker.hostname));
        others.any(|worker| !self.is_dead(worker, patience))
    }

    /// The same of those that may have the task: they serve its queue, or nobody knows what they serve.
    pub fn answered_for(&self, task: &Task, patience: &Patience) -> bool {
        let mut may_have_it = self.workers.values().filter(|worker| serves(worker, task));
        may_have_it.all(|worker| self.has_answered(worker, patience))
    }

    /// One that never answers has its remote control switched off: its silence says nothing, and cannot be waited for.
    fn has_answered(&self, worker: &Worker, patience: &Patience) -> bool {
        self.answered.contains(&worker.hostname) || self.is_dead(worker, patience) || worker.facts.deaf
    }

    /// Whether a worker says that it has the task, or may have it: the one that took it lives, and neither answered nor runs nothing.
    pub fn may_have(&self, task: &Task, patience: &Patience) -> bool {
        if self.held.contains_key(task.id.as_str()) {
            return true;
        }
        let owner = task.worker.as_deref().and_then(|name| self.workers.get(name));
        owner.is_some_and(|owner| {
            let is_there = !self.is_dead(owner, patience) && owner.offline_at.is_none();
            let said_no = self.answered.contains(&owner.hostname) && !process::is_shared(&owner.facts);
            is_there && !said_no && !self.is_idle(owner) && self.sameness(owner, task) != Sameness::Replaced
        })
    }

    /// Its worker's name, and whether that one tells of its tasks.
    pub fn named(&self, task: &Task) -> String {
        let Some(name) = task.worker.as_deref() else { return "a worker of its queue".to_owned() };
        match self.workers.get(name).and_then(|worker| worker.facts.tells) {
            Some(false) => format!("{name} (which sends no events: {FLAGS})"),
            Some(true) | None => name.to_owned(),
        }
    }

    /// Whether its worker says that it runs nothing.
    pub fn is_idle_owner(&self, task: &Task) -> bool {
        task.worker.as_deref().and_then(|name| self.workers.get(name)).is_some_and(|owner| self.is_idle(owner))
    }

    fn is_idle(&self, worker: &Worker) -> bool {
        worker.facts.active == Some(0) && is_online(worker, self.now) && !process::is_shared(&worker.facts)
    }

    fn sameness(&self, worker: &Worker, task: &Task) -> Sameness {
        last_heard(task).map_or(Sameness::Same, |at| process::since(worker, at))
    }

    /// What is known of the process that was heard to have the task.
    pub fn taker(&self, task: &Task, patience: &Patience) -> Taker {
        let Some(name) = task.worker.as_deref() else { return self.unnamed_taker(task, patience) };
        let Some(worker) = self.workers.get(name) else {
            // Nothing was ever heard of it but this task: as long as a silent worker is given, it is given.
            let last = last_heard(task).unwrap_or(task.submitted_at);
            return if self.now.since(last) > patience.busy { Taker::Died } else { Taker::Unknown };
        };
        match self.sameness(worker, task) {
            Sameness::Replaced => Taker::Died,
            Sameness::Unknown => Taker::Unknown,
            Sameness::Same if self.is_dead(worker, patience) => Taker::Died,
            Sameness::Same if worker.offline_at.is_some() => Taker::Unknown,
            Sameness::Same => Taker::Lives,
        }
    }

    /// It was heard of by its record only, or its message is reserved by somebody: all who may have taken it come into question.
    fn unnamed_taker(&self, task: &Task, patience: &Patience) -> Taker {
        let Some(at) = last_heard(task) else { return Taker::Unknown };
        let was_there = |worker: &&Worker| serves(worker, task) && at <= worker.seen_at.plus(HEARTBEATS * 2);
        let died = |worker: &Worker| process::since(worker, at) == Sameness::Replaced || self.is_dead(worker, patience);
        let mut candidates = self.workers.values().filter(was_there).peekable();
        if candidates.peek().is_none() {
            return if self.now.since(at) > patience.busy { Taker::Died } else { Taker::Unknown };
        }
        let (dead, alive): (Vec<&Worker>, Vec<&Worker>) = candidates.partition(|worker| died(worker));
        match (dead.is_empty(), alive.is_empty()) {
            (true, _) => Taker::Lives,
            (false, true) => Taker::Died,
            (false, false) => Taker::Unknown,
        }
    }

    /// What is known of all that may have taken a message that came into its queue at that time, and that nobody was heard to take:
    /// only the death, or the lost connection, of one that tells of its tasks explains that it is gone; and not where another one
    /// keeps silent.
    pub fn takers(&self, task: &Task, since: Time, patience: &Patience) -> Taker {
        let was_there = |worker: &&Worker| serves(worker, task) && since <= worker.seen_at.plus(HEARTBEATS * 2);
        let candidates: Vec<&Worker> = self.workers.values().filter(was_there).collect();
        if !self.silent_takers(task, since).is_empty() {
            return Taker::Unknown;
        }
        let gone = |worker: &&Worker| {
            let is_cut_off = worker.facts.cut_at.is_some_and(|at| at > since.0);
            let is_dead = self.is_dead(worker, patience) && worker.offline_at.is_none();
            is_cut_off || is_dead || process::since(worker, since) == Sameness::Replaced
        };
        if candidates.iter().any(gone) { Taker::Died } else { Taker::Lives }
    }

    /// Workers that may have taken it, and do not tell of their tasks.
    pub fn silent_takers(&self, task: &Task, since: Time) -> Vec<&str> {
        let may_have = |worker: &&Worker| {
            serves(worker, task) && since <= worker.seen_at.plus(HEARTBEATS * 2) && worker.facts.tells != Some(true)
        };
        self.workers.values().filter(may_have).map(|worker| worker.hostname.as_str()).collect()
    }

    /// Whether the worker sends heartbeats in time.
    pub fn is_fresh(&self, name: &str) -> bool {
        self.workers.get(name).is_some_and(|worker| is_online(worker, self.now))
    }

    /// Since when the process is gone that has the task: it said goodbye, another one has its name, or it was to be heard and is
    /// not; one that was never heard, when the reservation has run out that nobody renewed. `None` while it may be there.
    pub fn gone_at(&self, task: &Task, patience: &Patience) -> Option<Time> {
        let heard = task.started_at.max(task.received_at)?;
        if is_unheard(task) {
            return Some(heard.plus(patience.busy));
        }
        let worker = self.workers.get(task.worker.as_deref()?)?;
        let said = worker.offline_at.filter(|at| *at >= heard);
        let is_replaced = process::since(worker, heard) == Sameness::Replaced;
        let replaced = worker.facts.replaced_at.map(Time).filter(|_| is_replaced);
        let silent = || {
            let talks = worker.facts.pool.as_deref().is_some_and(|pool| pool != "solo");
            (talks && self.hears() && !is_online(worker, self.now)).then(|| worker.seen_at.plus(HEARTBEATS))
        };
        said.or(replaced).or_else(silent)
    }

    /// Somebody was heard just now: the silence of others is their own, not that of whoever listens.
    fn hears(&self) -> bool {
        self.workers.values().any(|worker| self.now.since(worker.seen_at) <= HEARTBEATS * 2)
    }

    /// Whether a worker with a solo pool may run it right now: it tells what it takes, and answers, only when it has run it.
    pub fn may_run_at_solo(&self, task: &Task, patience: &Patience) -> bool {
        let busy = |worker: &&Worker| !self.answered.contains(&worker.hostname) && !self.is_dead(worker, patience);
        self.solo_takers(task).any(|worker| busy(&worker) && worker.offline_at.is_none())
    }

    /// Whether one that is gone may have run it, unheard.
    pub fn may_have_run_at_solo(&self, task: &Task, patience: &Patience) -> bool {
        let replaced =
            |worker: &Worker| task.queued_at.is_some_and(|since| process::since(worker, since) == Sameness::Replaced);
        self.solo_takers(task)
            .any(|worker| worker.offline_at.is_some() || self.is_dead(worker, patience) || replaced(worker))
    }

    /// Workers with a solo pool that were there when the message came into their queue.
    fn solo_takers(&self, task: &Task) -> impl Iterator<Item = &Worker> {
        let (queue, queued_at) = (task.queue.clone(), task.queued_at);
        self.workers.values().filter(move |worker| {
            let serves = queue.as_ref().is_some_and(|queue| worker.facts.queues.contains(queue));
            let was_there = queued_at.is_some_and(|at| at <= worker.seen_at.plus(HEARTBEATS * 2));
            worker.facts.pool.as_deref() == Some("solo") && serves && was_there
        })
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

/// The last that was heard of the task from whoever has it, by that worker's clock.
fn last_heard(task: &Task) -> Option<Time> {
    task.started_at.max(task.received_at)
}

impl Held {
    fn reserved(worker: &str) -> Self {
        Self { worker: worker.to_owned(), runs_unacknowledged: false, redelivered: false, started_at: None }
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

async fn ask_chunk(broker: &Lists, ids: &[&str]) -> Result<Replies, Trouble> {
    let arguments = serde_json::json!({"ids": ids}).to_string();
    Ok(broker.ask(&Request::to_all("query_task", &arguments), PATIENCE).await?)
}

/// `[{eta, priority, request: {id, …}}]`
fn scheduled_ids(reply: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Entry {
        request: Named,
    }
    #[derive(serde::Deserialize)]
    struct Named {
        id: String,
    }
    serde_json::from_str::<Vec<Entry>>(reply).unwrap_or_default().into_iter().map(|entry| entry.request.id).collect()
}

/// `["name [rate_limit=2/s]", "name"]`: those with a limit.
fn limited_names(reply: &str) -> Vec<String> {
    let lines: Vec<String> = serde_json::from_str(reply).unwrap_or_default();
    let limited = |line: &String| {
        let (name, facts) = line.split_once(" [")?;
        let limit = facts.split_once("rate_limit=")?.1;
        (!limit.starts_with('0') && !limit.starts_with("None")).then(|| name.to_owned())
    };
    lines.iter().filter_map(limited).collect()
}

/// `{id: [state, info]}`; `None` when it is no such answer.
fn held(worker: &str, reply: &str) -> Option<Vec<(String, Held)>> {
    let fields = Fields::parse(reply).ok()?;
    if fields.get("error").is_some() {
        return None;
    }
    let entry = |(id, value): (&str, &serde_json::value::RawValue)| {
        let parts = json::elements(value)?;
        let state = json::text(parts.first()?)?;
        let info = parts.get(1).and_then(|info| Fields::parse(info.get()).ok()).unwrap_or_default();
        let delivery = info.get("delivery_info").and_then(|delivery| Fields::parse(delivery.get()).ok());
        let held = Held {
            runs_unacknowledged: state == "active" && !info.boolean("acknowledged").unwrap_or(true),
            redelivered: delivery.and_then(|delivery| delivery.boolean("redelivered")).unwrap_or(false),
            started_at: info.number("time_start").filter(|_| state == "active").map(Time::from_unix_secs),
            ..Held::reserved(worker)
        };
        (state != "ready").then(|| (id.to_owned(), held))
    };
    Some(fields.iter().filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_what_a_worker_has_and_whether_it_acknowledges_late() {
        let reply = r#"{"a": ["active", {"acknowledged": false, "time_start": 1.5, "delivery_info": {"redelivered": true}}], "b": ["reserved", {"acknowledged": false, "time_start": null, "delivery_info": {"redelivered": null}}], "c": ["active", {"acknowledged": true}], "d": ["ready", {}]}"#;
        let found = held("w", reply).unwrap();
        let names: Vec<_> = found.iter().map(|(id, held)| (id.as_str(), held.runs_unacknowledged)).collect();
        assert_eq!(names, [("a", true), ("b", false), ("c", false)]);
        let again: Vec<_> = found.iter().map(|(_, held)| (held.redelivered, held.started_at)).collect();
        assert_eq!(again, [(true, Some(Time(1_500_000))), (false, None), (false, None)]);
        assert_eq!(held("w", r#"{"error": "KeyError('query_task')"}"#), None);
        assert_eq!(held("w", "{}"), Some(vec![]));
    }

    #[test]
    fn what_waits_for_its_time_or_its_limit_is_read_from_other_answers() {
        let reply = r#"[{"eta": "2026-11-21T12:00:00+00:00", "priority": 6, "request": {"id": "a", "name": "x"}}]"#;
        assert_eq!(scheduled_ids(reply), ["a"]);
        let reply = r#"["celery.chord", "demo.limited [rate_limit=2/s]", "demo.free [rate_limit=0/s]"]"#;
        assert_eq!(limited_names(reply), ["demo.limited"]);
        assert!(scheduled_ids("{}").is_empty() && limited_names("null").is_empty());
    }
}
