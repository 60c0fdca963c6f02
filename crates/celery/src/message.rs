//! The task message, protocol 2: what a producer puts into a queue and a worker takes out of it.
//!
//! A message is kept as two JSON texts, `headers` and `body`; [`super::envelope()`] turns them into the same bytes at any time.
//! Reading never panics: a message that makes a Python worker exit, reconnect or drop it is a [`DecodeError`] here, and the
//! [`Envelope`] still identifies it. Protocol 1 (everything in the body) is supported.

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::json::{self, Fields, Members};
use super::limits::Limits;
use super::pyrepr::{self, Sequence};
use super::signature::{self, Signature};
use super::{DecodeError, Envelope, Properties, time};
use crate::task::{GroupId, Json, TaskId, TaskName};

/// One call of a task.
#[derive(Debug, Clone)]
pub struct Message {
    pub task: TaskName,
    pub id: TaskId,
    /// A JSON array, verbatim.
    pub args: Json,
    /// A JSON object, verbatim.
    pub kwargs: Json,
    pub embed: Embed,
    /// The first task of the canvas; a single task's own id.
    pub root_id: Option<TaskId>,
    /// The task that sent this one.
    pub parent_id: Option<TaskId>,
    pub group: Option<GroupId>,
    /// The position among the results that a chord's body gets.
    pub group_index: Option<i64>,
    /// A name shown instead of `task`.
    pub shadow: Option<String>,
    pub eta: Option<Timestamp>,
    pub expires: Option<Timestamp>,
    pub retries: u32,
    pub limits: Limits,
    /// The sender, by convention `gen<pid>@<host>`.
    pub origin: String,
    /// `None`: the task's own setting decides.
    pub ignore_result: Option<bool>,
    pub replaced_task_nesting: u32,
    /// The names of the stamps, a JSON list.
    pub stamped_headers: Option<Json>,
    /// Stamp name to value, a JSON object.
    pub stamps: Option<Json>,
    /// The displayed arguments; computed from the arguments when `None`.
    pub argsrepr: Option<String>,
    pub kwargsrepr: Option<String>,
    /// Custom headers beside Celery's own, such as `traceparent`.
    pub custom: Members,
}

/// What runs after the task.
#[derive(Debug, Clone, Default)]
pub struct Embed {
    /// Run after success.
    pub callbacks: Vec<Signature>,
    /// Run after failure.
    pub errbacks: Vec<Signature>,
    /// The next steps, reversed: the first to run is last. `None` and an empty list mean the same.
    pub chain: Option<Vec<Signature>>,
    /// The body of the chord whose header this task is in.
    pub chord: Option<Box<Signature>>,
}

/// A decoded message, with its original texts.
#[derive(Debug, Clone)]
pub struct Decoded {
    pub message: Message,
    pub properties: Properties<'static>,
    /// The headers, verbatim; for protocol 1, converted to those of protocol 2.
    pub headers: String,
    /// `[args, kwargs, embed]`, not compressed, not base64.
    pub body: String,
    /// The message was put back into its queue before.
    pub redelivered: bool,
}

const KNOWN: [&str; 22] = [
    "lang",
    "task",
    "id",
    "shadow",
    "eta",
    "expires",
    "group",
    "group_index",
    "retries",
    "timelimit",
    "root_id",
    "parent_id",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
    "compression",
    "redelivered",
    "taskset",
];

impl Message {
    /// A plain call: it is its own root, and has no parent and no next step.
    pub fn new(task: TaskName, id: TaskId, args: Json, kwargs: Json) -> Self {
        Self {
            root_id: Some(id.clone()),
            task,
            id,
            args,
            kwargs,
            embed: Embed::default(),
            parent_id: None,
            group: None,
            group_index: None,
            shadow: None,
            eta: None,
            expires: None,
            retries: 0,
            limits: Limits::default(),
            origin: String::new(),
            ignore_result: Some(false),
            replaced_task_nesting: 0,
            stamped_headers: None,
            stamps: None,
            argsrepr: None,
            kwargsrepr: None,
            custom: Members::new(),
        }
    }

