//! Explains in a sentence why a task is in its present state, with the facts behind it.

use serde_json::{Map, Value, json};

use super::Gateway;
use crate::guard::tokens::Visibility;
use crate::reconcile::workers::is_online;
use celery::task::{Phase, TaskId, pause};
use ledger::{Error, Finding, InLine, Task, Worker};
use runtime::clock::{self, Time};

/// How many messages before a task are counted; a position further back is shown as "more than".
const COUNTED: i64 = 2_000;
const PAGE: i64 = 500;
/// How many findings are searched.
const FINDINGS: i64 = 1_000;

/// The explanation of a task's state.
#[derive(Debug)]
pub struct Explanation {
    pub task_id: TaskId,
    pub phase: Phase,
    pub sentence: String,
    pub evidence: Map<String, Value>,
}

impl Gateway {
    /// `None` when the ledger never saw the id.
    pub async fn explain(&self, visibility: &Visibility, id: &TaskId) -> Result<Option<Explanation>, Error> {
        let Some(task) = self.ledger.task(id).await? else { return Ok(None) };
        let mut evidence = Map::new();
        let mut note = |name: &str, value: Value| {
            if !value.is_null() {
                evidence.insert(name.to_owned(), value);
            }
        };
        note("since", json!(since(&task).rfc3339()));
        note("reason", json!(task.reason));
        note("worker", json!(task.worker));
        note("queue", json!(task.queue));
        note("delivery", json!(task.delivery));
        let now = clock::now();
        let mut sentence = match task.phase {
            Phase::Accepted | Phase::Held if let Some(line) = self.ledger.in_line(task.no).await? => {
                self.in_line(&task, line, &mut evidence).await?
            }
            Phase::Accepted => self.accepted(&task, now, &mut evidence).await?,
            Phase::Held => self.held(visibility, &task, now, &mut evidence).await?,
            Phase::Waiting if task.is_replaced() => replaced(&task),
            Phase::Waiting => self.waiting(visibility, &task, &mut evidence).await?,
            Phase::Queued => self.queued(&task, now, &mut evidence).await?,
            Phase::Running if pause::is_held_here(task.queue.as_deref()) => {
                self.paused_step(&task, &mut evidence).await?
            }
            Phase::Received | Phase::Running | Phase::Retrying => self.at_worker(&task, now, &mut evidence).await?,
            _ => ended(&task),
        };
        if let Some(finding) = self.finding(&task).await? {
            evidence.insert(finding.kind.clone(), json!(finding.detail));
            sentence = format!("{sentence} {}.", finding.detail);
        }
        Ok(Some(Explanation { task_id: task.id, phase: task.phase, sentence, evidence }))
    }

    /// What the sweeper (which repairs lost tasks) found out about an unfinished task but cannot decide.
    async fn finding(&self, task: &Task) -> Result<Option<Finding>, Error> {
        if task.phase.is_final() {
            return Ok(None);
        }
        let findings = self.ledger.findings(FINDINGS).await?;
        Ok(findings.into_iter().find(|finding| finding.subject == task.id.as_str()))
    }

    /// Explains a step that the gateway carries out itself.
    async fn paused_step(&self, task: &Task, evidence: &mut Map<String, Value>) -> Result<String, Error> {
        let Some(wait) = self.ledger.wait(&task.id).await? else { return Ok("It waits.".to_owned()) };
        let (name, until) = (&wait.new.name, wait.new.expires_at.rfc3339());
        evidence.insert("expires_at".into(), json!(until));
        if wait.new.is_sleep {
            return Ok(format!("It sleeps until {until}."));
        }
        evidence.insert("wait".into(), json!(name));
        let then = wait.new.on_timeout.as_str();
        Ok(format!("It waits for somebody to answer {name} (/v1/waits), until {until} at the latest, then: {then}."))
    }

