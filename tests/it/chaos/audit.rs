//! The audit after a run: compares every promise with the executions that the workers recorded themselves.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::load::Submitted;
use super::reasons;
use super::world::{QUEUES, World};
use crate::harness::{Http, postgres};

/// Something must end within this time: reservations of dead workers expire, stopped workers resume, retries run.
const SETTLED: Duration = Duration::from_secs(120);
/// All must have ended within this time, however slowly it goes on: a run ends with a verdict on any machine.
const LONGEST: Duration = Duration::from_secs(900);
/// No task of the load takes this long, so a worker that reports to run one is wrong. After a lost connection Celery may keep a task as
/// active although all children of its pool are idle. Only restarting the worker shows that, as an operator would. The audit does so
/// when workers claim everything that is left; any other task that does not end is a broken promise.
const STALE: Duration = Duration::from_secs(45);

/// How long the gateway has for its own repairs before an operator decides.
const SUSPENDED: Duration = Duration::from_secs(20);
/// One of so many executions may be of a task that nobody heard of.
const RARE: usize = 1_000;

/// The result of an audit, in one line.
#[derive(Debug, Default)]
pub struct Figures {
    pub faults: usize,
    pub accepted: usize,
    pub open: usize,
    pub refused: usize,
    pub finished: usize,
    pub held: usize,
    pub reported: usize,
    pub executions: usize,
    /// Executions beyond the first of a task.
    pub repeated: usize,
    /// Tasks with such executions that their histories do not mention.
    pub unexplained: usize,
    /// Tasks of which the history says at their end that nobody knows how often they ran, and has no other reason.
    pub uncertain: usize,
    /// Tasks that were run again on request, because so many were left that the gateway leaves the decision to a person.
    pub by_hand: usize,
    /// Tasks that a worker sent itself and no gateway has met: nobody heard of them while they lived.
    pub unmet: usize,
    pub events: usize,
    pub streams: usize,
    pub settled: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "chaos: {} faults; accepted {} = finished {} + held {} + reported {}; {} refused, {} unanswered; \
             {} executions, {} of them repetitions, {} tasks unexplained, {} told as uncertain, {} of workers' own tasks unmet, \
             {} run again by hand; \
             {} events without a gap; {} streams complete; settled in {:.1} s",
            self.faults,
            self.accepted,
            self.finished,
            self.held,
            self.reported,
            self.refused,
            self.open,
            self.executions,
            self.repeated,
            self.unexplained,
            self.uncertain,
            self.unmet,
            self.by_hand,
            self.events,
            self.streams,
            self.settled.as_secs_f64()
        )
    }
}

pub async fn audit(world: &mut World, submitted: Submitted, faults: usize) -> Figures {
    let mut figures = Figures {
        faults,
        accepted: submitted.accepted.len(),
        open: submitted.open,
        refused: submitted.refused,
        ..Figures::default()
    };
    let http = world.gateways[0].http();
    let began = Instant::now();
    let phases = settled(world, &http, &mut figures).await;
    figures.settled = began.elapsed();
    let mut broken = Vec::new();
    for id in &submitted.accepted {
        match phases.get(id).map(String::as_str) {
            Some("held") => figures.held += 1,
            Some("lost") => figures.reported += 1,
            Some(_) => figures.finished += 1,
            None => broken.push(format!("{id} was accepted and is unknown")),
        }
    }
    executions(world, &http, &phases, &mut figures, &mut broken).await;
    figures.events = gapless(world, &mut broken);
    for (id, reader) in submitted.readers {
        let seen = tokio::time::timeout(SETTLED, reader).await;
        let seen = seen.unwrap_or_else(|_| panic!("the stream of {id} does not end")).expect("no panic");
        let told: Vec<u64> = history(&http, &id).await.iter().filter_map(|event| event["seq"].as_u64()).collect();
        // Remarks after the end are not streamed to a reader that has received the end.
        if !told.starts_with(&seen) || seen.is_empty() {
            broken.push(format!("the stream of {id} had {seen:?}, its history has {told:?}"));
        }
        figures.streams += 1;
    }
    if !broken.is_empty() {
        world.show_logs();
        panic!("{figures}\n{} promises are broken:\n{}", broken.len(), broken.join("\n"));
    }
    figures
}