    /// The headers as JSON text.
    pub fn headers(&self) -> String {
        let mut out = String::with_capacity(560 + self.args.get().len().min(1024) + self.kwargs.get().len().min(1024));
        self.encode_identity(&mut out);
        self.encode_reprs(&mut out);
        self.encode_rest(&mut out);
        out.push('}');
        out
    }

    /// `[args, kwargs, embed]` as JSON text.
    pub fn body(&self) -> String {
        let mut embed = String::new();
        self.embed.encode(&mut embed);
        body(&self.args, &self.kwargs, &embed)
    }

    fn encode_identity(&self, out: &mut String) {
        out.push_str("{\"lang\": \"py\", \"task\": ");
        json::push_string(out, self.task.as_str());
        member(out, "id", Some(self.id.as_str()));
        member(out, "shadow", self.shadow.as_deref());
        member(out, "eta", self.eta.map(time::format).as_deref());
        member(out, "expires", self.expires.map(time::format).as_deref());
        member(out, "group", self.group.as_ref().map(GroupId::as_str));
        out.push_str(", \"group_index\": ");
        push_integer(out, self.group_index);
        out.push_str(", \"retries\": ");
        push_integer(out, Some(self.retries.into()));
        out.push_str(", \"timelimit\": [");
        push_limit(out, self.limits.hard);
        out.push_str(", ");
        push_limit(out, self.limits.soft);
        out.push(']');
        member(out, "root_id", self.root_id.as_ref().map(TaskId::as_str));
        member(out, "parent_id", self.parent_id.as_ref().map(TaskId::as_str));
    }

    fn encode_reprs(&self, out: &mut String) {
        let shown = |given: &Option<String>, value: &RawValue, sequence| {
            given.clone().unwrap_or_else(|| pyrepr::safe(value, sequence))
        };
        member(out, "argsrepr", Some(&shown(&self.argsrepr, &self.args, Sequence::Tuple)));
        member(out, "kwargsrepr", Some(&shown(&self.kwargsrepr, &self.kwargs, Sequence::List)));
    }

    fn encode_rest(&self, out: &mut String) {
        member(out, "origin", Some(&self.origin));
        out.push_str(", \"ignore_result\": ");
        out.push_str(match self.ignore_result {
            Some(true) => "true",
            Some(false) => "false",
            None => "null",
        });
        out.push_str(", \"replaced_task_nesting\": ");
        push_integer(out, Some(self.replaced_task_nesting.into()));
        out.push_str(", \"stamped_headers\": ");
        out.push_str(self.stamped_headers.as_deref().map_or("null", RawValue::get));
        out.push_str(", \"stamps\": ");
        out.push_str(self.stamps.as_deref().map_or("{}", RawValue::get));
        for (name, value) in self.custom.iter().filter(|(name, _)| !KNOWN.contains(&name.as_str())) {
            out.push_str(", ");
            json::push_string(out, name);
            out.push_str(": ");
            out.push_str(value.get());
        }
    }
}

/// `[args, kwargs, embed]` as JSON text, for callers that encode one `embed` for many messages.
pub fn body(args: &RawValue, kwargs: &RawValue, embed: &str) -> String {
    let mut out = String::with_capacity(args.get().len() + kwargs.get().len() + embed.len() + 8);
    out.extend(["[", args.get(), ", ", kwargs.get(), ", ", embed, "]"]);
    out
}

impl Embed {
    pub fn encode(&self, out: &mut String) {
        let list = |name, signatures: Option<&Vec<Signature>>, out: &mut String| {
            out.push_str(name);
            match signatures {
                Some(signatures) => signature::encode_list(signatures, out),
                None => out.push_str("null"),
            }
        };
        let filled = |signatures| Some(signatures).filter(|signatures: &&Vec<Signature>| !signatures.is_empty());
        list("{\"callbacks\": ", filled(&self.callbacks), out);
        list(", \"errbacks\": ", filled(&self.errbacks), out);
        list(", \"chain\": ", self.chain.as_ref(), out);
        out.push_str(", \"chord\": ");
        match &self.chord {
            Some(chord) => chord.encode(out),
            None => out.push_str("null"),
        }
        out.push('}');
    }

