//! A call by name must obey the rules of its catalog entry: it is accepted only if some request to the entry's endpoint would have
//! made the same call. The entry's templates are applied backwards, from the arguments to the fields of such a request; this request
//! is checked like any other, the templates are filled from it, and the result must equal the given arguments.
//!
//! A step of a canvas gets its predecessor's result as its first argument. The result is unknown yet, so the fields that it fills are
//! not checked here; the Rust worker checks the whole call again before it starts a command.
//!
//! An entry that declares no arguments allows any, and `open = true` switches the rules off for an entry.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_json::value::RawValue;

use super::body::escape;
use super::call::Request;
use super::entry::Entry;
use super::links::Links;
use super::template::{self, Part, Template};
use super::{Catalog, Invalid, ResolveError};
use celery::json::{Fields, elements, text};
use celery::task::QueueName;
use celery::task::limit::{Fair, KeyLimit};
use celery::task::submission::Unique;

/// A call that names its task, instead of using the task's endpoint.
#[derive(Debug, Clone, Copy)]
pub struct NamedCall<'a> {
    pub name: &'a str,
    /// A JSON array.
    pub args: &'a RawValue,
    /// A JSON object.
    pub kwargs: &'a RawValue,
    pub queue: Option<&'a QueueName>,
    /// Seconds.
    pub soft_time_limit: Option<f64>,
    /// Seconds.
    pub time_limit: Option<f64>,
    /// The predecessor's result will be put before the arguments.
    pub fed: bool,
}

/// What the entry adds to a call that it accepts.
#[derive(Debug, Clone, Default)]
pub struct Admitted {
    /// The queue that the endpoint would have used, if the entry names one.
    pub queue: Option<QueueName>,
    pub limits: Vec<KeyLimit>,
    pub labels: Vec<(String, String)>,
    pub unique: Option<Unique>,
    pub links: Links,
    pub fair: Option<Fair>,
}

/// A request's fields, recovered from the arguments of a call.
#[derive(Default)]
struct Recovered {
    /// JSON text by name.
    fields: BTreeMap<String, String>,
    /// Where each field was found, as a JSON Pointer into the call.
    places: BTreeMap<String, String>,
    /// Fields that the predecessor's result fills.
    unknown: BTreeSet<String>,
    wrong: Vec<Invalid>,
}

impl Catalog {
    /// Checks a call, and returns what the catalog adds to it.
    ///
    /// # Errors
    /// The mistakes of a call that breaks the rules of every entry of its name.
    pub fn admit(&self, call: NamedCall<'_>) -> Result<Admitted, Vec<Invalid>> {
        let mut first = None;
        for entry in self.entries_of(call.name) {
            match entry.admit(call) {
                Ok(admitted) => return Ok(admitted),
                Err(wrong) => drop(first.get_or_insert(wrong)),
            }
        }
        first.map_or_else(|| Ok(Admitted::default()), Err)
    }
}

impl Entry {
    /// Whether the entry declares the arguments of its task.
    pub fn declares_arguments(&self) -> bool {
        !self.args.is_empty() || !self.kwargs.is_empty() || self.body.is_some()
    }

    /// # Errors
    /// Where and how the call breaks the rules of this entry.
    pub fn admit(&self, call: NamedCall<'_>) -> Result<Admitted, Vec<Invalid>> {
        let fixed = || Admitted {
            queue: self.defaults.queue.clone(),
            limits: self.defaults.limits.clone(),
            fair: self.defaults.fair.clone(),
            ..Admitted::default()
        };
        if self.open {
            return Ok(fixed());
        }
        if self.upload.is_some() {
            return Err(vec![Invalid::new("", "names a task that takes a file: use the task's own endpoint")]);
        }
        let mut wrong = self.check_times(call);
        wrong.extend(self.option_words(call.args.get(), usize::from(call.fed)));
        let is_plain = !self.declares_arguments() && !self.computes();
        let admitted = if is_plain { Ok(fixed()) } else { self.check_arguments(call) };
        match admitted {
            Ok(admitted) => {
                wrong.extend(check_queue(call, &admitted));
                if wrong.is_empty() { Ok(admitted) } else { Err(wrong) }
            }
            Err(more) => Err(wrong.into_iter().chain(more).collect()),
        }
    }

    /// A caller may ask for less time than the entry allows, never for more.
    fn check_times(&self, call: NamedCall<'_>) -> Vec<Invalid> {
        let pairs = [
            ("/soft_time_limit", call.soft_time_limit, self.defaults.soft_time_limit),
            ("/time_limit", call.time_limit, self.defaults.time_limit),
        ];
        let longer = |(place, asked, most): (&str, Option<f64>, Option<f64>)| {
            let most = most.filter(|most| asked.is_some_and(|asked| asked > *most))?;
            Some(Invalid::new(place, format!("must be at most {most}, the limit of the task's catalog entry")))
        };
        pairs.into_iter().filter_map(longer).collect()
    }