/// Waits until every task of the ledger is final and nothing is left in the broker; answers with the phases.
async fn settled(world: &mut World, http: &Http, figures: &mut Figures) -> HashMap<String, String> {
    let (mut until, mut least, mut restarted) = (Instant::now() + SETTLED, Left::MOST, false);
    let (began, mut asked_at) = (Instant::now(), Instant::now());
    let mut written = 0;
    loop {
        let left = tokio::task::block_in_place(|| Left::count(world));
        if left.is_nothing() {
            let phases = phases(http).await;
            if phases.values().all(|phase| is_final(phase)) {
                return phases;
            }
        }
        if left < least {
            (until, least) = (Instant::now() + SETTLED, left);
        }
        // A task that kills its worker goes on, too, with each of its executions, until it was delivered as often as it may be.
        let journal = std::fs::metadata(&world.journal).map_or(0, |file| file.len());
        if journal > written {
            (until, written) = (Instant::now() + SETTLED, journal);
        }
        if asked_at.elapsed() > SUSPENDED && is_left_to_a_person(world, http).await {
            asked_at = Instant::now();
            figures.by_hand += run_again(world, http).await;
        }
        if !restarted && until.saturating_duration_since(Instant::now()) < SETTLED - STALE {
            restarted = true;
            if is_all_claimed(world, http).await {
                tokio::task::block_in_place(|| world.restart_celery());
            }
        }
        if Instant::now() > until || began.elapsed() > LONGEST {
            give_up(world, http, left).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Whether the gateway leaves a decision to a person: about many tasks that would run again at once, or about each task that is left,
/// because nobody knows what became of it.
async fn is_left_to_a_person(world: &World, http: &Http) -> bool {
    let incidents = http.get("/v1/incidents").await.expect(200);
    let incidents = incidents["incidents"].as_array().cloned().unwrap_or_default();
    let about =
        |kind: &str, subject: &str| incidents.iter().any(|open| open["kind"] == kind && open["subject"] == subject);
    let left = "select t.task_id from taskgate.tasks t where t.finished_at is null and t.phase <> 'waiting'";
    let left = tokio::task::block_in_place(|| postgres::query(&world.database, left));
    incidents.iter().any(|open| open["kind"] == "repair-suspended")
        || (!left.is_empty() && left.lines().all(|id| about("undecided", id)))
}

/// Decides as an operator would who knows that workers were killed. What a worker has, or what others sent, is refused.
async fn run_again(world: &World, http: &Http) -> usize {
    let left = "select t.task_id from taskgate.tasks t where t.finished_at is null and t.phase in ('queued', 'received', 'running', 'retrying')";
    let left = tokio::task::block_in_place(|| postgres::query(&world.database, left));
    let mut count = 0;
    for id in left.lines() {
        let resolved = http.post(&format!("/v1/tasks/{id}/resolve"), &serde_json::json!({"as": "rerun"})).await;
        count += usize::from(resolved.status == 200);
    }
    eprintln!("          {count} tasks run again on request");
    count
}

/// Whether workers report to run each remaining task, except steps that wait for one of these.
async fn is_all_claimed(world: &World, http: &Http) -> bool {
    let active = http.get("/v1/inspect/active").await.expect(200).to_string();
    let unfinished = "select t.task_id from taskgate.tasks t where t.finished_at is null and t.phase <> 'waiting'";
    let left = tokio::task::block_in_place(|| postgres::query(&world.database, unfinished));
    let (claimed, others): (Vec<&str>, Vec<&str>) = left.lines().partition(|id| active.contains(id));
    eprintln!("          claimed by workers: {claimed:?}, by nobody: {others:?}");
    !claimed.is_empty() && others.is_empty()
}

/// The remaining work. Fewer tasks count as progress, whatever the number of messages: those that Redis lost are published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Left {
    unfinished: usize,
    /// In queues and reserved.
    messages: usize,
}

impl Left {
    const MOST: Self = Self { unfinished: usize::MAX, messages: usize::MAX };

    fn count(world: &mut World) -> Self {
        world.supervise();
        let count = "select count(*) from taskgate.flight";
        let unfinished = postgres::query(&world.database, count).parse().expect("a number");
        let messages = QUEUES.map(|queue| world.messages(queue)).iter().sum::<usize>() + world.reserved().len();
        Self { unfinished, messages }
    }

    fn is_nothing(self) -> bool {
        self == Self { unfinished: 0, messages: 0 }
    }
}

fn is_final(phase: &str) -> bool {
    ["succeeded", "failed", "revoked", "expired", "skipped", "lost", "ignored"].contains(&phase)
}

async fn give_up(world: &World, http: &Http, left: Left) -> ! {
    world.show_logs();
    let mut told = String::new();
    let phases = phases(http).await;
    for (id, phase) in phases.iter().filter(|(_, phase)| !is_final(phase)).take(5) {
        let explained = http.get(&format!("/v1/tasks/{id}/explain")).await.text();
        let graph = http.get(&format!("/v1/tasks/{id}/graph")).await.text();
        told.push_str(&format!("\n{id} {phase}: {explained}\n  {graph}\n  {:?}", history(http, id).await));
    }
    let (lists, reserved) = (QUEUES.map(|queue| world.messages(queue)), world.reserved());
    panic!("left are {left:?}, lists {lists:?}, reserved {reserved:?}: {told}");
}

async fn phases(http: &Http) -> HashMap<String, String> {
    let mut phases = HashMap::new();
    let mut path = "/v1/tasks?limit=500".to_owned();
    loop {
        let page = http.get(&path).await.expect(200);
        for task in page["tasks"].as_array().expect("tasks") {
            let text = |key: &str| task[key].as_str().expect("a text").to_owned();
            phases.insert(text("task_id"), text("phase"));
        }
        let Some(next) = page["next"].as_str() else { return phases };
        path = format!("/v1/tasks?limit=500&cursor={next}");
    }
}

async fn history(http: &Http, id: &str) -> Vec<Value> {
    let path = format!("/v1/tasks/{id}/events");
    let listed = http.get_with(&path, &[("accept", "application/json")]).await.expect(200);
    listed["events"].as_array().cloned().unwrap_or_default()
}

/// Every execution but the first of a task needs a reason in its history, or in that of the step before it.
async fn executions(
    world: &World,
    http: &Http,
    phases: &HashMap<String, String>,
    figures: &mut Figures,
    broken: &mut Vec<String>,
) {
    let journal = std::fs::read_to_string(&world.journal).unwrap_or_default();
    let mut starts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, who) in journal.lines().filter_map(|line| line.strip_prefix("start ")?.split_once(' ')) {
        starts.entry(id).or_default().push(who);
        figures.executions += 1;
    }
    for (id, runs) in &starts {
        if !phases.contains_key(*id) && is_of_a_worker(id) {
            figures.unmet += 1;
        } else if !phases.contains_key(*id) {
            broken.push(format!("{id} ran and is unknown"));
        } else if runs.len() > 1 {
            figures.repeated += runs.len() - 1;
            let history = history(http, id).await;
            let told = reasons::told(&history);
            if told.times + 1 < runs.len() {
                let sent = sent_again(http, id, &starts).await;
                if told.times + sent + 1 < runs.len() {
                    if told.is_uncertain {
                        figures.uncertain += 1;
                        continue;
                    }
                    figures.unexplained += 1;
                    // A node that dies forgets acknowledgements of tasks that have ended: what the ledger has as ended stays so.
                    if world.rabbit.is_some() {
                        continue;
                    }
                    broken.push(unexplained(id, runs, told.times + sent + 1, &history));
                }
            }
        }
    }
    if figures.unmet * RARE > figures.executions {
        broken.push(format!("{} tasks of workers were not met: too many", figures.unmet));
    }
    for (id, phase) in phases.iter().filter(|(id, phase)| *phase == "succeeded" && !starts.contains_key(id.as_str())) {
        broken.push(format!("{id} is {phase} and never ran"));
    }
}

/// Whether Celery made the id. What a task sends when it replaces itself is adopted when it is seen, in events or in a queue. Redis's channels
/// keep nothing: while Redis or all gateways are away, nobody sees it. The ids of all submitted tasks have version 7.
fn is_of_a_worker(id: &str) -> bool {
    id.parse::<uuid::Uuid>().is_ok_and(|id| id.get_version() == Some(uuid::Version::Random))
}

/// How often the task before a step sent the step again, because a worker ran that task again. The reason for that must be in the
/// history of that task.
async fn sent_again(http: &Http, id: &str, starts: &BTreeMap<&str, Vec<&str>>) -> usize {
    let graph = http.get(&format!("/v1/tasks/{id}/graph")).await.expect(200);
    let edges = graph["edges"].as_array().cloned().unwrap_or_default();
    let before = edges.iter().filter(|edge| edge[1] == id).filter_map(|edge| edge[0].as_str());
    before.map(|one| starts.get(one).map_or(0, |runs| runs.len() - 1)).sum()
}

fn unexplained(id: &str, runs: &[&str], explained: usize, history: &[Value]) -> String {
    let history: Vec<String> = history.iter().map(brief).collect();
    format!("{id} ran {} times, {explained} are explained: {runs:?}\n  {}", runs.len(), history.join("\n  "))
}

fn brief(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
    format!("{} {} {} {} {}", event["seq"], text("at"), text("phase"), text("worker"), text("reason"))
}

/// Counts all events, and checks that each task's events are numbered without a gap.
fn gapless(world: &World, broken: &mut Vec<String>) -> usize {
    let gaps = "select task_no, count(*), min(seq), max(seq) from taskgate.event group by task_no \
                having count(*) <> max(seq) or min(seq) <> 1 limit 10";
    let found = postgres::query(&world.database, gaps);
    if !found.is_empty() {
        broken.push(format!("seq has gaps: {found}"));
    }
    postgres::query(&world.database, "select count(*) from taskgate.event").parse().expect("a number")
}
