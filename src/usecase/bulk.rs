//! Operations on many tasks: created here, carried out step by step by [`crate::roles::bulk`]; they can be watched, paused, cancelled.
//!
//! Which tasks an action may touch is decided here, in the same way for all callers: a retry skips succeeded tasks unless the request
//! includes them explicitly, and tasks submitted after the operation began are never part of it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Gateway;
use celery::task::Phase;
use ledger::{Bulk, BulkAction, BulkState, Error, Filter, NewBulk, Page};
use runtime::clock::{self, Time};

/// The most tasks that a preview counts, and the longest time that it takes.
const MOST_COUNTED: i64 = 20_000;
const LONGEST_COUNT: Duration = Duration::from_secs(3);
const PAGE: i64 = 500;
/// Number of operations in a list.
const LISTED: i64 = 100;

/// A requested operation.
#[derive(Debug, Clone)]
pub struct BulkRequest {
    pub action: BulkAction,
    /// The filter, already limited to what the caller may see.
    pub filter: Filter,
    /// Whether a retry includes succeeded tasks.
    pub include_succeeded: bool,
    /// Whether a revoke also stops running tasks.
    pub terminate: bool,
    pub reason: Option<String>,
    /// The pause between two tasks. `None`: as fast as possible.
    pub interval: Option<Duration>,
    /// The filter and the rate as the client wrote them, for display.
    pub given: Box<RawValue>,
}

/// The caller of the request.
#[derive(Debug, Clone)]
pub struct Asker {
    pub who: String,
    /// The token's id.
    pub id: Option<String>,
    /// Patterns of the task names that it may use; empty for no limit.
    pub patterns: Vec<String>,
}

/// An `Idempotency-Key`, with the fingerprint of its request.
#[derive(Debug, Clone)]
pub struct BulkKey {
    pub key: String,
    pub fingerprint: String,
}