    fn check_arguments(&self, call: NamedCall<'_>) -> Result<Admitted, Vec<Invalid>> {
        let recovered = self.recover(call);
        if !recovered.wrong.is_empty() {
            return Err(recovered.wrong);
        }
        let path = self.path_of(&recovered);
        let body = self.body_of(&recovered);
        let resolved = self.resolve_again(&path, &body, &recovered);
        let (admitted, args, kwargs) = resolved.map_err(|error| recovered.told(error))?;
        let mut wrong = recovered.undecided(self);
        wrong.extend(self.untold_key());
        if !self.is_same(call, &recovered, &args, &kwargs) {
            wrong.push(Invalid::new("/args", self.mismatch()));
        }
        if wrong.is_empty() { Ok(admitted) } else { Err(wrong) }
    }

    /// The mistake of a call whose arguments do not determine the unique key.
    fn untold_key(&self) -> Option<Invalid> {
        let name = self.unique.iter().flat_map(|unique| unique.key.names()).find(|name| !self.tells(name))?;
        let detail = format!("do not say {name}, on which the task's unique key depends: use its own endpoint");
        Some(Invalid::new("/args", detail))
    }

    /// Runs the endpoint's own checks, except on unknown fields; returns the arguments that the endpoint would have sent.
    fn resolve_again(
        &self,
        path: &[(String, String)],
        body: &str,
        recovered: &Recovered,
    ) -> Result<(Admitted, String, String), ResolveError> {
        self.check_path(path)?;
        let fields = Fields::parse(body).expect("the body was written here");
        self.check_fields(body, &recovered.unknown)?;
        self.check_words(&fields)?;
        let request = Request { entry: self, path, fields: &fields, told: &[] };
        let queue = request.queue()?;
        let labels = self.labels_for(&request, &|name| self.tells(name) && !recovered.unknown.contains(name));
        let unique = self.unique_for(&request);
        let (limits, fair) = (self.limits_for(&request), self.fair_for(&request));
        let links = self.links_for(&request)?;
        let (mut args, mut kwargs) = (String::new(), String::new());
        template::array(&self.args, &|name| request.mapped(name), &mut args);
        template::object(&self.kwargs, &|name| request.mapped(name), &mut kwargs);
        let is_cut =
            self.split.iter().flat_map(super::split::Split::names).any(|name| recovered.unknown.contains(name));
        if !is_cut && let Some(fan_out) = self.fan_out(&request, queue.as_ref())? {
            let chunk = (fan_out.count() == 1).then(|| fan_out.part(0, 1).ok()?.pop()).flatten();
            let Some(chunk) = chunk else {
                let detail = format!("would be cut into {} tasks: use the task's own endpoint", fan_out.count());
                return Err(ResolveError::Invalid(vec![Invalid::new("", detail)]));
            };
            (args, kwargs) = (chunk.args.get().to_owned(), chunk.kwargs.get().to_owned());
        }
        Ok((Admitted { queue, limits, fair, labels, unique, links }, args, kwargs))
    }

    fn check_fields(&self, body: &str, unknown: &BTreeSet<String>) -> Result<(), ResolveError> {
        let Some(schema) = &self.body else { return Ok(()) };
        // A value of a message may be valid JSON that this reader refuses: a number beyond 64 bits of floating point, or one nested too deeply.
        let value: Value = serde_json::from_str(body)
            .map_err(|error| ResolveError::invalid("", format!("cannot be read: {error}")))?;
        let is_known = |wrong: &Invalid| !field_of(&wrong.pointer).is_some_and(|field| unknown.contains(&field));
        let wrong: Vec<Invalid> = schema.check(&value).into_iter().filter(is_known).collect();
        if wrong.is_empty() { Ok(()) } else { Err(ResolveError::Invalid(wrong)) }
    }

    fn path_of(&self, recovered: &Recovered) -> Vec<(String, String)> {
        let params = self.endpoint.iter().flat_map(|endpoint| &endpoint.params);
        let value = |param: &String| {
            let json = recovered.fields.get(param)?;
            Some((param.clone(), serde_json::from_str(json).unwrap_or_else(|_| json.clone())))
        };
        params.filter_map(value).collect()
    }

    fn body_of(&self, recovered: &Recovered) -> String {
        let is_param =
            |name: &str| self.endpoint.iter().any(|endpoint| endpoint.params.iter().any(|param| param == name));
        let has_default = |name: &str| self.body.as_ref().is_some_and(|body| body.default_of(name).is_some());
        // An absent field and null give the same argument, unless the schema has a default for the absent one.
        let is_said = |name: &str, json: &str| !is_param(name) && (json != "null" || has_default(name));
        let said = recovered.fields.iter().filter(|(name, json)| is_said(name, json));
        let members: Vec<String> =
            said.map(|(name, json)| format!("{}: {json}", Value::String(name.clone()))).collect();
        format!("{{{}}}", members.join(", "))
    }