    /// Each plain task in it, at any depth.
    pub fn visit(&mut self, see: &mut dyn FnMut(&mut Signature)) {
        let lists = [Some(&mut self.callbacks), Some(&mut self.errbacks), self.chain.as_mut()];
        lists.into_iter().flatten().flatten().for_each(|signature| signature.visit(see));
        self.chord.iter_mut().for_each(|chord| chord.visit(see));
    }

    /// `null` and an absent member mean that nothing follows.
    ///
    /// # Errors
    /// When it is not an object or a signature in it cannot be read.
    pub fn decode(value: &RawValue) -> Result<Self, DecodeError> {
        if value.get() == "null" {
            return Ok(Self::default());
        }
        let fields = Fields::parse(value.get()).map_err(|_| DecodeError::Body("has an embed that is not an object"))?;
        Self::from_fields(&fields)
    }

    fn from_fields(fields: &Fields<'_>) -> Result<Self, DecodeError> {
        let list = |name| fields.get(name).map_or(Ok(Vec::new()), Signature::decode_list);
        Ok(Self {
            callbacks: list("callbacks")?,
            errbacks: list("errbacks")?,
            chain: fields.get("chain").map(Signature::decode_list).transpose()?,
            chord: fields.get("chord").map(|value| Signature::decode(value).map(Box::new)).transpose()?,
        })
    }
}

impl Decoded {
    /// Decodes an element of a queue.
    ///
    /// # Errors
    /// When a worker could not run it: see [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::from_envelope(Envelope::decode(bytes)?)
    }

    /// # Errors
    /// As [`Decoded::decode`].
    pub fn from_envelope(envelope: Envelope) -> Result<Self, DecodeError> {
        let body = envelope.json_body()?;
        let fields = Fields::parse(&envelope.headers).map_err(|_| DecodeError::NotJson)?;
        if fields.get("task").is_none() && body.trim_start().starts_with('{') {
            return Self::protocol_1(envelope, &body);
        }
        let (args, kwargs, embed) = parts(&body)?;
        let message = message(&fields, args, kwargs, embed)?;
        let redelivered = envelope.properties.redelivered || fields.boolean("redelivered").unwrap_or(false);
        let headers = plain_headers(&fields).unwrap_or_else(|| envelope.headers.clone());
        Ok(Self { message, properties: envelope.properties, headers, body, redelivered })
    }

    /// Decodes protocol 1, which has everything in the body; the texts are rebuilt as protocol 2.
    fn protocol_1(envelope: Envelope, body: &str) -> Result<Self, DecodeError> {
        let fields = Fields::parse(body).map_err(|_| DecodeError::BodyNotJson)?;
        let args = fields.get("args").map_or_else(|| json::written("[]".into()), ToOwned::to_owned);
        let kwargs = fields.get("kwargs").map_or_else(|| json::written("{}".into()), ToOwned::to_owned);
        let embed = Embed::from_fields(&fields)?;
        let mut message = message(&fields, args, kwargs, embed)?;
        message.group = message.group.or(identity(&fields, "taskset", GroupId::parse)?);
        message.custom.clear();
        let redelivered = envelope.properties.redelivered;
        Ok(Self {
            headers: message.headers(),
            body: message.body(),
            message,
            properties: envelope.properties,
            redelivered,
        })
    }
}

fn parts(body: &str) -> Result<(Json, Json, Embed), DecodeError> {
    let parts: Vec<&RawValue> = serde_json::from_str(body).map_err(|_| DecodeError::Body("is not an array"))?;
    let [args, kwargs, embed] = parts[..] else { return Err(DecodeError::Body("is not an array of three")) };
    let kwargs = if kwargs.get() == "null" { json::written("{}".into()) } else { kwargs.to_owned() };
    Ok((args.to_owned(), kwargs, Embed::decode(embed)?))
}

