//! The survey: where is every task? It compares counts first; lists are read, in pages and for a bounded share of the time, only if the
//! counts do not match, if data is known to be lost, and occasionally in any case (other clients' messages count too).

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;

use super::absence::{self, Absences, Absent};
use super::doubt::{Doubt, Losses};
use super::evidence::Found;
use super::fleet::Fleet;
use super::leases::Unclear;
use super::steps::Due;
use super::{PAGE, Sweeper, Trouble};
use crate::reconcile::findings::Findings;
use crate::reconcile::recorder;
use broker::Present;
use celery::task::{Phase, Spread, TaskId, pause};
use ledger::Task;
use runtime::clock::{self, Time};

/// Pause before the second survey after a certain loss of data.
const GRACE_AFTER_LOSS: Duration = Duration::from_millis(700);
/// A message may be in flight for this long after it was queued: younger ones are not missed yet.
const YOUNG: Duration = Duration::from_secs(2);
/// How long every survey reads the lists after a loss: until messages that were young then no longer are.
const SUSPICION: Duration = Duration::from_secs(4);
/// How often lists are read even if the counts match.
const READ_ANYWAY: Duration = Duration::from_mins(10);
/// Unfinished tasks of one pass; when none of them is missed any more, the next pass takes those after them.
const SUSPECTS: usize = 50_000;
/// After this many surveys the next tasks get their turn, even if some are still missing.
const MAX_SURVEYS: u32 = 4;
/// Reading lists takes at most a twentieth of the time.
const SCAN_SHARE: u32 = 20;
/// Surveys take at most a fifth of the time, however many tasks are unfinished, but come at least this often.
const LOOK_SHARE: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Maximum number of remembered task names that acknowledge late.
const LATE_NAMES: usize = 1_000;

/// What the sweeper remembers between surveys.
pub(super) struct State {
    pub absences: Absences,
    next_survey: Instant,
    /// Lists are not read before this time, unless data is known to be lost.
    next_scan: Instant,
    /// At this time lists are read in any case.
    read_anyway: Instant,
    suspicious_until: Instant,
    /// The last losses of data that were handled.
    losses: Losses,
    /// Whether Redis's data may be older than the ledger's.
    resurrected: bool,
    walk: Walk,
    /// Names of tasks that acknowledge late, according to their workers.
    late: VecDeque<String>,
    /// Findings of this survey, for incidents.
    pub findings: Findings,
}

/// The position of the surveys: if there are more tasks than fit into one survey, each section is repeated until nothing in it is
/// missing.
#[derive(Default)]
struct Walk {
    /// The number of the task before the section.
    after: i64,
    surveys: u32,
    /// Whether the end was reached since data was lost.
    is_round: bool,
}

impl Walk {
    /// Moves on after the survey of a section that ends with `last` (`None` at the end of all tasks). Returns whether there are more tasks
    /// that may have been lost.
    fn go_on(&mut self, last: Option<i64>, is_missed: bool) -> bool {
        self.surveys += 1;
        if is_missed && self.surveys < MAX_SURVEYS {
            return !self.is_round;
        }
        self.is_round |= last.is_none();
        (self.after, self.surveys) = (last.unwrap_or_default(), 0);
        !self.is_round
    }
}

impl State {
    /// A new sweeper does not know of earlier losses, so its first survey reads the lists in any case.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            absences: Absences::default(),
            next_survey: now,
            next_scan: now,
            read_anyway: now + READ_ANYWAY,
            suspicious_until: now + SUSPICION,
            losses: Losses::default(),
            resurrected: true,
            walk: Walk::default(),
            late: VecDeque::new(),
            findings: Findings::default(),
        }
    }

    pub fn next_survey(&self) -> Instant {
        self.next_survey
    }

    fn heed(&mut self, doubt: &Doubt) {
        let since = doubt.since();
        if since != self.losses {
            self.losses = since;
            self.resurrected = true;
            self.walk = Walk::default();
            self.suspicious_until = Instant::now() + SUSPICION;
        }
    }

    fn is_suspicious(&self) -> bool {
        Instant::now() <= self.suspicious_until
    }

    /// As [`Losses::explain`].
    pub fn lost_since(&self, since: Time, mute: bool) -> bool {
        self.losses.explain(since, mute)
    }

    pub fn acks_late(&self, task: &Task) -> bool {
        task.name.as_ref().is_some_and(|name| self.late.contains(name))
    }

    fn learn_late(&mut self, tasks: &[Task], fleet: &Fleet) {
        for task in tasks {
            let late = fleet.held.get(task.id.as_str()).is_some_and(|held| held.runs_unacknowledged);
            let Some(name) = task.name.as_ref().filter(|name| late && !self.late.contains(name)) else { continue };
            if self.late.len() >= LATE_NAMES {
                self.late.pop_front();
            }
            self.late.push_back(name.clone());
        }
    }
}

/// Unfinished tasks that no worker reports to have.
#[derive(Default)]
struct Suspects {
    /// Tasks to search for.
    absent: Vec<Task>,
    /// Tasks whose workers live but did not answer. Their messages can still be found if they went back to their queues.
    silent: Vec<Task>,
    /// The last task, if the pass ended before all were checked.
    last: Option<i64>,
}

