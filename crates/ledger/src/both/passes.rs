//! A pass over the outbox: what it decides before it publishes, and what it records after.
//!
//! The adapter's `outbox_rows` has the statements and the transactions: on PostgreSQL a pass is one transaction, on SQLite it is two, so that
//! the only writer does not wait for the broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::claims::{Claimed, Claims, Sorted, claim, let_go, sort};
use super::dialect::{Adapter, Tx};
use super::{gate_writes, groups, learn, limits, line_writes, lines, outbox_rows, rate_gates};
use crate::applied::Applied;
use crate::limits::Rules;
use crate::line_reads;
use crate::lines::Lines;
use crate::looks::Looks;
use crate::passing::{self, Due, Passed};
use crate::rate_gates::{Heads, Open, RateGate, Stopped, gates_of};
use crate::{Carrier, Drained, Error, Event, NewGroup, News, Outgoing, Source, Task};
use celery::task::{Phase, QueueName, TaskId, TaskName};
use runtime::clock::Time;

/// Timeout of the carrier. If it is exceeded, it is unknown which messages were published: the rows stay, and the broker's markers
/// prevent duplicates.
const CARRY: Duration = Duration::from_secs(10);

/// Headers and bodies of messages, by the number of the task.
pub(super) type Messages = HashMap<i64, (Option<String>, Option<String>)>;

/// What a pass has read and decided before it publishes.
struct Decided {
    waits: Drained,
    lines: Lines,
    claimed: Vec<Claimed>,
    sorted: Sorted,
    passed: Passed,
    heads: Heads,
    looks: Looks,
    /// Whether there were more rows than a pass reads.
    is_cut: bool,
}

enum Pass {
    Moves(Box<Decided>),
    Rests(Idle),
}

/// A pass that has nothing to publish or to move.
struct Idle {
    waits: Drained,
    looks: Looks,
}

/// Publishes what may be published, and records it.
pub(super) async fn run(
    adapter: &Adapter,
    mut tx: Tx,
    now: Time,
    settle: Duration,
    limit: i64,
    carrier: &dyn Carrier,
) -> Result<Drained, Error> {
    let decided = match decide(&mut tx, now, settle, limit, carrier).await? {
        Pass::Moves(decided) => *decided,
        Pass::Rests(idle) => return rest(adapter, tx, idle).await,
    };
    let outgoing = decided.outgoing(&mut tx).await?;
    let kept = outbox_rows::before_carrying(tx).await?;
    let carried = carry(carrier, &outgoing).await;
    let mut tx = match kept {
        Some(tx) => tx,
        None => adapter.begin().await?,
    };
    let drained = record(adapter, &mut tx, decided, carried, now, carrier.knows_repetitions()).await?;
    tx.commit().await?;
    Ok(drained)
}

/// Decides what may be published.
async fn decide(tx: &mut Tx, now: Time, settle: Duration, limit: i64, carrier: &dyn Carrier) -> Result<Pass, Error> {
    let rules = limits::rules(tx).await?;
    let news = gate_writes::news(tx).await?;
    let found = rate_gates::look(tx, now, &news.gates).await?;
    let mut looks = Looks::new(&news, found.len() >= rate_gates::LOOKS);
    let open: Vec<Open> =
        looks.sort(found, now, carrier, &rules).into_iter().map(|gate| gate.into_open(&rules)).collect();
    let mut lines = line_reads::load(&mut lines::Read(tx), carrier, limit).await?;
    let waits = Drained {
        in_line: lines.is_waiting,
        dry: lines.is_dry,
        again: !lines.empty().is_empty(),
        ..Drained::default()
    };
    let heads = Heads::new(&gate_writes::first(tx, &open).await?, open);
    let Claims { rows: claimed, is_full } = claim(tx, heads.numbers(), &lines.picked(), now, settle, limit).await?;
    if claimed.is_empty() && !waits.again {
        return Ok(Pass::Rests(Idle { waits, looks }));
    }
    let is_cut = is_full || lines.is_cut || looks.is_cut;
    let mut sorted = sort(tx, &claimed, now, carrier).await?;
    let passed = pass(tx, &mut sorted, &claimed, (&heads, &looks), &mut lines, &rules, now, carrier).await?;
    Ok(Pass::Moves(Box::new(Decided { waits, lines, claimed, sorted, passed, heads, looks, is_cut })))
}

