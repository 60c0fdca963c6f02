//! Parses signatures from a document, and reports every mistake with its JSON pointer.
//!
//! A document is never accepted in part: the caller drops the value when there is any problem.

mod dag;

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::invalid::Problems;
use super::json::{self, Fields, Members};
use super::pause::{self, Pause};
use super::signature::{Expires, FIELDS, FORMS, Limits, RESERVED_HEADERS, Signature, TaskSignature};
use super::{Priority, QueueName, RetryPolicy, TaskId, TaskName};
use crate::extended;

/// Forms of steps that the gateway carries out itself, see [`pause`].
const PAUSES: [&str; 2] = ["wait", "sleep"];
/// Members that such a step may have besides its form.
const BESIDE_PAUSE: [&str; 5] = ["immutable", "task_id", "labels", "link", "link_error"];
/// The prefix of labels that the gateway sets itself.
const OWN_LABELS: &str = "taskgate.";

/// Walks through a document and collects mistakes.
pub struct Reader {
    pub problems: Problems,
    limits: Limits,
    tasks: usize,
    /// Explicit task ids and their places.
    ids: HashMap<TaskId, String>,
    /// Whether the document was accepted before, so that limits and types are not checked again.
    is_stored: bool,
    /// Members of a DAG's nodes that the reader of DAGs reads itself.
    node_extras: &'static [&'static str],
}

impl Reader {
    pub fn new(limits: Limits) -> Self {
        let problems = Problems::default();
        Self { problems, limits, tasks: 0, ids: HashMap::new(), is_stored: false, node_extras: &["after"] }
    }

    /// A reader for stored documents: their limits and types were checked when they were accepted.
    pub(crate) fn stored() -> Self {
        Self { is_stored: true, ..Self::new(Limits { depth: 1_000, tasks: usize::MAX, ..Limits::default() }) }
    }

    /// Reads a signature without any further members.
    pub fn signature(&mut self, value: &RawValue, depth: usize) -> Option<Signature> {
        if depth > self.limits.depth {
            self.problems.add(format!("is nested deeper than {} levels", self.limits.depth));
            return None;
        }
        let fields = self.problems.object(value)?;
        self.fields(&fields, &[], depth)
    }

    /// Reads a signature; the caller reads the `extra` members.
    pub fn fields(&mut self, fields: &Fields<'_>, extra: &[&str], depth: usize) -> Option<Signature> {
        if let Some(form) = PAUSES.into_iter().find(|form| fields.get(form).is_some()) {
            return self.pause(fields, form, extra, depth).map(|task| Signature::Task(Box::new(task)));
        }
        let form = FORMS.into_iter().find(|form| fields.get(form).is_some());
        let Some(form) = form else {
            return self.task(fields, extra, depth).map(|task| Signature::Task(Box::new(task)));
        };
        let known: Vec<&str> = [form].into_iter().chain(extra.iter().copied()).collect();
        self.refuse_beside(fields, form, &known);
        let value = fields.get(form)?;
        self.within(form, |reader| match form {
            "chain" => reader.chain(value, depth),
            "group" => Some(Signature::Group(reader.list(value, depth)?)),
            "dag" => reader.dag(value, depth),
            _ => {
                let fields = reader.problems.object(value)?;
                reader.problems.refuse_unknown(&fields, &["header", "body"]);
                reader.chord(&fields, depth)
            }
        })
    }

    /// The steps of a chain.
    pub fn chain(&mut self, value: &RawValue, depth: usize) -> Option<Signature> {
        if json::elements(value).is_some_and(|steps| steps.is_empty()) {
            self.problems.add("must have at least one step");
            return None;
        }
        self.list(value, depth).map(Signature::Chain)
    }

    /// `header` and `body`.
    pub fn chord(&mut self, fields: &Fields<'_>, depth: usize) -> Option<Signature> {
        let mut member = |name, read: fn(&mut Self, &RawValue, usize) -> Option<Vec<Signature>>| match fields.get(name)
        {
            Some(value) => self.within(name, |reader| read(reader, value, depth)),
            None => {
                self.problems.add_at(name, "is required");
                None
            }
        };
        let header = member("header", Self::list);
        let body = member("body", |reader, value, depth| Some(vec![reader.signature(value, depth + 1)?]));
        Some(Signature::Chord { header: header?, body: Box::new(body?.pop()?) })
    }

