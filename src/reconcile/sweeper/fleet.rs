//! Which workers are alive, and which tasks they have: from their answers and their heartbeats.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Trouble;
use super::decision::Taker;
use crate::reconcile::process::{self, Sameness, serves};
use crate::reconcile::workers::is_online;
use broker::{Lists, Replies, Request};
use celery::task::json::{self, Fields};
use ledger::change::is_unheard;
use ledger::{SharedLedger, Task, Worker, WorkerFacts};
use runtime::clock::{self, Time};

/// How long workers may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Ids in one question.
const CHUNK: usize = 500;
/// A live worker is heard within this time, at Celery's usual two seconds between heartbeats.
const HEARTBEATS: Duration = Duration::from_secs(3);
/// Why a worker that answers sends no events.
const FLAGS: &str = "it was started with --without-heartbeat, --without-gossip and --without-mingle";
/// Concurrent questions: a worker that is too busy to answer delays each of them until its timeout.
const QUESTIONS: usize = 4;

/// A task that a worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub worker: String,
    /// Whether it runs without having been acknowledged.
    pub runs_unacknowledged: bool,
    /// Whether its message is a redelivery.
    pub redelivered: bool,
    /// When it started, by the worker's clock.
    pub started_at: Option<Time>,
}

/// The answers of the fleet.
#[derive(Debug)]
pub struct Fleet {
    workers: HashMap<String, Worker>,
    answered: HashSet<String>,
    pub held: HashMap<String, Held>,
    /// Names of tasks that some worker runs with a rate limit.
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
                // A worker that did not answer every question counts as not having answered.
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

    /// Reads the registry without asking workers.
    pub async fn read(ledger: &SharedLedger) -> Result<Self, Trouble> {
        let workers = ledger.workers().await?.into_iter().map(|worker| (worker.hostname.clone(), worker)).collect();
        Ok(Self { workers, answered: HashSet::new(), held: HashMap::new(), limited: HashSet::new(), now: clock::now() })
    }

    /// Asks for what `query_task` does not show: messages with an ETA (before Celery 5.7), and names of rate-limited tasks, whose messages a
    /// worker may hold back invisibly.
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

    /// Whether a worker may hold the task back for a rate limit: its name has one, and a worker that may have taken it still lives.
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

    /// Whether all workers that may be alive and answer questions at all have answered.
    pub fn all_answered(&self, patience: &Patience) -> bool {
        self.workers.values().all(|worker| self.has_answered(worker, patience))
    }

    /// Whether any worker that may be alive did not answer, or never answers.
    pub fn is_anybody_silent(&self, patience: &Patience) -> bool {
        let mut others = self.workers.values().filter(|worker| !self.answered.contains(&worker.hostname));
        others.any(|worker| !self.is_dead(worker, patience))
    }

    /// As [`Fleet::all_answered`], only for workers that may have the task: they serve its queue, or their queues are unknown.
    pub fn answered_for(&self, task: &Task, patience: &Patience) -> bool {
        let mut may_have_it = self.workers.values().filter(|worker| serves(worker, task));
        may_have_it.all(|worker| self.has_answered(worker, patience))
    }

    /// Whether the worker has answered. One that never answers has its remote control switched off, so its silence means nothing.
    fn has_answered(&self, worker: &Worker, patience: &Patience) -> bool {
        self.answered.contains(&worker.hostname) || self.is_dead(worker, patience) || worker.facts.deaf
    }

    /// Whether a worker reports to have the task, or may have it: the worker that took it lives, but neither answered nor is idle.
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

    /// Whether the process that took the task may still have it: it says so, or it does not answer.
    pub fn may_still_have(&self, task: &Task, patience: &Patience) -> bool {
        let since = last_heard(task).unwrap_or(task.submitted_at);
        let owner = task.worker.as_deref().and_then(|name| self.workers.get(name));
        let said_no = |owner: &Worker| self.answered.contains(&owner.hostname) && !process::is_shared(&owner.facts);
        self.held.contains_key(task.id.as_str())
            || self.may_hold_unseen(task, since, patience)
            || owner.is_some_and(|owner| !said_no(owner) && self.sameness(owner, task) != Sameness::Replaced)
    }

    /// Its worker's name, with a note if that worker sends no events.
    pub fn named(&self, task: &Task) -> String {
        let Some(name) = task.worker.as_deref() else { return "a worker of its queue".to_owned() };
        match self.workers.get(name).and_then(|worker| worker.facts.tells) {
            Some(false) => format!("{name} (which sends no events: {FLAGS})"),
            Some(true) | None => name.to_owned(),
        }
    }

    /// Whether its worker reports that it runs nothing.
    pub fn is_idle_owner(&self, task: &Task) -> bool {
        task.worker.as_deref().and_then(|name| self.workers.get(name)).is_some_and(|owner| self.is_idle(owner))
    }

    fn is_idle(&self, worker: &Worker) -> bool {
        worker.facts.active == Some(0) && is_online(worker, self.now) && !process::is_shared(&worker.facts)
    }

    fn sameness(&self, worker: &Worker, task: &Task) -> Sameness {
        last_heard(task).map_or(Sameness::Same, |at| process::since(worker, at))
    }

