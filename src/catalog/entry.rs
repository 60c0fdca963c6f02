//! A compiled catalog entry: every mistake in it is found at start.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::annotations::Annotations;
use super::body::Body;
use super::canvas::Canvas;
use super::endpoint::{Endpoint, Method};
use super::failure;
use super::links::LinkTemplates;
use super::process::Process;
use super::recovery::Recovery;
use super::response::Response;
use super::split::Split;
use super::stream::Stream;
use super::template::{Template, parts};
use super::upload::Upload;
use super::wishes::{self, CatalogHook, FairTemplate, LimitTemplate, UniqueTemplate};
use crate::config::{Error, LEAST_DELIVERIES, ONE_DELIVERY, RawTask};
use celery::spelling::nearest;
use celery::task::limit::{Fair, KeyLimit, OnLimit, number_and_unit};
use celery::task::{Priority, QueueName, TaskName};

/// Defaults for submissions of a task.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// `None` also when the entry computes the queue from a request.
    pub queue: Option<QueueName>,
    pub priority: Option<Priority>,
    /// Seconds.
    pub soft_time_limit: Option<f64>,
    /// Seconds.
    pub time_limit: Option<f64>,
    /// Seconds after submission.
    pub expires: Option<f64>,
    /// For the whole fleet, as `100/m`.
    pub rate_limit: Option<RateLimit>,
    pub ignore_result: Option<bool>,
    pub recovery: Option<Recovery>,
    /// How often its message may be delivered.
    pub max_deliveries: Option<u32>,
    /// Names of fields that are masked wherever they are shown.
    pub redact: Vec<String>,
    /// Seconds a run may take before it is reported as an incident.
    pub budget: Option<f64>,
    pub retry: Option<Value>,
    /// The signature that is submitted after a failure.
    pub on_failure: Option<Value>,
    pub webhooks: Arc<[CatalogHook]>,
    /// Limits whose keys do not depend on a request.
    pub limits: Vec<KeyLimit>,
    /// The fair share, if its key does not depend on a request.
    pub fair: Option<Fair>,
    pub idempotent: bool,
}

/// A rate in Celery's notation.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// As written: it is broadcast to workers.
    pub text: String,
    pub per_second: f64,
}

impl RateLimit {
    /// # Errors
    /// When the text is not `N`, `N/s`, `N/m` or `N/h`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not a rate: write 10/s, 100/m or 1000/h");
        // Celery has no rate per day.
        let known = number_and_unit(text).filter(|(_, seconds)| *seconds <= 3_600.0);
        let (number, seconds) = known.ok_or_else(refused)?;
        if !number.is_finite() || !(1e-6..=1e9).contains(&number) {
            return Err(refused());
        }
        Ok(Self { text: text.to_owned(), per_second: number / seconds })
    }
}

/// An entry of the catalog.
#[derive(Debug)]
pub struct Entry {
    /// `tasks[2] (tasks.add)`: its place in the configuration, for messages.
    pub place: String,
    pub name: TaskName,
    pub summary: Option<String>,
    pub description: Option<String>,
    pub endpoint: Option<Endpoint>,
    pub(super) args: Vec<Template>,
    pub(super) kwargs: Vec<(String, Template)>,
    pub(super) queue: Option<Template>,
    pub(super) message: Option<Template>,
    pub(super) limits: Vec<LimitTemplate>,
    pub(super) fair: Option<FairTemplate>,
    pub(super) labels: Vec<(String, Template)>,
    pub(super) unique: Option<UniqueTemplate>,
    pub(super) response: Option<Response>,
    pub(super) links: LinkTemplates,
    /// The file that its endpoint takes.
    pub upload: Option<Upload>,
    /// Above so many bytes an argument or a result goes into a store.
    pub offload: Option<u64>,
    /// The canvas that a call starts instead of a single task.
    pub canvas: Option<Canvas>,
    /// The path at which its tasks are followed by their labels.
    pub stream: Option<Stream>,
    /// By parameter: the client's value → the worker's value (JSON text).
    pub values: BTreeMap<String, BTreeMap<String, String>>,
    pub body: Option<Body>,
    /// Types of kombu's extended JSON that the workers know besides kombu's own.
    pub(super) json_types: &'static [&'static str],
    pub defaults: Defaults,
    /// Whether a call by name may break the entry's rules.
    pub open: bool,
    /// Whether a task that no worker could run now is refused.
    pub strict: bool,
    /// The executable that the Rust worker runs for the task.
    pub command: Vec<String>,
    /// How that executable runs.
    pub process: Process,
    /// Whether the Rust worker runs it in a child process.
    pub child: bool,
    /// How one call becomes many.
    pub split: Option<Split>,
    /// `args` and `kwargs` as written, which a fan-out stores.
    pub(super) written: (Vec<Value>, BTreeMap<String, Value>),
}

