//! Use cases of schedules: create, read, edit without overwriting another client's edit, pause, run by hand.
//!
//! An edit names the version that it is based on (`If-Match`); without it the edit applies to the newest version. An edit never moves a
//! schedule back before a tick that was fired.

use std::sync::Arc;

use super::Gateway;
use super::admission::foreign_name;
use super::submit::SubmitError;
use super::ticks::next_tick;
use crate::guard::tokens::Visibility;
use celery::task::{Invalid, Signature};
use ledger::{Created, Cursor, Edit, Page, Run, Schedule};
use runtime::clock::{self, Time};
use runtime::heavy;
use schedule::definition::{Definition, check_name};
use schedule::document::{self, Document};

/// How often an edit is retried when the schedule fires at the same moment.
const EDIT_ATTEMPTS: usize = 10;
/// Maximum number of ticks in a preview.
pub const MOST_PREVIEWED: usize = 500;

/// A precondition for changing a schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    #[default]
    None,
    /// The schedule must exist.
    Exists,
    /// The schedule must not exist.
    Absent,
    /// The schedule must have one of these tags.
    Tags(Vec<String>),
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error("the schedule does not fit")]
    Invalid(Vec<Invalid>),
    #[error("there is no schedule {0}")]
    Unknown(String),
    #[error("the name {0} is taken")]
    NameTaken(String),
    #[error("the schedule was changed by somebody else")]
    Changed,
    #[error("the Idempotency-Key was used for another schedule")]
    KeyReused,
    #[error("the run was refused")]
    Submit(#[from] SubmitError),
    #[error("the ledger failed")]
    Ledger(#[from] ledger::Error),
}

/// The result of writing a schedule.
#[derive(Debug)]
pub struct Written {
    pub schedule: Schedule,
    pub created: bool,
    /// Whether this is the answer of an earlier, equal request.
    pub replayed: bool,
}

/// A schedule's entity tag: its version and its row's id, because a name may be used again.
pub fn tag(schedule: &Schedule) -> String {
    let row = schedule.id.rsplit('-').next().unwrap_or_default();
    format!("\"{}-{row}\"", schedule.version)
}

impl Precondition {
    fn check(&self, schedule: Option<&Schedule>) -> Result<(), ScheduleError> {
        let holds = match (self, schedule) {
            (Self::None, _) | (Self::Exists, Some(_)) | (Self::Absent, None) => true,
            (Self::Tags(tags), Some(schedule)) => tags.contains(&tag(schedule)),
            (Self::Exists | Self::Tags(_), None) | (Self::Absent, Some(_)) => false,
        };
        if holds { Ok(()) } else { Err(ScheduleError::Changed) }
    }
}

impl Gateway {
    /// Creates a schedule; the document contains its `name`. A repeated request with the same `key` gets the same row.
    pub async fn create_schedule(
        self: &Arc<Self>,
        visibility: &Visibility,
        text: &str,
        key: Option<&str>,
    ) -> Result<Written, ScheduleError> {
        let document = Document::parse(text).map_err(ScheduleError::Invalid)?;
        let name = named(&document)?;
        let definition = self.judged(visibility, &document, true).await?;
        self.check_free(visibility, &name).await?;
        let mut schedule =
            owned(new_schedule(&visibility.own_name(&name), &document, &definition, clock::now()), visibility);
        if let Some(key) = key {
            schedule.id =
                uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("schedule {key}").as_bytes()).to_string();
        }
        match self.ledger.create_schedule(&schedule, false).await? {
            Created::Done => {
                self.beat.nudge();
                Ok(Written { schedule, created: true, replayed: false })
            }
            Created::NameTaken | Created::SeededBefore => self.repeated(schedule, key.is_some()).await,
        }
    }

    async fn repeated(&self, wanted: Schedule, keyed: bool) -> Result<Written, ScheduleError> {
        let Some(schedule) = self.ledger.schedule(&wanted.name).await? else { return Err(ScheduleError::KeyReused) };
        if !keyed || schedule.id != wanted.id {
            let name = wanted.name.rsplit('/').next().unwrap_or_default();
            return Err(ScheduleError::NameTaken(name.to_owned()));
        }
        if schedule.version == 1 && schedule.document.get() != wanted.document.get() {
            return Err(ScheduleError::KeyReused);
        }
        Ok(Written { schedule, created: true, replayed: true })
    }

    /// Replaces the whole schedule, or creates it.
    pub async fn put_schedule(
        self: &Arc<Self>,
        visibility: &Visibility,
        name: &str,
        text: &str,
        precondition: &Precondition,
    ) -> Result<Written, ScheduleError> {
        let document = Document::parse(text).map_err(ScheduleError::Invalid)?;
        same_name(&document, name)?;
        if self.meet_schedule(visibility, name).await?.is_none() {
            precondition.check(None)?;
            check_name(name).map_err(|detail| invalid("/name", detail))?;
            let definition = self.judged(visibility, &document, true).await?;
            let schedule =
                owned(new_schedule(&visibility.own_name(name), &document, &definition, clock::now()), visibility);
            if self.ledger.create_schedule(&schedule, false).await? == Created::Done {
                self.beat.nudge();
                return Ok(Written { schedule, created: true, replayed: false });
            }
        }
        let schedule = self.edit(visibility, name, precondition, |_| Ok(document.clone())).await?;
        Ok(Written { schedule, created: false, replayed: false })
    }

    /// Merges a patch (RFC 7396) into the schedule.
    pub async fn patch_schedule(
        self: &Arc<Self>,
        visibility: &Visibility,
        name: &str,
        patch: &str,
        precondition: &Precondition,
    ) -> Result<Schedule, ScheduleError> {
        let merged = |schedule: &Schedule| {
            let text = document::patched(&schedule.document, schedule.paused, patch).map_err(ScheduleError::Invalid)?;
            let document = Document::parse(&text).map_err(ScheduleError::Invalid)?;
            same_name(&document, name)?;
            Ok(document)
        };
        self.edit(visibility, name, precondition, merged).await
    }

    pub async fn pause_schedule(
        self: &Arc<Self>,
        visibility: &Visibility,
        name: &str,
        paused: bool,
        precondition: &Precondition,
    ) -> Result<Schedule, ScheduleError> {
        let document = |schedule: &Schedule| {
            let document = Document::parse(schedule.document.get()).map_err(ScheduleError::Invalid)?;
            Ok(Document { paused, ..document })
        };
        self.edit(visibility, name, precondition, document).await
    }

    pub async fn delete_schedule(
        &self,
        visibility: &Visibility,
        name: &str,
        precondition: &Precondition,
    ) -> Result<(), ScheduleError> {
        let schedule = self.find_schedule(visibility, name).await?;
        precondition.check(Some(&schedule))?;
        let expected = (*precondition != Precondition::None).then_some(schedule.version);
        if self.ledger.delete_schedule(&schedule.id, expected).await? { Ok(()) } else { Err(ScheduleError::Changed) }
    }

    pub async fn find_schedule(&self, visibility: &Visibility, name: &str) -> Result<Schedule, ScheduleError> {
        let found = self.meet_schedule(visibility, name).await?;
        let found = found.filter(|schedule| self.sees_schedule(visibility, schedule));
        found.ok_or_else(|| ScheduleError::Unknown(name.to_owned()))
    }

    /// The schedule that a caller means by a name: one in its own namespace, else one without a namespace. A limited caller gets the
    /// latter only if it may see all its tasks.
    async fn meet_schedule(&self, visibility: &Visibility, name: &str) -> Result<Option<Schedule>, ScheduleError> {
        let own = visibility.own_name(name);
        if let Some(schedule) = self.ledger.schedule(&own).await? {
            return Ok(Some(schedule));
        }
        if own == name {
            return Ok(None);
        }
        let shared = if name.starts_with('@') { None } else { self.ledger.schedule(name).await? };
        Ok(shared.filter(|schedule| self.sees_schedule(visibility, schedule)))
    }

    /// Refuses a name if the caller already sees a schedule of that name.
    async fn check_free(&self, visibility: &Visibility, name: &str) -> Result<(), ScheduleError> {
        let is_taken = visibility.own_name(name) != name
            && self.meet_schedule(visibility, name).await?.is_some_and(|schedule| schedule.name == name);
        if is_taken { Err(ScheduleError::NameTaken(name.to_owned())) } else { Ok(()) }
    }

    /// Whether a caller may see a schedule, which requires that it may see all its tasks.
    pub fn sees_schedule(&self, visibility: &Visibility, schedule: &Schedule) -> bool {
        !visibility.is_limited()
            || visibility.meets_name(&schedule.name)
                && self
                    .stored_definition(schedule)
                    .is_ok_and(|definition| foreign_name(&definition.submission.signature, visibility).is_none())
    }

    /// The next ticks, with the zone's offset.
    pub async fn preview_schedule(
        &self,
        visibility: &Visibility,
        name: &str,
        count: usize,
    ) -> Result<Vec<String>, ScheduleError> {
        let schedule = self.find_schedule(visibility, name).await?;
        let definition = self.stored_definition(&schedule)?;
        let table = &definition.timetable;
        let after = schedule.last_tick_at.map_or(clock::now(), |last| last.max(clock::now()));
        let ticks = table.preview(schedule.anchor_at, after, count.min(MOST_PREVIEWED));
        Ok(ticks.into_iter().map(|tick| table.local(tick)).collect())
    }

    /// When a schedule that does not exist yet would fire.
    pub fn preview_document(
        &self,
        visibility: &Visibility,
        text: &str,
        count: usize,
    ) -> Result<Vec<String>, ScheduleError> {
        let document = Document::parse(text).map_err(ScheduleError::Invalid)?;
        let table = self.read_definition(visibility, &document, true)?.timetable;
        let now = clock::now();
        let ticks = table.preview(now, now, count.min(MOST_PREVIEWED));
        Ok(ticks.into_iter().map(|tick| table.local(tick)).collect())
    }

    pub async fn schedule_runs(
        &self,
        visibility: &Visibility,
        name: &str,
        page: &Page,
    ) -> Result<(Vec<Run>, Option<Cursor>), ScheduleError> {
        let schedule = self.find_schedule(visibility, name).await?;
        Ok(self.ledger.runs(&schedule.id, page).await?)
    }

    /// As [`Gateway::read_definition`]; a large document is read off the threads that answer other requests.
    async fn judged(
        self: &Arc<Self>,
        visibility: &Visibility,
        document: &Document,
        is_new: bool,
    ) -> Result<Definition, ScheduleError> {
        let (gateway, visibility, document) = (Arc::clone(self), visibility.clone(), document.clone());
        let bytes = document.rest.get().len();
        heavy::run(bytes, move || gateway.read_definition(&visibility, &document, is_new)).await
    }

    /// Parses a client's document. The time of a new one-time schedule must be in the future.
    fn read_definition(
        &self,
        visibility: &Visibility,
        document: &Document,
        is_new: bool,
    ) -> Result<Definition, ScheduleError> {
        let definition =
            Definition::parse(document.rest.get(), self.signature_limits()).map_err(ScheduleError::Invalid)?;
        if let Some((pointer, detail)) = self.refused_name(&definition.submission.signature) {
            return Err(invalid(&pointer, detail));
        }
        if let Some(name) = foreign_name(&definition.submission.signature, visibility) {
            return Err(SubmitError::NotYours { name, patterns: visibility.patterns() }.into());
        }
        if is_new {
            self.check_rules(&definition.submission)?;
        }
        if is_new && definition.timetable.is_over(clock::now()) {
            let pointer = definition.timetable.end_pointer();
            return Err(invalid(pointer, "lies in the past: the schedule would never fire".to_owned()));
        }
        Ok(definition)
    }

    /// The first task that may not be submitted, with its place.
    fn refused_name(&self, signature: &Signature) -> Option<(String, String)> {
        let mut refused = None;
        document::visit_names(signature, &mut String::new(), &mut |pointer, name| {
            if refused.is_none() && !self.catalog.permits(name) {
                let known = self.catalog.names();
                let near = celery::spelling::nearest(name, &known);
                let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
                refused = Some((pointer.to_owned(), format!("{name} is neither in the catalog nor allowed{hint}")));
            }
        });
        refused
    }

    async fn edit(
        self: &Arc<Self>,
        visibility: &Visibility,
        name: &str,
        precondition: &Precondition,
        change: impl Fn(&Schedule) -> Result<Document, ScheduleError>,
    ) -> Result<Schedule, ScheduleError> {
        for _ in 0..EDIT_ATTEMPTS {
            let current = self.find_schedule(visibility, name).await?;
            precondition.check(Some(&current))?;
            let document = change(&current)?;
            let is_new = document.rest.get() != current.document.get();
            let definition = self.judged(visibility, &document, is_new).await?;
            if is_new {
                let before = self.stored_definition(&current).ok();
                check_keys(visibility, &current, before.as_ref(), &definition)?;
            }
            let edit = self.edited(&current, document, &definition);
            if let Some(version) = self.ledger.edit_schedule(&current.id, &edit).await? {
                self.beat.nudge();
                return Ok(applied(current, edit, version));
            }
        }
        Err(ScheduleError::Changed)
    }

    fn edited(&self, current: &Schedule, document: Document, definition: &Definition) -> Edit {
        let now = clock::now();
        let before = self.stored_definition(current).ok();
        let table = &definition.timetable;
        let same_rhythm = before.as_ref().is_some_and(|before| before.timetable.rhythm == table.rhythm);
        let same_ticks = before.as_ref().is_some_and(|before| before.timetable == *table);
        let anchor_at = if same_rhythm { current.anchor_at } else { now };
        let tick = match current.next {
            _ if document.paused => None,
            Some(next) if same_ticks => Some(next.tick),
            _ => table.next(anchor_at, current.last_tick_at.map_or(now, |last| last.max(now))),
        };
        Edit {
            expected: current.version,
            seen: current.next.map(|next| next.tick),
            at: now,
            document: document.rest,
            paused: document.paused,
            anchor_at,
            next: tick.map(|tick| next_tick(&current.id, tick, definition.jitter)),
        }
    }
}