#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// No task that the filter selects can be part of the action.
    #[error("{detail}")]
    Nothing { pointer: &'static str, detail: String },
    #[error("there is no operation {0}")]
    Unknown(String),
    #[error("the operation has ended ({0})")]
    Ended(&'static str),
    #[error("the key was used for another request")]
    KeyReused,
    #[error("the ledger failed")]
    Ledger(#[from] Error),
}

/// What an operation would touch.
#[derive(Debug, Default)]
pub struct Preview {
    pub matched: i64,
    /// Tasks that the filter selects, whatever the action, in the order of phases.
    pub by_phase: Vec<(Phase, i64)>,
    /// Matched tasks that were retried already, which a retry skips.
    pub retried: i64,
    /// Whether there are more than were counted.
    pub more: bool,
}

/// The plan of an operation, which the role that carries it out reads from the row.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    filter: Kept,
    pub patterns: Vec<String>,
    pub terminate: bool,
    pub reason: Option<String>,
    pub interval_micros: Option<u64>,
    pub given: Box<RawValue>,
}

impl Plan {
    pub fn filter(&self) -> Filter {
        self.filter.filter()
    }
}

impl Gateway {
    /// Counts the tasks that an operation would touch, and all tasks that its filter matches, by outcome.
    pub async fn preview_bulk(&self, request: &BulkRequest) -> Result<Preview, BulkError> {
        let filter = reach(request, clock::now())?;
        let started = Instant::now();
        let (counts, retried, more) = self.count(&filter, started).await?;
        let matched = counts.iter().map(|(_, count)| count).sum();
        let everything = Filter { phase: Vec::new(), dead_letters: false, ..filter.clone() };
        let (by_phase, _, more_of_all) = self.count(&everything, started).await?;
        // The relevant phases are counted separately, because the history may be longer than the counting limit.
        let merged = Phase::ALL.into_iter().filter_map(|phase| {
            let of =
                |counts: &[(Phase, i64)]| counts.iter().find(|(counted, _)| *counted == phase).map_or(0, |(_, n)| *n);
            let count = of(&counts).max(of(&by_phase));
            (count > 0).then_some((phase, count))
        });
        Ok(Preview { matched, by_phase: merged.collect(), retried, more: more || more_of_all })
    }

    /// Counts tasks that match a filter by phase, and tells whether there are more than were counted.
    pub async fn outcomes(&self, filter: &Filter) -> Result<(Vec<(Phase, i64)>, bool), Error> {
        let (counts, _, more) = self.count(filter, Instant::now()).await?;
        Ok((counts, more))
    }

    /// Accepts an operation. A repeated request with the same key returns the first operation and `false`.
    pub async fn create_bulk(
        &self,
        request: BulkRequest,
        asker: Asker,
        key: Option<BulkKey>,
    ) -> Result<(Bulk, bool), BulkError> {
        let at = clock::now();
        let filter = reach(&request, at)?;
        let (id, fingerprint) = match &key {
            Some(BulkKey { key, fingerprint }) => {
                (Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("bulk {key}").as_bytes()), fingerprint.clone())
            }
            None => (clock::new_id(), String::new()),
        };
        let (counts, _, more) = self.count(&filter, Instant::now()).await?;
        let matched = counts.iter().map(|(_, count)| count).sum();
        let plan = Plan {
            filter: Kept::of(&filter),
            patterns: asker.patterns,
            terminate: request.terminate,
            reason: request.reason,
            interval_micros: request.interval.map(|span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
            given: request.given,
        };
        let bulk = NewBulk {
            id: id.to_string(),
            action: request.action,
            plan: serde_json::to_string(&plan).expect("a plan is JSON"),
            fingerprint,
            who: asker.who,
            who_id: asker.id,
            total: (!more).then_some(matched),
            at,
        };
        let is_new = self.ledger.create_bulk(&bulk).await?;
        let kept = self.ledger.bulk(&bulk.id).await?.ok_or_else(|| BulkError::Unknown(bulk.id.clone()))?;
        if !is_new && kept.fingerprint != bulk.fingerprint {
            return Err(BulkError::KeyReused);
        }
        self.bulks.nudge();
        Ok((kept, is_new))
    }

    /// Reads an operation. `limited` is the token's id, for a token that sees only its own operations.
    pub async fn bulk(&self, id: &str, limited: Option<&str>) -> Result<Bulk, BulkError> {
        let bulk = self.ledger.bulk(id).await?.filter(|bulk| is_theirs(bulk, limited));
        bulk.ok_or_else(|| BulkError::Unknown(id.to_owned()))
    }

    /// The newest operations.
    pub async fn bulks(&self, limited: Option<&str>) -> Result<Vec<Bulk>, BulkError> {
        Ok(self.ledger.bulks(LISTED, limited).await?)
    }

    /// Pauses, resumes or cancels an operation from its next step on.
    pub async fn change_bulk(&self, id: &str, limited: Option<&str>, state: BulkState) -> Result<Bulk, BulkError> {
        let bulk = self.bulk(id, limited).await?;
        if bulk.state == state {
            return Ok(bulk);
        }
        if !self.ledger.set_bulk_state(id, state, clock::now()).await? {
            return Err(BulkError::Ended(self.bulk(id, limited).await?.state.as_str()));
        }
        self.bulks.nudge();
        self.bulk(id, limited).await
    }

    /// Counts by phase, how many were retried already, and whether there are more.
    async fn count(&self, filter: &Filter, started: Instant) -> Result<(Vec<(Phase, i64)>, i64, bool), Error> {
        let (mut counts, mut retried, mut after, mut all) = (Phase::ALL.map(|phase| (phase, 0)), 0, None, 0);
        loop {
            let (tasks, next) = self.ledger.tasks(filter, &Page { limit: PAGE, after }).await?;
            for task in &tasks {
                all += 1;
                retried += i64::from(task.retried_as.is_some());
                counts.iter_mut().filter(|(phase, _)| *phase == task.phase).for_each(|(_, count)| *count += 1);
            }
            after = next;
            let is_over = all >= MOST_COUNTED || started.elapsed() > LONGEST_COUNT;
            if after.is_none() || is_over {
                break;
            }
        }
        Ok((counts.into_iter().filter(|(_, count)| *count > 0).collect(), retried, after.is_some()))
    }
}

fn is_theirs(bulk: &Bulk, limited: Option<&str>) -> bool {
    limited.is_none_or(|id| bulk.who_id.as_deref() == Some(id))
}

/// Narrows the filter to the tasks that the action may touch.
fn reach(request: &BulkRequest, now: Time) -> Result<Filter, BulkError> {
    let given = &request.filter;
    let until = now.plus(Duration::from_micros(1));
    let to = Some(given.to.map_or(until, |to| to.min(until)));
    let may: Vec<Phase> = Phase::ALL.into_iter().filter(|phase| may(request, *phase)).collect();
    let is_asked = |phase: &Phase| given.phase.is_empty() || given.phase.contains(phase);
    let is_usual = |phase: &Phase| !given.phase.is_empty() || !given.status.is_empty() || usual(request, *phase);
    let phase: Vec<Phase> = may.into_iter().filter(is_asked).filter(is_usual).collect();
    let means_succeeded = |word: &String| word == Phase::Succeeded.status();
    let only_succeeded = !given.status.is_empty() && given.status.iter().all(means_succeeded);
    let is_left_out = request.action == BulkAction::Retry && !request.include_succeeded;
    if is_left_out && (only_succeeded || given.phase == [Phase::Succeeded]) {
        let detail = "must be true: the filter asks for tasks that succeeded, and these are not sent again by mistake";
        return Err(BulkError::Nothing { pointer: "/include_succeeded", detail: detail.to_owned() });
    }
    if phase.is_empty() {
        let detail = format!("names no phase whose tasks {} can touch", request.action.as_str());
        return Err(BulkError::Nothing { pointer: "/filter/phase", detail });
    }
    let dead_letters = matches!(request.action, BulkAction::Requeue | BulkAction::Dismiss);
    Ok(Filter { phase, to, dead_letters, ..given.clone() })
}

/// Whether tasks of this phase can be part of the action at all.
fn may(request: &BulkRequest, phase: Phase) -> bool {
    match request.action {
        BulkAction::Retry => phase.is_final() && (phase != Phase::Succeeded || request.include_succeeded),
        BulkAction::Revoke => !phase.is_final(),
        BulkAction::Requeue | BulkAction::Dismiss => matches!(phase, Phase::Failed | Phase::Lost),
    }
}

/// Whether tasks of this phase are part of the action when the filter names no phase.
fn usual(request: &BulkRequest, phase: Phase) -> bool {
    match request.action {
        BulkAction::Retry => matches!(phase, Phase::Failed | Phase::Lost | Phase::Succeeded),
        BulkAction::Revoke | BulkAction::Requeue | BulkAction::Dismiss => true,
    }
}

/// A filter in the form that a plan stores.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    status: Vec<String>,
    phase: Vec<String>,
    task: Vec<String>,
    task_patterns: Vec<String>,
    queue: Vec<String>,
    worker: Vec<String>,
    labels: Vec<(String, String)>,
    root_id: Option<String>,
    group_id: Option<String>,
    schedule: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    q: Option<String>,
    argument: Option<String>,
    dead_letters: bool,
}