impl Entry {
    pub(super) fn compile(index: usize, raw: RawTask) -> Result<Self, Error> {
        let place = format!("tasks[{index}] ({})", raw.name.0);
        let name =
            TaskName::parse(&raw.name.0).map_err(|error| Error::value(format!("{place}.name"), error.to_string()))?;
        refuse_beside_canvas(&place, &raw)?;
        let mut defaults = defaults(&place, &raw)?;
        let (limits, fair) = keys(&place, &raw)?;
        let fixed = limits.iter().filter(|limit| limit.key.names().is_empty());
        defaults.limits = fixed.map(|limit| limit.with(limit.key.fill_text(&|_| String::new()))).collect();
        let fixed = fair.as_ref().filter(|fair| fair.key.names().is_empty());
        defaults.fair = fixed.map(|fair| fair.with(fair.key.fill_text(&|_| String::new())));
        let endpoint = raw.endpoint.as_ref().map(|text| Endpoint::parse(&text.0, Method::Post)).transpose();
        let endpoint = endpoint.map_err(|message| Error::value(format!("{place}.endpoint"), message))?;
        let labels = part(&place, "labels", raw.labels.as_ref(), wishes::labels)?.unwrap_or_default();
        let params = endpoint.as_ref().map_or(&[][..], |endpoint| &endpoint.params);
        let max_items: Vec<(String, u64)> =
            raw.max_items.iter().map(|(field, count)| (field.clone(), count.0)).collect();
        if raw.body.is_none() && !max_items.is_empty() {
            return Err(Error::pair(
                format!("{place}.max_items"),
                format!("{place}.body"),
                "no field is declared that could be limited",
            ));
        }
        let body = raw.body.map(|schema| Body::compile(schema, &max_items, !defaults.redact.is_empty())).transpose();
        let template = |key: &str, value: &Value| {
            Template::parse(value).map_err(|error| Error::value(format!("{place}.{key}"), error.to_string()))
        };
        let text = |key: &str, text: &str| template(key, &Value::String(text.to_owned()));
        let entry = Self {
            unique: part(&place, "unique", raw.unique.as_ref(), wishes::unique_template)?,
            response: part(&place, "response", raw.response.as_ref(), |value| Response::compile(value, params))?,
            stream: part(&place, "stream", raw.stream.as_ref(), |text| Stream::compile(&text.0, &labels))?,
            upload: part(&place, "upload", raw.upload.as_ref(), Upload::compile)?,
            offload: raw.offload.map(|bytes| bytes.0 as u64),
            canvas: part(&place, "canvas", raw.canvas.as_ref(), Canvas::compile)?,
            links: LinkTemplates::compile(&place, &raw.link, &raw.link_error)?,
            labels,
            endpoint,
            args: raw.args.iter().map(|value| template("args", value)).collect::<Result<_, _>>()?,
            kwargs: raw
                .kwargs
                .iter()
                .map(|(key, value)| Ok((key.clone(), template("kwargs", value)?)))
                .collect::<Result<_, Error>>()?,
            queue: raw.queue.as_ref().map(|queue| text("queue", &queue.0)).transpose()?,
            json_types: &[],
            limits,
            fair,
            message: raw.message.as_ref().map(|message| text("message", &message.0)).transpose()?,
            values: raw.values.into_iter().map(|(name, map)| (name, words(map))).collect(),
            body: body.map_err(|message| Error::value(format!("{place}.body"), message))?,
            summary: raw.summary.map(|text| text.0),
            description: raw.description.map(|text| text.0),
            open: raw.open.is_some_and(|switch| switch.0),
            strict: raw.strict.is_some_and(|switch| switch.0),
            process: Process::compile(raw.process, &place, raw.command.is_some())?,
            command: raw.command.unwrap_or_default().0,
            child: raw.child.is_some_and(|switch| switch.0),
            split: raw
                .split
                .as_ref()
                .map(|split| Split::compile(split).map_err(|error| Error::value(format!("{place}.split"), error)))
                .transpose()?,
            written: (raw.args, raw.kwargs),
            name,
            defaults,
            place,
        };
        entry.checked()
    }