    /// Reads a list of signatures; unreadable ones are reported and left out.
    pub fn list(&mut self, value: &RawValue, depth: usize) -> Option<Vec<Signature>> {
        let elements = self.problems.array(value)?;
        let mut signatures = Vec::with_capacity(elements.len());
        for (index, element) in elements.into_iter().enumerate() {
            if self.tasks >= self.limits.tasks {
                self.problems.add(format!("the canvas has more than {} tasks", self.limits.tasks));
                return None;
            }
            if self.problems.is_full() {
                return None;
            }
            signatures.extend(self.within(&index.to_string(), |reader| reader.signature(element, depth + 1)));
        }
        Some(signatures)
    }

    fn within<T>(&mut self, member: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let place = self.problems.enter(member);
        let read = read(self);
        self.problems.leave(place);
        read
    }

    fn refuse_beside(&mut self, fields: &Fields<'_>, form: &str, known: &[&str]) {
        for (name, _) in fields.iter().filter(|(name, _)| !known.contains(name)) {
            if self.problems.is_full() {
                return;
            }
            if FIELDS.contains(&name) || FORMS.contains(&name) || PAUSES.contains(&name) {
                self.problems.add_at(name, format!("is not allowed beside {form}"));
            } else {
                self.problems.add_at(name, "unknown field");
            }
        }
    }

    fn task(&mut self, fields: &Fields<'_>, extra: &[&str], depth: usize) -> Option<TaskSignature> {
        self.tasks += 1;
        let known: Vec<&str> = FIELDS.iter().chain(&FORMS).chain(&PAUSES).chain(extra).copied().collect();
        self.problems.refuse_unknown(fields, &known);
        if self.problems.is_full() {
            return None;
        }
        let name = self.name(fields)?;
        if pause::is_pause(name.as_str()) {
            return self.named_pause(fields, name, depth);
        }
        if name.as_str().starts_with(pause::PREFIX) {
            self.problems
                .add_at("task", format!("is a name of taskgate's own: no task may begin with {}", pause::PREFIX));
        }
        let mut task = TaskSignature::new(name, json::written("[]".into()), json::written("{}".into()));
        self.arguments(fields, &mut task);
        self.options(fields, &mut task);
        self.times(fields, &mut task);
        self.time_limits(fields, &mut task);
        self.identity(fields, &mut task);
        self.metadata(fields, &mut task);
        self.links(fields, &mut task, depth);
        Some(task)
    }

    /// `{"wait": {…}}` or `{"sleep": seconds}`.
    fn pause(&mut self, fields: &Fields<'_>, form: &str, extra: &[&str], depth: usize) -> Option<TaskSignature> {
        self.tasks += 1;
        let known: Vec<&str> = [form].into_iter().chain(BESIDE_PAUSE).chain(extra.iter().copied()).collect();
        self.refuse_beside(fields, form, &known);
        let value = fields.get(form)?;
        let name = if form == "wait" { pause::WAIT } else { pause::SLEEP };
        let kwargs = if form == "wait" { value.to_owned() } else { pause::sleep_kwargs(value) };
        if form == "wait" {
            self.within(form, |reader| Pause::read(&mut reader.problems, name, value))?;
        } else {
            self.within(form, |reader| reader.problems.positive(value))?;
        }
        self.pause_task(fields, TaskName::parse(name).ok()?, kwargs, depth)
    }

    /// Reads the same step in the form of a stored signature: a task with the step's name.
    fn named_pause(&mut self, fields: &Fields<'_>, name: TaskName, depth: usize) -> Option<TaskSignature> {
        let ours = ["task", "kwargs", "args", "queue", "priority"];
        let refused = |member: &&str| !ours.contains(member) && !BESIDE_PAUSE.contains(member);
        for member in FIELDS.iter().filter(|member| refused(member) && fields.get(member).is_some()) {
            self.problems.add_at(member, "is not allowed for a step that waits");
        }
        if fields.get("args").is_some_and(|args| json::elements(args).is_none_or(|args| !args.is_empty())) {
            self.problems.add_at("args", "must be empty for a step that waits");
        }
        let kwargs = fields.get("kwargs").map_or_else(|| json::written("{}".into()), ToOwned::to_owned);
        self.within("kwargs", |reader| Pause::read(&mut reader.problems, name.as_str(), &kwargs))?;
        self.pause_task(fields, name, kwargs, depth)
    }