fn applied(current: Schedule, edit: Edit, version: i64) -> Schedule {
    Schedule {
        version,
        document: edit.document,
        paused: edit.paused,
        updated_at: edit.at,
        anchor_at: edit.anchor_at,
        next: edit.next,
        ..current
    }
}

/// Keys of a schedule belong to the namespace in which it was created, so a caller of another one may not write new ones.
fn check_keys(
    visibility: &Visibility,
    current: &Schedule,
    before: Option<&Definition>,
    definition: &Definition,
) -> Result<(), ScheduleError> {
    let keys = |definition: &Definition| {
        let call = &definition.submission;
        let limits = call.limits.iter().map(|limit| limit.key.clone()).collect::<Vec<_>>();
        (limits, call.unique.as_ref().map(|unique| unique.key.clone()), call.fair.as_ref().map(|fair| fair.key.clone()))
    };
    let now = keys(definition);
    let has_new = now != before.map_or_else(Default::default, keys) && now != Default::default();
    let is_foreign = visibility.namespace().is_some_and(|own| current.namespace.as_deref() != Some(own));
    if has_new && is_foreign {
        let detail = "has other keys in limits, unique or fair, and the schedule is of another namespace: create one of your own";
        return Err(ScheduleError::Invalid(vec![Invalid { pointer: String::new(), detail: detail.to_owned() }]));
    }
    Ok(())
}