    fn checked(self) -> Result<Self, Error> {
        let known = self.names();
        for (key, name) in self.uses() {
            if !known.contains(&name) {
                let hint = nearest(name, known.iter().copied())
                    .map_or_else(String::new, |near| format!("; did you mean {near}?"));
                let harm = format!("{{{name}}} is neither a path parameter nor a field of the body{hint}");
                return Err(Error::pair(format!("{}.{key}", self.place), format!("{}.endpoint", self.place), harm));
            }
        }
        self.check_pairs(&known)?;
        let fields = self.body.as_ref().map_or(&[][..], |body| body.fields.as_slice());
        let of_canvas = self.canvas.iter().flat_map(Canvas::split_names);
        for name in self.split.iter().flat_map(Split::names).chain(of_canvas) {
            if !fields.iter().any(|field| field == name) {
                let harm = format!("the split reads {name}, which is no field of the body");
                return Err(Error::pair(format!("{}.split", self.place), format!("{}.body", self.place), harm));
            }
        }
        if let (Some(endpoint), Some(body)) = (&self.endpoint, &self.body)
            && let Some(twice) = endpoint.params.iter().find(|param| body.fields.contains(param))
        {
            let harm = format!("{twice} stands in both, and a template could mean either");
            return Err(Error::pair(format!("{}.endpoint", self.place), format!("{}.body", self.place), harm));
        }
        Ok(self)
    }

    /// Whether all tasks of a call are allowed: its own, or the steps of its canvas.
    pub fn calls_only(&self, is_allowed: &dyn Fn(&str) -> bool) -> bool {
        match &self.canvas {
            Some(canvas) => canvas.tasks().into_iter().all(is_allowed),
            None => is_allowed(self.name.as_str()),
        }
    }

    /// The entry's own fields of the answer, with their schemas.
    pub fn response_fields(&self) -> Vec<(&str, Value)> {
        self.response.as_ref().map(Response::schemas).unwrap_or_default()
    }