    /// Whether the endpoint would have made exactly this call. Trailing arguments may be left out if their fields are.
    fn is_same(&self, call: NamedCall<'_>, recovered: &Recovered, args: &str, kwargs: &str) -> bool {
        let Ok(Value::Array(made)) = serde_json::from_str(args) else { return false };
        let Ok(Value::Object(named)) = serde_json::from_str(kwargs) else { return false };
        let Ok(Value::Array(given)) = serde_json::from_str(call.args.get()) else { return false };
        let Ok(Value::Object(given_named)) = serde_json::from_str(call.kwargs.get()) else { return false };
        let positional = made.iter().skip(usize::from(call.fed)).zip(&given).all(|(made, given)| made == given);
        let is_open = |name: &String| {
            let template = self.kwargs.iter().find(|(key, _)| key == name).map(|(_, template)| template);
            template.is_some_and(|template| template.names().iter().any(|used| recovered.unknown.contains(*used)))
        };
        positional && given_named.iter().all(|(name, value)| is_open(name) || named.get(name) == Some(value))
    }

    fn recover(&self, call: NamedCall<'_>) -> Recovered {
        let mut recovered = Recovered::default();
        let args = elements(call.args).unwrap_or_default();
        let fed = usize::from(call.fed);
        if call.fed && self.args.is_empty() {
            recovered
                .refuse("/immutable", "must be true: the task takes no argument, so it cannot get a result as one");
        }
        for (index, template) in self.args.iter().enumerate() {
            match index.checked_sub(fed) {
                None => recovered.unknown.extend(template.names().into_iter().map(str::to_owned)),
                Some(at) => self.read(template, args.get(at).copied(), &format!("/args/{at}"), &mut recovered),
            }
        }
        for at in self.args.len().saturating_sub(fed)..args.len() {
            let detail = format!("is one argument too many: the catalog entry has {}", self.args.len());
            recovered.refuse(&format!("/args/{at}"), &detail);
        }
        let named = Fields::parse(call.kwargs.get()).unwrap_or_default();
        for (key, template) in &self.kwargs {
            let value = named.iter().filter(|(name, _)| name == key).last().map(|(_, value)| value);
            self.read(template, value, &format!("/kwargs/{}", escape(key)), &mut recovered);
        }
        for (name, _) in named.iter().filter(|(name, _)| !self.kwargs.iter().any(|(key, _)| key == name)) {
            recovered.refuse(&format!("/kwargs/{}", escape(name)), "is not an argument of the catalog entry");
        }
        recovered
    }

    fn read(&self, template: &Template, value: Option<&RawValue>, at: &str, recovered: &mut Recovered) {
        let Some(value) = value else {
            return match template {
                Template::Whole(_) => {}
                _ => recovered.refuse(at, "is missing: the catalog entry always sends it"),
            };
        };
        match template {
            Template::Literal(text) if !is_equal(text, value.get()) => {
                recovered.refuse(at, &format!("must be {text}: the catalog entry says so"));
            }
            Template::Literal(_) => {}
            Template::Whole(name) => recovered.found(name, self.unmapped(name, value.get()), at),
            Template::Text(parts) => match text(value).and_then(|text| cut(parts, &text)) {
                Some(found) => {
                    for (name, word) in found {
                        let json = self.typed(&name, &word);
                        recovered.found(&name, self.unmapped(&name, &json), at);
                    }
                }
                None => recovered.refuse(at, "is not of the form that the catalog entry sends"),
            },
            Template::Array(items) => match elements(value).filter(|given| given.len() == items.len()) {
                Some(given) => {
                    for (index, (item, value)) in items.iter().zip(given).enumerate() {
                        self.read(item, Some(value), &format!("{at}/{index}"), recovered);
                    }
                }
                None => recovered.refuse(at, &format!("must be an array of {}", items.len())),
            },
            Template::Object(members) => match Fields::parse(value.get()) {
                Ok(given) => {
                    for (key, member) in members {
                        let value = given.iter().filter(|(name, _)| name == key).last().map(|(_, value)| value);
                        self.read(member, value, &format!("{at}/{}", escape(key)), recovered);
                    }
                    for (name, _) in given.iter().filter(|(name, _)| !members.iter().any(|(key, _)| key == name)) {
                        recovered.refuse(&format!("{at}/{}", escape(name)), "is not a member in the catalog entry");
                    }
                }
                Err(_) => recovered.refuse(at, "must be an object"),
            },
        }
    }