fn owned(schedule: Schedule, visibility: &Visibility) -> Schedule {
    Schedule { namespace: visibility.namespace().map(str::to_owned), ..schedule }
}

/// A new row, not written yet.
pub fn new_schedule(name: &str, document: &Document, definition: &Definition, now: Time) -> Schedule {
    let id = clock::new_id().to_string();
    let tick = definition.timetable.next(now, now).filter(|_| !document.paused);
    Schedule {
        next: tick.map(|tick| next_tick(&id, tick, definition.jitter)),
        id,
        name: name.to_owned(),
        namespace: None,
        version: 1,
        document: document.rest.clone(),
        paused: document.paused,
        created_at: now,
        updated_at: now,
        anchor_at: now,
        last_tick_at: None,
        last_run_at: None,
        last_task_id: None,
        last_tasks: None,
    }
}

fn invalid(pointer: &str, detail: String) -> ScheduleError {
    ScheduleError::Invalid(vec![Invalid { pointer: pointer.to_owned(), detail }])
}

fn named(document: &Document) -> Result<String, ScheduleError> {
    let Some(name) = &document.name else { return Err(invalid("/name", "is required".to_owned())) };
    check_name(name).map_err(|detail| invalid("/name", detail))?;
    Ok(name.clone())
}

fn same_name(document: &Document, name: &str) -> Result<(), ScheduleError> {
    match &document.name {
        Some(said) if said != name => Err(invalid("/name", format!("is {name} by the path, and cannot be changed"))),
        _ => Ok(()),
    }
}