/// Messages whose reservation is old enough that the worker would have reported it.
fn unheard(tasks: &[Task], present: &Present) -> Vec<Unclear> {
    let now = clock::now();
    let reserved = |task: &Task| {
        let reservation = present.reserved.get(task.id.as_str())?.clone();
        let is_old = reservation.since().is_some_and(|since| now.since(since) > YOUNG);
        is_old.then(|| Unclear { reservation, id: task.id.to_string(), task: Some(task.clone()) })
    };
    tasks.iter().filter_map(reserved).collect()
}

/// These queues, the queues of these tasks, and the further queues of their copies.
fn with_copies(queues: &[String], tasks: &[Task]) -> Vec<String> {
    let copies = tasks.iter().filter_map(|task| task.options.spread.as_ref()).flat_map(Spread::copies);
    let own = tasks.iter().filter_map(|task| task.queue.clone());
    let mut all: Vec<String> = queues.iter().cloned().chain(own).chain(copies.map(ToString::to_string)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

impl Sweeper {
    /// One survey of all tasks; repairs those that were found absent twice.
    pub(super) async fn survey(&self, state: &mut State, doubt: &Doubt) -> Result<(), Trouble> {
        let started = Instant::now();
        state.heed(doubt);
        let suspicious = state.is_suspicious();
        let (queues, queued) = self.queues().await?;
        let mut listed = 0;
        for queue in &queues {
            listed += match self.broker.queue_length(queue).await {
                // This key cannot be read; go on with the other queues.
                Err(error) if error.is_refusal() => 0,
                length => length?,
            };
        }
        if suspicious {
            self.rebuild_chords().await?;
        }
        let now = Instant::now();
        let scan = suspicious
            || !state.absences.is_empty()
            || (listed < queued && now >= state.next_scan)
            || now >= state.read_anyway;
        if scan {
            state.read_anyway = now + READ_ANYWAY;
        }
        self.look_for_all(&queues, scan, state).await?;
        let grace = self.grace(suspicious);
        let again = suspicious || state.absences.is_urgent();
        let share = (started.elapsed() * LOOK_SHARE).min(LONGEST_PAUSE);
        state.next_survey = Instant::now() + if again { grace } else { self.settings.config.period.max(share) };
        counter!("taskgate_sweeper_looks_total").increment(1);
        state.findings.tell(&self.ledger).await.map_err(Trouble::from)
    }

    fn grace(&self, suspicious: bool) -> Duration {
        let grace = self.settings.config.grace;
        if suspicious { GRACE_AFTER_LOSS.min(grace) } else { grace }
    }

    /// Queues with tasks of ours, and how many tasks wait there according to the ledger.
    async fn queues(&self) -> Result<(Vec<String>, i64), Trouble> {
        let mut queued: i64 = 0;
        let mut queues: Vec<String> = Vec::new();
        for ((queue, phase), count) in self.ledger.census().await? {
            if phase == Phase::Queued {
                queued += count;
            }
            if !phase.is_ours() && !phase.is_final() && !queues.contains(&queue) {
                queues.push(queue);
            }
        }
        Ok((queues, queued))
    }

    /// Searches for tasks. `scan`: queued tasks too, not only those that workers have.
    async fn look_for_all(&self, queues: &[String], scan: bool, state: &mut State) -> Result<(), Trouble> {
        let suspicious = state.is_suspicious();
        let grace = self.grace(suspicious);
        if state.resurrected {
            self.remove_resurrected(queues).await?;
            state.resurrected = false;
        }
        let Suspects { absent: mut suspects, silent, last } = self.suspects(scan, state).await?;
        let steps = self.waiting_steps().await?;
        suspects.extend(steps.replaced);
        suspects.extend(steps.unsent.iter().map(|(task, _)| task.clone()));
        let due = steps.unsent.into_iter().map(|(task, since)| (task.id, since)).collect();
        let mut absent = Vec::new();
        if !suspects.is_empty() || (!silent.is_empty() && Instant::now() >= state.next_scan) {
            let started = Instant::now();
            let present = self.broker.present(&with_copies(queues, &suspects)).await?;
            self.note_returned(&suspects, &present).await?;
            self.note_returned(&silent, &present).await?;
            absent = self.absent(suspects, &present, &due, state).await?;
            state.next_scan = Instant::now() + started.elapsed() * SCAN_SHARE;
        }
        let patience = absence::Patience::of(grace, &self.settings.recovery);
        let settled = state.absences.note(absent, patience);
        self.settle_all(settled, state).await?;
        if state.walk.go_on(last, state.absences.is_urgent()) && suspicious {
            state.suspicious_until = Instant::now() + SUSPICION;
        }
        Ok(())
    }

    /// The unfinished tasks that no worker reports to have.
    async fn suspects(&self, scan: bool, state: &mut State) -> Result<Suspects, Trouble> {
        let with_workers = [Phase::Received, Phase::Running, Phase::Retrying];
        let all = [Phase::Queued, Phase::Received, Phase::Running, Phase::Retrying];
        let phases: &[Phase] = if scan { &all } else { &with_workers };
        let patience = self.patience();
        let (tasks, last) = self.stretch(phases, state.walk.after).await?;
        // Asks about all of them at once, so that a silent worker costs its timeout only once.
        let at_worker: Vec<&str> =
            tasks.iter().filter(|task| task.phase.is_at_worker()).map(|task| task.id.as_str()).collect();
        let fleet = if at_worker.is_empty() {
            Fleet::read(&self.ledger).await?
        } else {
            Fleet::ask(&self.ledger, &self.broker, &at_worker).await?
        };
        state.learn_late(&tasks, &fleet);
        let unfinished: HashSet<TaskId> = self.orphans().note(&tasks, &fleet, &patience).into_iter().collect();
        self.note_elsewhere(&tasks, &fleet).await?;
        let now = clock::now();
        let (silent, absent): (Vec<Task>, Vec<Task>) = tasks
            .into_iter()
            .filter(|task| {
                let young = task.queued_at.is_some_and(|at| now.since(at) <= YOUNG);
                !young && !fleet.held.contains_key(task.id.as_str())
            })
            .partition(|task| task.phase.is_at_worker() && fleet.may_have(task, &patience));
        self.note_unseen(&unfinished).await?;
        Ok(Suspects { absent, silent, last })
    }

    /// The unfinished tasks of one section, and the number of its last task unless it ends with the last of all.
    async fn stretch(&self, phases: &[Phase], mut after: i64) -> Result<(Vec<Task>, Option<i64>), Trouble> {
        let mut stretch = Vec::new();
        while stretch.len() < SUSPECTS {
            let tasks = self.ledger.unfinished(phases, after, PAGE).await?;
            let Some(last) = tasks.last() else { return Ok((stretch, None)) };
            after = last.no;
            // Steps that the gateway carries out itself are with no worker.
            let is_here = |task: &Task| task.phase.is_at_worker() && pause::is_held_here(task.queue.as_deref());
            stretch.extend(tasks.into_iter().filter(|task| !is_here(task)));
        }
        Ok((stretch, Some(after)))
    }

    /// The suspects that are not found anywhere, with the decision about each. Workers are asked after the lists are read, and records are
    /// read last: a record with an end is news.
    async fn absent(
        &self,
        suspects: Vec<Task>,
        present: &Present,
        due: &HashMap<TaskId, Due>,
        state: &State,
    ) -> Result<Vec<Absent>, Trouble> {
        let suspects: Vec<Task> =
            suspects.into_iter().filter(|task| !present.listed.contains(task.id.as_str())).collect();
        let mut absent = Vec::new();
        if suspects.is_empty() {
            return Ok(absent);
        }
        let ids: Vec<&str> = suspects.iter().map(|task| task.id.as_str()).collect();
        let mut fleet = Fleet::ask(&self.ledger, &self.broker, &ids).await?;
        fleet.ask_for_unseen(&self.broker).await?;
        for chunk in suspects.chunks(PAGE as usize) {
            self.note_elsewhere(chunk, &fleet).await?;
            self.note_answered(chunk, &fleet).await?;
            if fleet.is_anybody_silent(&self.patience()) {
                self.note_taken(&unheard(chunk, present), &fleet).await?;
            }
            let decided = self.decide(chunk, &Found { present, fleet: &fleet, due }, state).await?;
            absent.extend(self.without_record(decided).await?);
        }
        Ok(absent)
    }

    /// Removes tasks whose record has their end.
    async fn without_record(&self, decided: Vec<Absent>) -> Result<Vec<Absent>, Trouble> {
        let ids: Vec<TaskId> = decided.iter().map(|absence| absence.task.id.clone()).collect();
        let records = self.backend.records(&ids).await?;
        let (mut ends, mut rest) = (Vec::new(), Vec::new());
        for (absence, record) in decided.into_iter().zip(records) {
            match record.and_then(|payload| recorder::end_of(absence.task.id.clone(), &payload)) {
                Some(end) => ends.push(end),
                None => rest.push(absence),
            }
        }
        if !ends.is_empty() {
            self.hub.publish(&self.ledger.learn(&ends, true).await?);
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_looked_at_until_nothing_in_it_is_missed() {
        let mut walk = Walk::default();
        assert!(walk.go_on(Some(50_000), true), "seen absent for the first time");
        assert_eq!(walk.after, 0);
        assert!(walk.go_on(Some(50_000), false), "they were queued again");
        assert_eq!(walk.after, 50_000);
        assert!(walk.go_on(None, true));
        assert_eq!(walk.after, 50_000);
        assert!(!walk.go_on(None, false), "that was all");
        assert_eq!(walk.after, 0);
        assert!(!walk.go_on(Some(50_000), false), "from then on counts tell");
    }

    #[test]
    fn what_is_missed_for_ever_does_not_hide_the_rest() {
        let mut walk = Walk::default();
        let surveys = (0..100).take_while(|_| walk.after == 0 && walk.go_on(Some(7), true)).count();
        assert_eq!((surveys, walk.after), (MAX_SURVEYS as usize, 7));
    }
}