    /// Whether a template names the address of the file.
    pub fn wants_address(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| self.uses().any(|(_, name)| name == upload.url_name()))
    }

    /// Whether its tasks have a unique key.
    pub fn is_unique(&self) -> bool {
        self.unique.is_some()
    }

    /// Whether a call by name needs values computed from its arguments.
    pub fn computes(&self) -> bool {
        self.computes_keys() || !self.labels.is_empty() || self.is_unique() || self.has_links()
    }

    /// How the worker's signature does not fit the calls that this entry makes.
    pub fn misfits(&self, told: &Annotations) -> Vec<String> {
        let mut found = self.body.as_ref().map_or_else(Vec::new, |body| told.against(&body.schema));
        if self.canvas.is_none() && self.command.is_empty() && self.declares_arguments() {
            let names: Vec<&str> = self.kwargs.iter().map(|(name, _)| name.as_str()).collect();
            found.extend(told.against_call(self.args.len(), &names));
        }
        found
    }

    /// Whether some argument contains this name.
    pub(super) fn tells(&self, name: &str) -> bool {
        let templates = self.args.iter().chain(self.kwargs.iter().map(|(_, template)| template));
        templates.flat_map(Template::names).any(|used| used == name)
    }

    /// Whether its queue depends on the request.
    pub fn computes_queue(&self) -> bool {
        self.queue.is_some() && self.defaults.queue.is_none()
    }

    /// Whether a key of its limits or its share depends on the request.
    pub fn computes_keys(&self) -> bool {
        self.limits.len() > self.defaults.limits.len() || self.fair.is_some() != self.defaults.fair.is_some()
    }

    /// Names that templates use, with the key of each.
    fn uses(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let used = [("queue", &self.queue), ("message", &self.message)].into_iter();
        let used =
            used.flat_map(|(key, template)| template.iter().flat_map(|t| t.names()).map(move |name| (key, name)));
        let used = used.chain(self.args.iter().flat_map(Template::names).map(|name| ("args", name)));
        let used = used.chain(self.kwargs.iter().flat_map(|(_, t)| t.names()).map(|name| ("kwargs", name)));
        let used = used.chain(self.limits.iter().flat_map(|limit| limit.key.names()).map(|name| ("limits", name)));
        let used = used.chain(self.fair.iter().flat_map(|fair| fair.key.names()).map(|name| ("fair", name)));
        let used = used.chain(self.labels.iter().flat_map(|(_, label)| label.names()).map(|name| ("labels", name)));
        let used = used.chain(self.unique.iter().flat_map(|unique| unique.key.names()).map(|name| ("unique", name)));
        let used = used.chain(self.response.iter().flat_map(Response::names).map(|name| ("response", name)));
        let used = used.chain(self.canvas.iter().flat_map(Canvas::names).map(|name| ("canvas", name)));
        let used = used.chain(self.links.names().map(|name| ("link", name)));
        used.chain(self.values.keys().map(|name| ("values", name.as_str())))
    }

    /// Names that templates may use.
    fn names(&self) -> Vec<&str> {
        let params = self.endpoint.iter().flat_map(|endpoint| &endpoint.params);
        let fields = self.body.iter().flat_map(|body| &body.fields);
        let of_file = self.upload.iter().flat_map(|upload| &upload.names);
        params.chain(fields).chain(of_file).map(String::as_str).collect()
    }
}

/// Refuses keys beside `canvas` that belong to its steps: they go into a step's signature or into an entry of its task.
fn refuse_beside_canvas(place: &str, raw: &RawTask) -> Result<(), Error> {
    if raw.canvas.is_none() {
        return Ok(());
    }
    let said = [
        ("args", !raw.args.is_empty()),
        ("kwargs", !raw.kwargs.is_empty()),
        ("queue", raw.queue.is_some()),
        ("priority", raw.priority.is_some()),
        ("soft_time_limit", raw.soft_time_limit.is_some()),
        ("time_limit", raw.time_limit.is_some()),
        ("rate_limit", raw.rate_limit.is_some()),
        ("expires", raw.expires.is_some()),
        ("ignore_result", raw.ignore_result.is_some()),
        ("retry", raw.retry.is_some()),
        ("split", raw.split.is_some()),
        ("link", !raw.link.is_empty() || !raw.link_error.is_empty()),
        ("webhooks", raw.webhooks.is_some()),
        ("command", raw.command.is_some()),
        ("child", raw.child.is_some()),
        ("offload", raw.offload.is_some()),
    ];
    match said.iter().find(|(_, said)| *said) {
        Some((key, _)) => {
            let harm = format!("{key} belongs to a step: say it in its signature, or in an entry of its task");
            Err(Error::pair(format!("{place}.canvas"), format!("{place}.{key}"), harm))
        }
        None => Ok(()),
    }
}

/// Parses a part of an entry.
fn part<T, P>(
    place: &str,
    key: &str,
    raw: Option<&T>,
    compile: impl FnOnce(&T) -> Result<P, String>,
) -> Result<Option<P>, Error> {
    raw.map(compile).transpose().map_err(|message| Error::value(format!("{place}.{key}"), message))
}

/// The worker's values as JSON text.
fn words(map: BTreeMap<String, Value>) -> BTreeMap<String, String> {
    map.into_iter().map(|(word, value)| (word, value.to_string())).collect()
}

