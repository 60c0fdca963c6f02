//! The catalog: tasks declared in the configuration, compiled at start.
//!
//! A declared task gets a typed endpoint, validation, defaults and its own operation in OpenAPI, without code. A conflict (two
//! equal endpoints, a reserved path, an unknown name in a template) prevents the start and names both places; after the start only
//! requests can fail.

mod annotations;
mod body;
mod by_name;
mod call;
mod canvas;
mod endpoint;
mod entry;
mod failure;
mod hooks;
mod links;
mod pairs;
mod parameters;
mod pattern;
mod priorities;
mod process;
mod recovery;
mod response;
mod routing;
mod signed;
mod split;
mod stream;
mod upload;
mod wishes;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use annotations::{ATTRIBUTES, Annotations};
pub use body::Body;
pub use by_name::{Admitted, NamedCall};
pub use canvas::Canvas;
pub use endpoint::{ANSWER_FIELDS, Endpoint, Method, RESERVED};
pub use entry::{Defaults, Entry, RateLimit};
pub use failure::{FailedTask, telling};
pub use hooks::{Hook, Source, inside};
pub use pattern::Pattern;
pub use process::{OptionWords, Process};
pub use recovery::Recovery;
pub use response::AnswerFields;
pub use signed::{Event as SignedEvent, Scheme, digest};
pub use split::{Chunk, Damaged, FanOut, MAX_CHUNKS};
pub use stream::Stream;
pub use upload::{FileFacts, HEAD as FILE_HEAD, Upload};
pub use wishes::CatalogHook;

use crate::config::{Config, Error};
use celery::task::limit::{Fair, KeyLimit};
use celery::task::submission::Unique;
use celery::task::{Json, QueueName, Signature, Spread};
use celery::template;
use links::Links;
use priorities::TopPriorities;
use routing::Routing;

/// Default `budget` in seconds.
const USUAL_BUDGET: f64 = 300.0;

/// A resolved request: what the worker will get.
#[derive(Debug, Clone)]
pub struct Call {
    /// A JSON array.
    pub args: Json,
    /// A JSON object.
    pub kwargs: Json,
    /// The queue, if the entry names one.
    pub queue: Option<QueueName>,
    /// The message of the answer, with the client's values.
    pub message: Option<String>,
    /// Limits by key.
    pub limits: Vec<KeyLimit>,
    /// The tenant, for fair sharing of a queue.
    pub fair: Option<Fair>,
    pub labels: Vec<(String, String)>,
    pub unique: Option<Unique>,
    /// Tasks that run after its success and after its failure.
    pub links: Links,
    /// The canvas, if the call is not a single task; then `args`, `kwargs` and `queue` have no meaning.
    pub canvas: Option<Signature>,
    /// The entry's own fields of the answer.
    pub answer: Option<AnswerFields>,
    /// Path parameters as the client sent them, repeated in the answer.
    pub echo: Vec<(String, String)>,
    /// The fan-out, if the call becomes many tasks; then `args` and `kwargs` have no meaning.
    pub fan_out: Option<FanOut>,
}

/// A mistake at one place of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// JSON Pointer into the body; empty for the whole.
    pub pointer: String,
    pub detail: String,
}

impl Invalid {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("{value:?} is not a known {parameter}: {}", known.join(", "))]
    UnknownValue { parameter: String, value: String, known: Vec<String> },
    #[error("the request does not fit")]
    Invalid(Vec<Invalid>),
}

impl ResolveError {
    fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Invalid::new(pointer, detail)])
    }
}

/// All entries, the allow-list and the routes.
#[derive(Debug)]
pub struct Catalog {
    entries: Vec<Arc<Entry>>,
    by_name: HashMap<String, Vec<usize>>,
    allow: Vec<Pattern>,
    routing: Routing,
    hooks: Vec<Arc<Hook>>,
    /// Paths of entries that take a file.
    uploads: HashSet<String>,
    top_priorities: TopPriorities,
    has: Has,
}

/// Features that at least one entry uses. Computed once, because every submission needs them.
#[derive(Debug, Clone, Copy)]
struct Has {
    links: bool,
    unique: bool,
    strict: bool,
}