    /// Maps a worker's value back to the client's value.
    fn unmapped(&self, name: &str, json: &str) -> String {
        let words = self.values.get(name).into_iter().flatten();
        let word = words.filter(|(_, mapped)| is_equal(mapped, json)).map(|(word, _)| word).next();
        word.map_or_else(|| json.to_owned(), |word| Value::String(word.clone()).to_string())
    }

    /// Reads a value that was cut from a longer text: it becomes a number if the schema says so.
    fn typed(&self, name: &str, word: &str) -> String {
        let kind = self.body.as_ref().and_then(|body| body.schema.get("properties")?.get(name)?.get("type"));
        let is_text = kind.is_none_or(|kind| kind == "string");
        if !is_text && serde_json::from_str::<Value>(word).is_ok() {
            return word.to_owned();
        }
        Value::String(word.to_owned()).to_string()
    }

    fn mismatch(&self) -> String {
        let written = Value::Array(self.written.0.clone());
        format!("do not fit {written}, the arguments of the catalog entry")
    }
}

impl Recovered {
    fn found(&mut self, name: &str, json: String, at: &str) {
        match self.fields.get(name) {
            Some(before) if !is_equal(before, &json) => {
                self.refuse(at, &format!("must say the same as {}", self.places[name].clone()));
            }
            Some(_) => {}
            None => {
                self.fields.insert(name.to_owned(), json);
                self.places.insert(name.to_owned(), at.to_owned());
            }
        }
    }

    fn refuse(&mut self, at: &str, detail: &str) {
        self.wrong.push(Invalid::new(at, detail));
    }

    /// The endpoint's errors, with places in the call instead of the request.
    fn told(&self, error: ResolveError) -> Vec<Invalid> {
        match error {
            ResolveError::Invalid(wrong) => wrong.into_iter().map(|fault| self.moved(fault)).collect(),
            ResolveError::UnknownValue { parameter, known, .. } => {
                let at = self.places.get(&parameter).cloned().unwrap_or_else(|| "/args".to_owned());
                vec![Invalid::new(at, format!("is no value of {parameter}, which knows {}", known.join(", ")))]
            }
        }
    }

    fn moved(&self, wrong: Invalid) -> Invalid {
        let Some(field) = field_of(&wrong.pointer) else { return Invalid::new("/args", wrong.detail) };
        let rest = &wrong.pointer[1 + escape(&field).len()..];
        match self.places.get(&field) {
            Some(place) => Invalid::new(format!("{place}{rest}"), wrong.detail),
            None => Invalid::new("/args", format!("{field} {}, and the arguments do not say it", wrong.detail)),
        }
    }

    /// Reports a key or a queue that depends on the predecessor's result.
    fn undecided(&self, entry: &Entry) -> Vec<Invalid> {
        let names = entry.limits.iter().flat_map(|limit| limit.key.names());
        let names = names.chain(entry.fair.iter().flat_map(|fair| fair.key.names()));
        let names = names.chain(entry.queue.iter().flat_map(Template::names)).chain(entry.links.names());
        let unknown: BTreeSet<&str> = names.filter(|name| self.unknown.contains(*name)).collect();
        let detail =
            |name: &str| format!("must say {name}: the queue, a limit or a link of the catalog entry depends on it");
        unknown.into_iter().map(|name| Invalid::new("/args", detail(name))).collect()
    }
}

fn check_queue(call: NamedCall<'_>, admitted: &Admitted) -> Option<Invalid> {
    let (asked, declared) = (call.queue?, admitted.queue.as_ref()?);
    let detail = || format!("must be {declared}, the queue of the task's catalog entry, or absent");
    (asked != declared).then(|| Invalid::new("/queue", detail()))
}

/// Extracts the values of the names from a text; each value is as short as possible.
fn cut(parts: &[Part], text: &str) -> Option<Vec<(String, String)>> {
    let (mut rest, mut open, mut found) = (text, None::<&String>, Vec::new());
    for part in parts {
        match part {
            Part::Text(literal) => {
                let at = if open.is_some() { rest.find(literal.as_str())? } else { 0 };
                let after = rest[at..].strip_prefix(literal.as_str())?;
                found.extend(open.take().map(|name| (name.clone(), rest[..at].to_owned())));
                rest = after;
            }
            Part::Name(name) => {
                found.extend(open.replace(name).map(|name| (name.clone(), String::new())));
            }
        }
    }
    match open {
        Some(name) => found.push((name.clone(), rest.to_owned())),
        None if rest.is_empty() => {}
        None => return None,
    }
    Some(found)
}

/// The field that a pointer into the body belongs to.
fn field_of(pointer: &str) -> Option<String> {
    let first = pointer.strip_prefix('/')?.split('/').next()?;
    Some(first.replace("~1", "/").replace("~0", "~"))
}

fn is_equal(left: &str, right: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    left == right || value(left).is_some_and(|left| Some(left) == value(right))
}

#[cfg(test)]
#[path = "by_name_tests.rs"]
mod tests;