    /// Explains a task that only waits for room in its queue.
    async fn in_line(&self, task: &Task, line: InLine, evidence: &mut Map<String, Value>) -> Result<String, Error> {
        let window = self.windows.of(&line.queue, task.options.fair.is_some());
        evidence.insert("window".into(), json!(window));
        evidence.insert("in_broker".into(), json!(line.in_broker));
        evidence.insert("ahead".into(), json!(line.ahead));
        let paused = self.ledger.paused_queues().await?.into_iter().find(|(name, _)| *name == line.queue);
        if let Some((_, since)) = paused {
            evidence.insert("paused_since".into(), json!(since.rfc3339()));
        }
        let before = going_before(line.ahead);
        let whose = if line.share.is_empty() {
            String::new()
        } else {
            evidence.insert("key".into(), json!(line.share));
            format!(" among the tasks of {}", line.share)
        };
        let queue = &line.queue;
        Ok(match (evidence.contains_key("paused_since"), window) {
            (true, _) => format!("It waits in the ledger because its queue is paused ({queue}); {before}{whose}."),
            (false, Some(window)) => format!(
                "It waits in the ledger for room in {queue}: {} of {window} messages wait for a worker there; {before}{whose}.",
                line.in_broker
            ),
            (false, None) => {
                format!("It waits in the ledger and is about to be published to {queue}; {before}{whose}.")
            }
        })
    }

    async fn held(
        &self,
        visibility: &Visibility,
        task: &Task,
        now: Time,
        evidence: &mut Map<String, Value>,
    ) -> Result<String, Error> {
        let Some(at) = self.ledger.at_gate(task.no).await? else {
            return self.not_stopped(task, now, evidence).await;
        };
        evidence.insert("ahead".into(), json!(at.ahead));
        let before = going_before(at.ahead);
        if let Some(key) = at.key() {
            evidence.insert("key".into(), json!(key));
        }
        let Some(max) = at.max else {
            let opens = at.opens_at.filter(|at| *at > now);
            evidence.insert("next_at".into(), json!(opens.map(Time::rfc3339)));
            return Ok(format!("It is held by {}; {before}.", at.gate));
        };
        if max == 0 {
            evidence.insert("paused".into(), json!(true));
            return Ok(format!("It is held by {}, which is paused; {before}.", at.gate));
        }
        evidence.insert("max".into(), json!(max));
        evidence.insert("under_way".into(), json!(at.under_way));
        evidence.insert("holders".into(), json!(self.seen(visibility, &at.holders).await?));
        Ok(format!("It is held by {}: {} of {max} are under way; {before}.", at.gate, at.under_way))
    }

    /// The ids among these whose tasks the caller may see.
    async fn seen(&self, visibility: &Visibility, ids: &[TaskId]) -> Result<Vec<String>, Error> {
        let mut seen = Vec::new();
        for id in ids {
            let is_seen =
                !visibility.is_limited() || self.ledger.task(id).await?.is_some_and(|task| visibility.sees_task(&task));
            seen.extend(is_seen.then(|| id.to_string()));
        }
        Ok(seen)
    }

    /// Explains a held task that no limit holds: by its start time, a paused queue, or its history.
    async fn not_stopped(&self, task: &Task, now: Time, evidence: &mut Map<String, Value>) -> Result<String, Error> {
        if let Some(due) = task.due_at.filter(|at| *at > now) {
            return Ok(format!("It is held until {}.", due.rfc3339()));
        }
        let queue = task.queue.as_deref().unwrap_or_default();
        let paused = self.ledger.paused_queues().await?.into_iter().find(|(name, _)| name == queue);
        if let Some((_, since)) = paused {
            let since = since.rfc3339();
            evidence.insert("paused_since".into(), json!(since));
            return Ok(format!("It is held because its queue is paused ({queue}, since {since})."));
        }
        Ok(match &task.reason {
            Some(reason) => format!("It is held: {reason}."),
            None if task.due_at.is_some() => {
                "It is about to be published, as soon as its limits are checked.".to_owned()
            }
            None => "It is held until it is released.".to_owned(),
        })
    }