    fn pause_task(
        &mut self,
        fields: &Fields<'_>,
        name: TaskName,
        kwargs: super::Json,
        depth: usize,
    ) -> Option<TaskSignature> {
        if json::depth(kwargs.get()) > self.limits.depth {
            self.problems.add(format!("is nested deeper than {} levels", self.limits.depth));
            return None;
        }
        let mut task = TaskSignature::new(name, json::written("[]".into()), kwargs);
        task.queue = QueueName::stored(pause::QUEUE).ok();
        task.priority = Some(Priority::clamped(0));
        // The next step needs the result of this one.
        task.ignore_result = Some(false);
        task.immutable =
            self.member(fields, "immutable", |reader, value| reader.problems.boolean(value)).unwrap_or(false);
        self.identity(fields, &mut task);
        self.metadata(fields, &mut task);
        self.links(fields, &mut task, depth);
        Some(task)
    }

    fn links(&mut self, fields: &Fields<'_>, task: &mut TaskSignature, depth: usize) {
        task.link = self.member(fields, "link", |reader, value| reader.list(value, depth)).unwrap_or_default();
        task.link_error =
            self.member(fields, "link_error", |reader, value| reader.errbacks(value, depth)).unwrap_or_default();
    }

    fn name(&mut self, fields: &Fields<'_>) -> Option<TaskName> {
        if fields.get("task").is_none() {
            self.problems.add_at("task", "is required (or one of chain, group, chord, dag, wait, sleep)");
        }
        self.member(fields, "task", |reader, value| reader.problems.parsed(value, TaskName::parse))
    }

    fn arguments(&mut self, fields: &Fields<'_>, task: &mut TaskSignature) {
        let (depth, types, is_stored) = (self.limits.depth, self.limits.json_types, self.is_stored);
        let mut nested = |name, bracket, expected: &str| {
            self.member(fields, name, |reader, value| {
                if !value.get().starts_with(bracket) {
                    reader.problems.add(format!("must be {expected}"));
                    return None;
                }
                if json::depth(value.get()) > depth {
                    reader.problems.add(format!("is nested deeper than {depth} levels"));
                    return None;
                }
                if !is_stored && let Some(refused) = extended::refused(value.get(), types) {
                    reader.problems.add_below(&refused.pointer, refused.why);
                    return None;
                }
                Some(value.to_owned())
            })
        };
        if let Some(args) = nested("args", '[', "an array") {
            task.args = args;
        }
        if let Some(kwargs) = nested("kwargs", '{', "an object") {
            task.kwargs = kwargs;
        }
    }

    fn options(&mut self, fields: &Fields<'_>, task: &mut TaskSignature) {
        task.queue = self.member(fields, "queue", |reader, value| reader.problems.parsed(value, QueueName::parse));
        task.priority = self.member(fields, "priority", |reader, value| {
            let priority = reader.problems.integer(value, 0..=9)?;
            Some(Priority::clamped(priority))
        });
        task.ignore_result = self.member(fields, "ignore_result", |reader, value| reader.problems.boolean(value));
        task.immutable =
            self.member(fields, "immutable", |reader, value| reader.problems.boolean(value)).unwrap_or(false);
        task.retry = self.member(fields, "retry", |reader, value| RetryPolicy::read(&mut reader.problems, value));
    }

    fn times(&mut self, fields: &Fields<'_>, task: &mut TaskSignature) {
        task.countdown = self.member(fields, "countdown", |reader, value| reader.problems.number(value, 0.0));
        task.eta = self.member(fields, "eta", |reader, value| reader.problems.parsed(value, |text| instant(&text)));
        task.expires = self.member(fields, "expires", |reader, value| match value.get().starts_with('"') {
            true => reader.problems.parsed(value, |text| instant(&text)).map(Expires::At),
            false => reader.problems.positive(value).map(Expires::After),
        });
        if fields.get("countdown").is_some() && fields.get("eta").is_some() {
            self.problems.add_at("countdown", "cannot stand together with eta");
        }
    }