/// Ends a pass that had nothing to publish or to move.
async fn rest(adapter: &Adapter, mut tx: Tx, idle: Idle) -> Result<Drained, Error> {
    let Idle { waits, looks } = idle;
    if !looks.is_empty() {
        tx = outbox_rows::to_write_little(adapter, tx).await?;
        gate_writes::looked(&mut tx, &looks).await?;
    }
    let (next_opening, for_ends) = rate_gates::standing(&mut tx).await?;
    tx.commit().await?;
    Ok(Drained { next_opening, for_ends, again: waits.again || looks.is_cut, ..waits })
}

/// Applies limits and windows.
#[expect(clippy::too_many_arguments, reason = "all that a pass has loaded")]
async fn pass(
    tx: &mut Tx,
    sorted: &mut Sorted,
    claimed: &[Claimed],
    heads: (&Heads, &Looks),
    lines: &mut Lines,
    rules: &Rules,
    now: Time,
    carrier: &dyn Carrier,
) -> Result<Passed, Error> {
    let mut gate_of: HashMap<i64, (String, Option<i32>)> = HashMap::new();
    for row in claimed {
        gate_of.extend(row.gate.clone().map(|gate| (row.task_no, (gate, row.gate_max))));
    }
    let due = std::mem::take(&mut sorted.due).into_iter();
    let due: Vec<Due> = due.map(|task| Due::new(gate_of.remove(&task.no), task, carrier, rules)).collect();
    let taken = sorted.taken.iter().map(|task| (task.no, gates_of(task, carrier, rules)));
    let taken: Vec<(i64, Vec<RateGate>)> = taken.collect();
    let named = due.iter().flat_map(|due| &due.gates).chain(taken.iter().flat_map(|(_, gates)| gates));
    let before = rate_gates::load(tx, named).await?;
    let queues = passing::windows(&due, lines, carrier);
    line_writes::open(tx, lines, &queues).await?;
    Ok(passing::let_through(due, taken, before, heads, lines, carrier, now))
}

impl Decided {
    /// The messages of the tasks that may be published now.
    async fn outgoing(&self, tx: &mut Tx) -> Result<Vec<Outgoing>, Error> {
        let due = &self.passed.due;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let mut messages = outbox_rows::messages(tx, due).await?;
        let mut canvases = groups::of_canvases(tx, due).await?;
        let claimed: HashMap<i64, &Claimed> = self.claimed.iter().map(|row| (row.task_no, row)).collect();
        let alone: Arc<[NewGroup]> = Arc::from([]);
        let outgoing = |task: &Task| {
            let (headers, body) = messages.remove(&task.no).ok_or_else(|| corrupt(task, "message"))?;
            let groups = task.root_id.as_ref().and_then(|root| canvases.get_mut(root));
            let row = claimed.get(&task.no);
            Ok(Outgoing {
                no: task.no,
                id: task.id.clone(),
                name: TaskName::parse(task.name.as_deref().unwrap_or_default()).map_err(|_| corrupt(task, "name"))?,
                queue: QueueName::stored(task.queue.as_deref().unwrap_or_default())
                    .map_err(|_| corrupt(task, "queue"))?,
                spread: task.options.spread.clone(),
                priority: task.priority,
                delivery: task.delivery,
                headers: headers.ok_or_else(|| corrupt(task, "headers"))?,
                body: body.ok_or_else(|| corrupt(task, "body"))?,
                accepted_at: row.map_or(task.submitted_at, |row| row.accepted_at),
                direct: row.is_some_and(|row| row.direct),
                expires_at: task.expires_at,
                groups: groups.map_or_else(|| alone.clone(), |groups| groups.clone()),
            })
        };
        due.iter().map(outgoing).collect()
    }
}

fn corrupt(task: &Task, column: &'static str) -> Error {
    Error::Corrupt { table: "outbox", column, row: task.no.to_string() }
}

/// Publishes tasks; returns the numbers of those that are certainly in the broker.
async fn carry(carrier: &dyn Carrier, outgoing: &[Outgoing]) -> Vec<i64> {
    if outgoing.is_empty() {
        return Vec::new();
    }
    tokio::time::timeout(CARRY, carrier.carry(outgoing)).await.unwrap_or_default()
}