    async fn accepted(&self, task: &Task, now: Time, evidence: &mut Map<String, Value>) -> Result<String, Error> {
        let backlog = self.ledger.backlog(now).await?;
        let up = self.health.redis_is_up();
        evidence.insert("redis".into(), json!(if up { "up" } else { "down" }));
        evidence.insert("outbox".into(), json!(backlog.due));
        let why = task.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        Ok(if up {
            format!("It is accepted{why} and about to be published; {} tasks are in the outbox.", backlog.due)
        } else {
            format!("It is accepted{why} and will be published when Redis answers again; {} tasks wait.", backlog.due)
        })
    }

    async fn waiting(
        &self,
        visibility: &Visibility,
        task: &Task,
        evidence: &mut Map<String, Value>,
    ) -> Result<String, Error> {
        let before = self.ledger.predecessors(&[task.no]).await?;
        let open: Vec<_> = before.iter().filter(|step| !step.task.phase.is_final()).collect();
        let list: Vec<Value> = open
            .iter()
            .filter(|step| visibility.sees(step.task.name.as_deref()))
            .take(20)
            .map(|step| json!({"task_id": step.task.id.as_str(), "phase": step.task.phase.as_str()}))
            .collect();
        evidence.insert("predecessors".into(), json!(list));
        evidence.insert("predecessors_open".into(), json!(open.len()));
        let ignored = before.iter().find(|step| step.task.phase == Phase::Ignored);
        Ok(match open.first() {
            Some(first) if !visibility.sees(first.task.name.as_deref()) => {
                format!("It waits for {} of {} predecessors in its canvas.", open.len(), before.len())
            }
            Some(first) if open.len() == 1 => {
                let name = first.task.name.as_deref().unwrap_or("a task");
                format!("It waits for {name} ({}), which is {}.", first.task.id, first.task.phase)
            }
            Some(_) => format!("It waits for {} of {} predecessors in its canvas.", open.len(), before.len()),
            None if let Some(blocker) = ignored.filter(|step| visibility.sees(step.task.name.as_deref())) => format!(
                "{} ({}) was ignored, so the body of its chord waits for its real end, as in Celery; \
                 POST /v1/tasks/{}/resolve decides what becomes of it.",
                blocker.task.name.as_deref().unwrap_or("A task"),
                blocker.task.id,
                task.id
            ),
            None if ignored.is_some() => {
                "A task before it was ignored, so the body of its chord waits for that task's real end, as in Celery."
                    .to_owned()
            }
            None => "All its predecessors have ended; a worker is about to send it.".to_owned(),
        })
    }

    async fn queued(&self, task: &Task, now: Time, evidence: &mut Map<String, Value>) -> Result<String, Error> {
        let queue = task.queue.as_deref().unwrap_or_default();
        let workers: Vec<Worker> =
            self.ledger.workers().await?.into_iter().filter(|worker| is_online(worker, now)).collect();
        let consumers: Vec<&str> = workers
            .iter()
            .filter(|worker| worker.facts.queues.iter().any(|name| name == queue))
            .map(|worker| worker.hostname.as_str())
            .collect();
        evidence.insert("consumers".into(), json!(consumers));
        let age = now.since(task.queued_at.unwrap_or(task.submitted_at)).as_secs();
        evidence.insert("age_seconds".into(), json!(age));
        if consumers.is_empty() {
            let served: Vec<String> = workers.into_iter().flat_map(|worker| worker.facts.queues).collect();
            let nearest = celery::spelling::nearest(queue, &served).map(str::to_owned);
            evidence.insert("nearest_queue".into(), json!(nearest));
            let hint = nearest.map_or_else(String::new, |name| format!(" Is {name} meant?"));
            return Ok(format!(
                "It has waited {age} s in {queue}, and no worker that is online serves that queue.{hint}"
            ));
        }
        if self.broker.lists().is_none() {
            let depths = self.broker.depths(&[queue.to_owned()]).await.unwrap_or_default();
            let waiting: i64 = depths.iter().map(broker::Depth::total).sum();
            evidence.insert("waiting".into(), json!(waiting));
            return Ok(format!(
                "It has waited {age} s in {queue}, where {waiting} messages wait; the broker does not show its place among them."
            ));
        }
        let place = self.place(task, queue).await;
        evidence.insert("position".into(), json!(place));
        Ok(match place {
            Some(0) => format!("It is the next in {queue}, where it has waited {age} s."),
            Some(place) => format!("It has waited {age} s in {queue} behind {place} messages."),
            None => format!(
                "It has waited {age} s in {queue} (more than {COUNTED} messages stand before it, or it is just being taken)."
            ),
        })
    }