impl Has {
    fn of(entries: &[Arc<Entry>]) -> Self {
        let any = |has: fn(&Entry) -> bool| entries.iter().any(|entry| has(entry));
        Self { links: any(Entry::has_links), unique: any(Entry::is_unique), strict: any(|entry| entry.strict) }
    }
}

/// Fills all names of a template with `json`, if the value is a template: for `crate::fuzz_entry`.
#[cfg(feature = "dev")]
pub(crate) fn filled(value: &serde_json::Value, json: &str) -> Option<String> {
    let template = template::Template::parse(value).ok()?;
    let mut out = String::new();
    template.fill(&|_| json.to_owned(), &mut out);
    let _ = (template.names(), template.fill_text(&|_| json.to_owned()));
    Some(out)
}

impl Catalog {
    /// # Errors
    /// The first entry that is invalid or conflicts with another one.
    pub fn compile(config: &Config) -> Result<Self, Error> {
        let compiled = config.tasks.iter().enumerate().map(|(index, raw)| {
            let entry = Entry::compile(index, raw.clone())?;
            Ok(Arc::new(Entry { json_types: config.limits.json_types, ..entry }))
        });
        let entries = compiled.collect::<Result<Vec<_>, Error>>()?;
        refuse_alike(&entries)?;
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        // The name of a canvas is not the name of a task.
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.canvas.is_none()) {
            by_name.entry(entry.name.as_str().to_owned()).or_default().push(index);
        }
        let hooks = Hook::compile_all(&config.hooks, &entries)?.into_iter().map(Arc::new).collect();
        let takes_file = entries.iter().filter(|entry| entry.upload.is_some());
        let uploads = takes_file.filter_map(|entry| Some(entry.endpoint.as_ref()?.path.clone())).collect();
        let catalog = Self {
            has: Has::of(&entries),
            entries,
            uploads,
            by_name,
            allow: config.submit.allow.iter().map(Pattern::new).collect(),
            routing: Routing::compile(config)?,
            hooks,
            top_priorities: TopPriorities::of(config),
        };
        catalog.check_canvases()?;
        catalog.check_priorities()?;
        catalog.entries.iter().try_for_each(|entry| entry.check_store(config))?;
        match catalog.queues().iter().find_map(|queue| Some((queue, config.broker.transport.refuses(queue.as_str())?)))
        {
            Some((queue, why)) => Err(Error::value(format!("queue {queue}"), why)),
            None => Ok(catalog),
        }
    }

    /// Refuses canvases with a step whose entry has a unique key: such a task must be submitted alone.
    fn check_canvases(&self) -> Result<(), Error> {
        for entry in &self.entries {
            let steps = entry.canvas.iter().flat_map(Canvas::tasks).filter_map(|name| self.entry(name));
            if let Some(step) = steps.into_iter().find(|step| step.is_unique()) {
                let harm = "the step has a unique key, so it must stand alone";
                return Err(Error::pair(format!("{}.canvas", entry.place), format!("{}.unique", step.place), harm));
            }
        }
        Ok(())
    }

    /// Above so many bytes an argument or a result of the task goes into a store.
    pub fn offload(&self, name: &str) -> Option<u64> {
        self.entries_of(name).find_map(|entry| entry.offload)
    }

    /// Whether a route takes a file.
    pub fn takes_file(&self, route: &str) -> bool {
        self.uploads.contains(route)
    }

    /// Whether some entry has links.
    pub fn has_links(&self) -> bool {
        self.has.links
    }

    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// The compiled `[[hooks]]` entries.
    pub fn hooks(&self) -> &[Arc<Hook>] {
        &self.hooks
    }

    /// The first entry of this name: its defaults apply to submissions by name.
    pub fn entry(&self, name: &str) -> Option<&Arc<Entry>> {
        self.by_name.get(name).and_then(|all| all.first()).map(|index| &self.entries[*index])
    }

    /// Whether tasks of some entry have a unique key.
    pub fn has_unique(&self) -> bool {
        self.has.unique
    }

    /// Whether an entry refuses tasks that no worker would run now.
    pub fn has_strict(&self) -> bool {
        self.has.strict
    }

    /// Seconds that a task of this name may run before it is reported as an incident.
    pub fn budget(&self, name: &str) -> Option<f64> {
        self.entry(name).map(|entry| entry.defaults.budget.unwrap_or(USUAL_BUDGET))
    }

    /// All entries of this name.
    pub fn entries_of(&self, name: &str) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_name.get(name).into_iter().flatten().map(|index| &self.entries[*index])
    }

    /// Whether a submission may name this task.
    pub fn permits(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.allow.iter().any(|pattern| pattern.matches(name))
    }

    /// Names of the catalog, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The queue of a task whose call names none: from its entry, the routes, or the default.
    pub fn queue_for(&self, name: &str) -> QueueName {
        let declared = self.entry(name).and_then(|entry| entry.defaults.queue.as_ref());
        let routed = || self.routing.of(name).map(|destination| &destination.queue);
        declared.or_else(routed).unwrap_or(self.routing.default_queue()).clone()
    }

    /// Where an exchange routes a task, if not just to one queue. `queue` is the task's queue; `said`: the call named it.
    pub fn spread_for(&self, name: &str, queue: &QueueName, said: bool) -> Option<&Spread> {
        let declared = said || self.entry(name).is_some_and(|entry| entry.defaults.queue.is_some());
        let routed = self.routing.of(name).filter(|destination| !declared && destination.queue == *queue);
        match routed {
            Some(destination) if destination.spread.is_some() => destination.spread.as_ref(),
            _ => self.routing.spread_of(queue),
        }
    }

    /// Queues of entries with `fair`, if the queue does not depend on a request.
    pub fn shared_queues(&self) -> Vec<String> {
        let shared = self.entries.iter().filter(|entry| entry.fair.is_some() && !entry.computes_queue());
        shared.map(|entry| self.queue_for(entry.name.as_str()).as_str().to_owned()).collect()
    }

    /// Whether tasks of this name have a limit.
    pub fn is_limited(&self, name: &str) -> bool {
        let limited = |entry: &Arc<Entry>| entry.defaults.rate_limit.is_some() || !entry.limits.is_empty();
        self.entry(name).is_some_and(limited)
    }

    /// The shortest interval between two publications, for tasks with a rate limit.
    pub fn paces(&self) -> HashMap<String, Duration> {
        let pace = |name: &String| {
            let rate = self.entry(name)?.defaults.rate_limit.as_ref()?;
            Some((name.clone(), Duration::from_secs_f64(1.0 / rate.per_second)))
        };
        self.by_name.keys().filter_map(pace).collect()
    }

    /// The defaults for a task, including its queue.
    pub fn defaults_for(&self, name: &str) -> Defaults {
        let declared = self.entry(name).map(|entry| entry.defaults.clone()).unwrap_or_default();
        Defaults { queue: Some(self.queue_for(name)), ..declared }
    }

    /// All queues that are named by catalog, routes and default, sorted.
    pub fn queues(&self) -> Vec<QueueName> {
        let declared = self.entries.iter().filter_map(|entry| entry.defaults.queue.as_ref());
        let routed = self.routing.queues();
        let default = self.routing.default_queue();
        let mut queues: Vec<QueueName> = declared.chain(routed).chain([default]).cloned().collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }
}

fn refuse_alike(entries: &[Arc<Entry>]) -> Result<(), Error> {
    let mut seen: HashMap<String, Vec<(Method, &str, String)>> = HashMap::new();
    for (method, endpoint, place) in entries.iter().flat_map(|entry| paths(entry)) {
        let alike = seen.entry(endpoint.shape()).or_default();
        // Two methods may share a path if its parameters have the same names.
        let clash = alike.iter().find(|(other, path, _)| *other == method || *path != endpoint.path);
        if let Some((_, path, other)) = clash {
            let harm = format!("a request to {path} could mean either");
            return Err(Error::pair(other.clone(), place, harm));
        }
        alike.push((method, &endpoint.path, place));
    }
    Ok(())
}

/// All paths of an entry, with their places in the configuration.
fn paths(entry: &Entry) -> impl Iterator<Item = (Method, &Endpoint, String)> {
    let submits = entry.endpoint.iter().map(|at| (Method::Post, at, format!("{}.endpoint", entry.place)));
    let follows = entry.stream.iter().map(|stream| (Method::Get, &stream.at, format!("{}.stream", entry.place)));
    submits.chain(follows)
}