fn defaults(place: &str, raw: &RawTask) -> Result<Defaults, Error> {
    let at = |key: &str| format!("{place}.{key}");
    let priority = raw.priority.map(|count| {
        u8::try_from(count.0).ok().and_then(Priority::new).ok_or_else(|| Error::value(at("priority"), "must be 0 to 9"))
    });
    let rate_limit = raw
        .rate_limit
        .as_ref()
        .map(|text| RateLimit::parse(&text.0).map_err(|message| Error::value(at("rate_limit"), message)));
    let recovery = raw.recovery.as_ref().map(|text| match text.0.as_str() {
        "rerun" => Ok(Recovery::Rerun),
        "report" => Ok(Recovery::Report),
        other => Err(Error::value(at("recovery"), format!("{other:?} is neither rerun nor report"))),
    });
    let webhooks = raw.webhooks.as_ref().map(wishes::hooks);
    let soft_time_limit = raw.soft_time_limit.map(|span| span.0.as_secs_f64());
    let time_limit = raw.time_limit.map(|span| span.0.as_secs_f64());
    if let (Some(soft), Some(hard)) = (soft_time_limit, time_limit)
        && soft >= hard
    {
        return Err(Error::pair(at("soft_time_limit"), at("time_limit"), "the soft limit would never be reached"));
    }
    Ok(Defaults {
        queue: fixed_queue(place, raw)?,
        priority: priority.transpose()?,
        soft_time_limit,
        time_limit,
        expires: raw.expires.map(|span| span.0.as_secs_f64()),
        rate_limit: rate_limit.transpose()?,
        ignore_result: raw.ignore_result.map(|switch| switch.0),
        recovery: recovery.transpose()?,
        max_deliveries: max_deliveries(place, raw)?,
        redact: raw.redact.clone().unwrap_or_default().0,
        budget: raw.budget.map(|span| span.0.as_secs_f64()),
        retry: raw.retry.clone(),
        on_failure: part(place, "on_failure", raw.on_failure.as_ref(), failure::compile)?,
        webhooks: webhooks
            .transpose()
            .map_err(|message| Error::value(at("webhooks"), message))?
            .unwrap_or_default()
            .into(),
        limits: Vec::new(),
        fair: None,
        idempotent: raw.idempotent.is_some_and(|switch| switch.0),
    })
}

/// Parses limits and fair share.
fn keys(place: &str, raw: &RawTask) -> Result<(Vec<LimitTemplate>, Option<FairTemplate>), Error> {
    let at = |key: &str| format!("{place}.{key}");
    let usual = raw.on_limit.as_ref().map(|word| OnLimit::parse(&word.0)).transpose();
    let usual = usual.map_err(|message| Error::value(at("on_limit"), message))?;
    if usual.is_some() && raw.limits.is_none() {
        return Err(Error::pair(at("on_limit"), at("limits"), "there is no limit that a task could meet"));
    }
    let limits = raw.limits.as_ref().map(|limits| wishes::limits(limits, usual.unwrap_or_default())).transpose();
    let limits = limits.map_err(|message| Error::value(at("limits"), message))?.unwrap_or_default();
    let fair = raw.fair.as_ref().map(wishes::share).transpose();
    Ok((limits, fair.map_err(|message| Error::value(at("fair"), message))?))
}

/// The queue, if it does not depend on a request.
fn fixed_queue(place: &str, raw: &RawTask) -> Result<Option<QueueName>, Error> {
    let Some(text) = &raw.queue else { return Ok(None) };
    if parts(&text.0).is_ok_and(|parts| parts.iter().any(|part| matches!(part, super::template::Part::Name(_)))) {
        return Ok(None);
    }
    QueueName::parse(&text.0).map(Some).map_err(|error| Error::value(format!("{place}.queue"), error.to_string()))
}

fn max_deliveries(place: &str, raw: &RawTask) -> Result<Option<u32>, Error> {
    let Some(count) = raw.max_deliveries.as_ref() else { return Ok(None) };
    match u32::try_from(count.0) {
        Ok(count) if count >= LEAST_DELIVERIES => Ok(Some(count)),
        _ => Err(Error::value(format!("{place}.max_deliveries"), ONE_DELIVERY)),
    }
}