    fn time_limits(&mut self, fields: &Fields<'_>, task: &mut TaskSignature) {
        let mut limit = |name| self.member(fields, name, |reader, value| reader.problems.positive(value));
        (task.soft_time_limit, task.time_limit) = (limit("soft_time_limit"), limit("time_limit"));
        if let (Some(soft), Some(hard)) = (task.soft_time_limit, task.time_limit)
            && soft > hard
        {
            self.problems.add_at("soft_time_limit", "must not be greater than time_limit");
        }
    }

    fn identity(&mut self, fields: &Fields<'_>, task: &mut TaskSignature) {
        task.task_id = self.member(fields, "task_id", |reader, value| {
            let id = reader.problems.parsed(value, TaskId::parse_uuid)?;
            let here = reader.problems.pointer().to_owned();
            if let Some(first) = reader.ids.insert(id.clone(), here) {
                reader.problems.add(format!("is the same as {first}; every task needs its own"));
            }
            Some(id)
        });
    }

    fn metadata(&mut self, fields: &Fields<'_>, task: &mut TaskSignature) {
        task.labels = self
            .member(fields, "labels", |reader, value| read_labels(&mut reader.problems, value, reader.is_stored))
            .unwrap_or_default();
        task.headers = self.member(fields, "headers", Self::headers).unwrap_or_default();
    }

    fn headers(&mut self, value: &RawValue) -> Option<Members> {
        if json::depth(value.get()) > self.limits.depth {
            self.problems.add(format!("is nested deeper than {} levels", self.limits.depth));
            return None;
        }
        let fields = self.problems.object(value)?;
        for (name, _) in fields.iter().filter(|(name, _)| RESERVED_HEADERS.contains(name)) {
            self.problems.add_at(name, "is one of Celery's own headers");
        }
        Some(fields.members(|_| true))
    }

    /// Reads errbacks. Workers pass an errback the failed task's id, which only a plain task accepts.
    fn errbacks(&mut self, value: &RawValue, depth: usize) -> Option<Vec<Signature>> {
        let errbacks = self.list(value, depth)?;
        for (index, errback) in errbacks.iter().enumerate() {
            if !matches!(errback, Signature::Task(_)) {
                self.problems.add_at(&index.to_string(), "must be a plain task");
            }
        }
        Some(errbacks)
    }

    fn member<T>(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        read: impl FnOnce(&mut Self, &RawValue) -> Option<T>,
    ) -> Option<T> {
        let value = fields.get(name)?;
        self.within(name, |reader| read(reader, value))
    }
}

/// Reads labels, by which people find their tasks: at most 50, with names of at most 100 characters without colon and values of at most 500.
/// Names that begin with `taskgate.` are the gateway's own.
pub fn labels(problems: &mut Problems, value: &RawValue) -> Option<Vec<(String, String)>> {
    read_labels(problems, value, false)
}

fn read_labels(problems: &mut Problems, value: &RawValue, is_stored: bool) -> Option<Vec<(String, String)>> {
    let fields = problems.object(value)?;
    if fields.iter().count() > 50 {
        problems.add("has more than 50 labels");
        return None;
    }
    let mut labels: Vec<(String, String)> = Vec::new();
    for (name, value) in fields.iter() {
        let label = problems.within(name, |problems| {
            if name.is_empty() || name.contains(':') || name.chars().count() > 100 {
                problems.add("a label's name has 1 to 100 characters and no colon");
            }
            if !is_stored && name.starts_with(OWN_LABELS) {
                problems.add("labels that begin with taskgate. are the gateway's own: use another name");
            }
            let text = problems.text(value)?;
            if text.chars().count() > 500 {
                problems.add("has more than 500 characters");
            }
            Some(text)
        });
        labels.retain(|(known, _)| known != name);
        labels.extend(label.map(|label| (name.to_owned(), label)));
    }
    Some(labels)
}

/// Parses an RFC 3339 time with a zone.
fn instant(text: &str) -> Result<Timestamp, &'static str> {
    text.parse().map_err(|_| match text.parse::<jiff::civil::DateTime>() {
        Ok(_) => "needs a time zone, as 2026-01-31T12:00:00Z",
        Err(_) => "must be a time as 2026-01-31T12:00:00Z",
    })
}