impl Kept {
    fn of(filter: &Filter) -> Self {
        let Filter {
            status,
            phase,
            task,
            task_patterns,
            queue,
            worker,
            labels,
            root_id,
            group_id,
            schedule,
            from,
            to,
            q,
            argument,
            dead_letters,
        } = filter.clone();
        Self {
            status,
            phase: phase.iter().map(|phase| phase.as_str().to_owned()).collect(),
            task,
            task_patterns,
            queue,
            worker,
            labels,
            root_id,
            group_id,
            schedule,
            from: from.map(|at| at.0),
            to: to.map(|at| at.0),
            q,
            argument,
            dead_letters,
        }
    }

    fn filter(&self) -> Filter {
        Filter {
            status: self.status.clone(),
            phase: self.phase.iter().filter_map(|phase| phase.parse().ok()).collect(),
            task: self.task.clone(),
            task_patterns: self.task_patterns.clone(),
            queue: self.queue.clone(),
            worker: self.worker.clone(),
            labels: self.labels.clone(),
            root_id: self.root_id.clone(),
            group_id: self.group_id.clone(),
            schedule: self.schedule.clone(),
            from: self.from.map(Time),
            to: self.to.map(Time),
            q: self.q.clone(),
            argument: self.argument.clone(),
            dead_letters: self.dead_letters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(action: BulkAction, filter: Filter) -> BulkRequest {
        BulkRequest {
            action,
            filter,
            include_succeeded: false,
            terminate: false,
            reason: None,
            interval: None,
            given: RawValue::from_string("{}".to_owned()).unwrap(),
        }
    }

    fn phases(request: &BulkRequest) -> Vec<Phase> {
        reach(request, Time(5)).unwrap().phase
    }

    #[test]
    fn a_retry_takes_what_failed_and_was_lost_unless_more_is_said() {
        let mut retry = request(BulkAction::Retry, Filter::default());
        assert_eq!(phases(&retry), [Phase::Failed, Phase::Lost]);
        retry.include_succeeded = true;
        assert_eq!(phases(&retry), [Phase::Succeeded, Phase::Failed, Phase::Lost]);
    }

    #[test]
    fn a_filter_alone_never_reaches_what_succeeded() {
        let both = Filter { phase: vec![Phase::Succeeded, Phase::Revoked], ..Filter::default() };
        assert_eq!(phases(&request(BulkAction::Retry, both)), [Phase::Revoked]);
        let custom = Filter { status: vec!["SUCCESS".into(), "FAILURE".into()], ..Filter::default() };
        assert!(!phases(&request(BulkAction::Retry, custom)).contains(&Phase::Succeeded));
        for filter in [
            Filter { phase: vec![Phase::Succeeded], ..Filter::default() },
            Filter { status: vec!["SUCCESS".into()], ..Filter::default() },
        ] {
            let refused = reach(&request(BulkAction::Retry, filter), Time(5));
            assert!(matches!(refused, Err(BulkError::Nothing { pointer: "/include_succeeded", .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_revoke_takes_what_has_not_ended() {
        assert!(phases(&request(BulkAction::Revoke, Filter::default())).iter().all(|phase| !phase.is_final()));
        let ended = Filter { phase: vec![Phase::Failed], ..Filter::default() };
        assert!(reach(&request(BulkAction::Revoke, ended), Time(5)).is_err());
    }

    #[test]
    fn what_comes_later_is_not_part_of_it() {
        let later = Filter { to: Some(Time(900)), ..Filter::default() };
        assert_eq!(reach(&request(BulkAction::Revoke, later), Time(5)).unwrap().to, Some(Time(6)));
        let earlier = Filter { to: Some(Time(2)), ..Filter::default() };
        assert_eq!(reach(&request(BulkAction::Revoke, earlier), Time(5)).unwrap().to, Some(Time(2)));
    }

    #[test]
    fn a_plan_keeps_its_filter() {
        let filter = Filter {
            phase: vec![Phase::Failed],
            task_patterns: vec!["a.*".into()],
            labels: vec![("k".into(), "v".into())],
            to: Some(Time(6)),
            q: Some("x".into()),
            dead_letters: true,
            ..Filter::default()
        };
        let text = serde_json::to_string(&Kept::of(&filter)).unwrap();
        assert_eq!(serde_json::from_str::<Kept>(&text).unwrap().filter(), filter);
    }
}