    /// What is known about the process that has reported taking the task.
    pub fn taker(&self, task: &Task, patience: &Patience) -> Taker {
        let Some(name) = task.worker.as_deref() else { return self.unnamed_taker(task, patience) };
        let Some(worker) = self.workers.get(name) else {
            // Only this task was ever heard from the worker: it gets as much time as a silent worker.
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

    /// For a task known only by its record, or whose message is reserved by an unknown worker: all that may have taken it are considered.
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

    /// What is known about all workers that may have taken a message queued at that time, if none has reported taking it. Only the death or
    /// lost connection of a worker that sends events explains the missing message, and only if no silent worker may have taken it.
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

    /// Workers that may have taken it but send no events.
    pub fn silent_takers(&self, task: &Task, since: Time) -> Vec<&str> {
        let may_have = |worker: &&Worker| {
            serves(worker, task) && since <= worker.seen_at.plus(HEARTBEATS * 2) && worker.facts.tells != Some(true)
        };
        self.workers.values().filter(may_have).map(|worker| worker.hostname.as_str()).collect()
    }

    /// Whether a worker may have taken it that never sends events, as far as known. Of one that was heard it is only unknown whether it
    /// has begun to tell of tasks.
    pub fn has_mute_taker(&self, task: &Task, since: Time) -> bool {
        let is_mute = |facts: &WorkerFacts| facts.tells == Some(false) || facts.heard_at.is_none();
        self.silent_takers(task, since).into_iter().any(|name| is_mute(&self.workers[name].facts))
    }

    /// Whether the worker sends heartbeats in time.
    pub fn is_fresh(&self, name: &str) -> bool {
        self.workers.get(name).is_some_and(|worker| is_online(worker, self.now))
    }

    /// When the process with the task died: it went offline, another process has its name, or its heartbeats stopped; for a worker that was
    /// never heard, when the reservation expired. `None` while it may be alive.
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

    /// Whether some worker was heard just now: then the silence of others is not the fault of this replica.
    fn hears(&self) -> bool {
        self.workers.values().any(|worker| self.now.since(worker.seen_at) <= HEARTBEATS * 2)
    }

    /// Whether a worker with a solo pool may run it right now: such a worker sends events and answers only after the task.
    pub fn may_run_at_solo(&self, task: &Task, patience: &Patience) -> bool {
        let busy = |worker: &&Worker| !self.answered.contains(&worker.hostname) && !self.is_dead(worker, patience);
        self.solo_takers(task).any(|worker| busy(&worker) && worker.offline_at.is_none())
    }

    /// Whether a dead worker with a solo pool may have run it unreported.
    pub fn may_have_run_at_solo(&self, task: &Task, patience: &Patience) -> bool {
        let replaced =
            |worker: &Worker| task.queued_at.is_some_and(|since| process::since(worker, since) == Sameness::Replaced);
        self.solo_takers(task)
            .any(|worker| worker.offline_at.is_some() || self.is_dead(worker, patience) || replaced(worker))
    }

    /// Workers with a solo pool that were online when the message was queued.
    fn solo_takers(&self, task: &Task) -> impl Iterator<Item = &Worker> {
        let (queue, queued_at) = (task.queue.clone(), task.queued_at);
        self.workers.values().filter(move |worker| {
            let serves = queue.as_ref().is_some_and(|queue| worker.facts.queues.contains(queue));
            let was_there = queued_at.is_some_and(|at| at <= worker.seen_at.plus(HEARTBEATS * 2));
            worker.facts.pool.as_deref() == Some("solo") && serves && was_there
        })
    }

    /// Whether the worker is dead. A busy worker with a solo pool is silent until its task ends, so for it the visibility timeout decides;
    /// the same applies if the pool is unknown.
    fn is_dead(&self, worker: &Worker, patience: &Patience) -> bool {
        let talks = worker.facts.pool.as_deref().is_some_and(|pool| pool != "solo");
        let silent = self.now.since(worker.seen_at);
        let said_goodbye = worker.offline_at.is_some();
        let allowed = if talks || said_goodbye { patience.lost } else { patience.lost.max(patience.busy) };
        silent > allowed
    }
}

/// When the task's worker last reported on it, by that worker's clock.
fn last_heard(task: &Task) -> Option<Time> {
    task.started_at.max(task.received_at)
}

impl Held {
    fn reserved(worker: &str) -> Self {
        Self { worker: worker.to_owned(), runs_unacknowledged: false, redelivered: false, started_at: None }
    }
}

/// How long a worker may be silent before it counts as dead.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a worker that sends events while it runs tasks.
    pub lost: Duration,
    /// For a worker that does not.
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

/// The names with a limit in `["name [rate_limit=2/s]", "name"]`.
fn limited_names(reply: &str) -> Vec<String> {
    let lines: Vec<String> = serde_json::from_str(reply).unwrap_or_default();
    let limited = |line: &String| {
        let (name, facts) = line.split_once(" [")?;
        let limit = facts.split_once("rate_limit=")?.1;
        (!limit.starts_with('0') && !limit.starts_with("None")).then(|| name.to_owned())
    };
    lines.iter().filter_map(limited).collect()
}

/// Parses `{id: [state, info]}`; `None` when it is not such an answer.
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