/// Records what was published and what became of the other rows. `is_repeatable`: if a crash undoes the record, the next pass publishes
/// nothing twice.
async fn record(
    adapter: &Adapter,
    tx: &mut Tx,
    decided: Decided,
    mut carried: Vec<i64>,
    now: Time,
    is_repeatable: bool,
) -> Result<Drained, Error> {
    let Decided { waits, lines, claimed, mut sorted, passed, heads, mut looks, is_cut } = decided;
    carried.extend(sorted.taken.iter().map(|task| task.no));
    // An end must survive a crash of the server.
    let is_relaxed = is_repeatable && sorted.expired.is_empty();
    let resumed = let_go(tx, &mut sorted).await?.then_some(now);
    let mut gone = sorted.over.clone();
    gone.extend(sorted.expired.iter().map(|task| task.no));
    outbox_rows::remove(tx, &gone).await?;
    let mut events = outbox_rows::carried(adapter, tx, &carried, now, is_relaxed).await?;
    // No other transaction can end a published task now: it has either committed, so that `settle` does not count the task, or comes later
    // and takes the task out of the count.
    let Passed { due, stopped, entering, windowed, passes } = passed;
    let state = passes.state(&carried, now);
    let are_held = gate_writes::settle(tx, passes.settled(&carried, now)).await?;
    let occupied: Vec<(i64, String)> = windowed.into_iter().filter(|(no, _)| carried.contains(no)).collect();
    line_writes::settle(tx, &lines, &carried, &occupied, &entering).await?;
    let expired = expire(adapter, tx, &sorted, &stopped, now, &mut events).await?;
    looks.settle(claimed.iter().filter_map(|row| row.gate.as_deref()), &stopped, &state, now);
    if !are_held {
        looks.again(now);
    }
    gate_writes::looked(tx, &looks).await?;
    let (next_look, for_ends) = rate_gates::standing(tx).await?;
    Ok(Drained {
        events,
        // Without parked, stopped and ended tasks, which the carrier does not get.
        claimed: due.len() + sorted.taken.len() + expired,
        carried: carried.len(),
        expired,
        for_ends,
        in_line: waits.in_line || !entering.is_empty(),
        // Rows that another transaction has locked must not make a pass follow the other without a pause.
        again: waits.again || (!claimed.is_empty() && (is_cut || heads.are_cut(&looks, now))),
        next_opening: next_look.into_iter().chain(resumed).min(),
        ..waits
    })
}

/// Ends expired tasks, parks paused ones, puts refused ones to sleep and records stopped ones. Returns how many expired.
async fn expire(
    adapter: &Adapter,
    tx: &mut Tx,
    sorted: &Sorted,
    stopped: &[Stopped],
    now: Time,
    events: &mut Vec<Event>,
) -> Result<usize, Error> {
    let refused = sorted.refused.iter().map(|(task, _)| task);
    let ids = sorted.expired.iter().chain(&sorted.parked).chain(refused).map(|task| &task.id);
    let moved: Vec<&Stopped> = stopped.iter().filter(|stopped| !stopped.is_there).collect();
    let all: Vec<&TaskId> = ids.chain(moved.iter().map(|stopped| &stopped.id)).collect();
    if all.is_empty() {
        return Ok(0);
    }
    let mut applied = Applied::new(learn::lock(tx, &all).await?);
    for task in &sorted.expired {
        let reason = Some("expires passed before it was published".to_owned());
        applied.learn(&News { reason, ..News::new(task.id.clone(), Source::Ledger, Phase::Expired, now) });
    }
    let mut hold = |id: &TaskId, reason: &str| {
        if applied.phase(id).is_some_and(|phase| phase == Phase::Accepted) {
            applied.place(id, Phase::Held, Some(reason), now);
        }
    };
    sorted.parked.iter().for_each(|task| hold(&task.id, "its queue is paused"));
    sorted.refused.iter().for_each(|(task, why)| hold(&task.id, why));
    moved.iter().for_each(|stopped| hold(&stopped.id, &stopped.reason()));
    gate_writes::stop(tx, &moved).await?;
    outbox_rows::hold(tx, sorted, now).await?;
    adapter.save(tx, &mut applied, events.len() as i64).await?;
    events.append(&mut applied.events);
    Ok(sorted.expired.len())
}