fn message(fields: &Fields<'_>, args: Json, kwargs: Json, embed: Embed) -> Result<Message, DecodeError> {
    if !args.get().starts_with('[') {
        return Err(DecodeError::Body("has args that are not a list"));
    }
    if !kwargs.get().starts_with('{') {
        return Err(DecodeError::Body("has kwargs that are not an object"));
    }
    Ok(Message {
        task: identity(fields, "task", TaskName::parse)?.ok_or(DecodeError::MissingHeader("task"))?,
        id: identity(fields, "id", TaskId::parse)?.ok_or(DecodeError::MissingHeader("id"))?,
        args,
        kwargs,
        embed,
        root_id: identity(fields, "root_id", TaskId::parse)?,
        parent_id: identity(fields, "parent_id", TaskId::parse)?,
        group: identity(fields, "group", GroupId::parse)?,
        group_index: fields.integer("group_index"),
        shadow: fields.text("shadow"),
        eta: instant(fields, "eta")?,
        expires: instant(fields, "expires")?,
        retries: small(fields, "retries"),
        limits: fields.get("timelimit").and_then(json::elements).map_or_else(Limits::default, |limits| Limits {
            hard: limits.first().and_then(|value| json::number(value)),
            soft: limits.get(1).and_then(|value| json::number(value)),
        }),
        origin: fields.text("origin").unwrap_or_default(),
        ignore_result: fields.boolean("ignore_result"),
        replaced_task_nesting: small(fields, "replaced_task_nesting"),
        stamped_headers: fields.get("stamped_headers").map(ToOwned::to_owned),
        stamps: fields.get("stamps").map(ToOwned::to_owned),
        argsrepr: fields.text("argsrepr"),
        kwargsrepr: fields.text("kwargsrepr"),
        custom: fields.members(|name| !KNOWN.contains(&name)),
    })
}

/// The headers without the `compression` header; `None` when there is no such header.
fn plain_headers(fields: &Fields<'_>) -> Option<String> {
    fields.get("compression")?;
    let mut out = String::from("{");
    for (name, value) in fields.iter().filter(|(name, _)| *name != "compression") {
        if out.len() > 1 {
            out.push_str(", ");
        }
        json::push_string(&mut out, name);
        out.extend([": ", value.get()]);
    }
    out.push('}');
    Some(out)
}

fn identity<T, E>(
    fields: &Fields<'_>,
    name: &'static str,
    parse: impl Fn(String) -> Result<T, E>,
) -> Result<Option<T>, DecodeError> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    let text = json::text(value).ok_or(DecodeError::Header { name, problem: "is not a text" })?;
    parse(text)
        .map(Some)
        .map_err(|_| DecodeError::Header { name, problem: "is empty, too long, or has control characters" })
}

fn instant(fields: &Fields<'_>, name: &'static str) -> Result<Option<Timestamp>, DecodeError> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    let time = json::text(value).and_then(|text| time::parse(&text));
    time.map(Some).ok_or(DecodeError::Header { name, problem: "is not a time in ISO 8601" })
}

fn small(fields: &Fields<'_>, name: &str) -> u32 {
    fields.integer(name).and_then(|value| value.try_into().ok()).unwrap_or(0)
}

fn member(out: &mut String, name: &str, value: Option<&str>) {
    out.extend([", \"", name, "\": "]);
    json::push_optional(out, value);
}

fn push_integer(out: &mut String, value: Option<i64>) {
    use std::fmt::Write as _;
    match value {
        Some(value) => write!(out, "{value}").expect("a String takes every write"),
        None => out.push_str("null"),
    }
}

fn push_limit(out: &mut String, seconds: Option<f64>) {
    match seconds {
        Some(seconds) => json::push_number(out, seconds),
        None => out.push_str("null"),
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