    /// The number of messages that will be served before it.
    async fn place(&self, task: &Task, queue: &str) -> Option<i64> {
        let lists = self.broker.lists()?;
        let mut skip = 0;
        while skip < COUNTED {
            let page = lists.contents(queue, skip, PAGE).await.ok()?;
            if page.is_empty() {
                return None;
            }
            let needle = format!("\"{}\"", task.id);
            let found = page.iter().position(|message| String::from_utf8_lossy(&message.payload).contains(&needle));
            if let Some(index) = found {
                return Some(skip + i64::try_from(index).unwrap_or(0));
            }
            skip += i64::try_from(page.len()).unwrap_or(PAGE);
        }
        None
    }

    async fn at_worker(&self, task: &Task, now: Time, evidence: &mut Map<String, Value>) -> Result<String, Error> {
        let name = task.worker.as_deref().unwrap_or("a worker");
        let worker = self.ledger.workers().await?.into_iter().find(|worker| worker.hostname == name);
        let heartbeat = worker.as_ref().map(|worker| now.since(worker.seen_at).as_secs_f64());
        evidence.insert("heartbeat_age_seconds".into(), json!(heartbeat));
        evidence.insert("worker_online".into(), json!(worker.as_ref().map(|worker| is_online(worker, now))));
        let last = match (&worker, heartbeat) {
            (Some(worker), Some(age)) if is_online(worker, now) => format!("seen {age:.0} s ago"),
            (Some(_), Some(age)) => format!("not seen for {age:.0} s"),
            _ => "unknown to the ledger".to_owned(),
        };
        let secs = |at: Option<Time>| now.since(at.unwrap_or(task.submitted_at)).as_secs();
        Ok(match task.phase {
            Phase::Received => {
                format!("{name} ({last}) took it {} s ago and has not started it.", secs(task.received_at))
            }
            Phase::Retrying => format!("Attempt {} failed on {name} ({last}); it will run again.", task.retries + 1),
            _ => format!("It has run for {} s on {name} ({last}).", secs(task.started_at)),
        })
    }
}

fn replaced(task: &Task) -> String {
    let why = task.reason.as_deref().unwrap_or("replaced itself by other tasks");
    format!("It {why}, and ends with its replacement.")
}

fn going_before(ahead: i64) -> String {
    match ahead {
        0 => "it is the next".to_owned(),
        1 => "1 task goes before it".to_owned(),
        many => format!("{many} tasks go before it"),
    }
}

fn since(task: &Task) -> Time {
    match task.phase {
        Phase::Queued => task.queued_at,
        Phase::Received => task.received_at,
        Phase::Running | Phase::Retrying => task.started_at,
        phase if phase.is_final() => task.finished_at,
        _ => None,
    }
    .unwrap_or(task.submitted_at)
}

fn ended(task: &Task) -> String {
    let at = task.finished_at.unwrap_or(task.submitted_at).rfc3339();
    let failure = task.failure.as_ref().map(|failure| format!("{}: {}", failure.kind, failure.message));
    let why = task.reason.clone().or(failure).unwrap_or_else(|| "no reason was given".to_owned());
    match task.phase {
        Phase::Succeeded => format!("It succeeded at {at}."),
        Phase::Failed => format!("It failed at {at} ({why})."),
        Phase::Revoked => format!("It was revoked at {at} ({why})."),
        Phase::Expired => format!("Its time to start was over at {at} ({why})."),
        Phase::Skipped => format!("Its branch was not taken ({why})."),
        Phase::Lost => format!("It was given up at {at} ({why})."),
        Phase::Ignored => format!("It counts as ignored since {at} ({why}); news of its end would correct that."),
        phase => format!("It is {phase}."),
    }
}
