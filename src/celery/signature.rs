//! Signatures on the wire: calls as data inside messages (`embed`, `options.link` …), plain or as chain, group and chord.
//!
//! A signature must survive the way through us: options we do not know are kept verbatim, so a Python worker behind us sees what
//! the Python client before us wrote. Reading is tolerant as Celery is (one object where a list may stand, absent `kwargs`), but
//! `task`, `args` and `options` are required, because a Python worker fails without them.

use serde_json::value::RawValue;

use super::json::{self, Fields, Members};
use super::limits::MAX_NESTING;
use super::{DecodeError, seconds, time};
use crate::task::{Expires, Json};

/// One signature. Wrappers (`chain`, `group`, `chord`) have their members in `form`.
#[derive(Debug, Clone)]
pub struct Signature {
    pub form: Form,
    /// Positional arguments, a JSON array; for a wrapper those that its first tasks get.
    pub args: Json,
    /// Keyword arguments, a JSON object; for a wrapper without its members.
    pub kwargs: Json,
    pub options: Options,
    /// The predecessor's result is not passed in.
    pub immutable: bool,
}

/// What a signature is.
#[derive(Debug, Clone)]
pub enum Form {
    /// A plain task; `subtask_type` is set for `xmap`, `xstarmap` and `chunks`, which run as plain tasks.
    Task {
        name: String,
        subtask_type: Option<String>,
    },
    /// Steps in the order of execution.
    Chain(Vec<Signature>),
    Group(Vec<Signature>),
    /// The header is a group signature, whose options hold the group's id.
    Chord {
        header: Box<Signature>,
        body: Box<Signature>,
    },
}

/// What a signature says about its call. `None` leaves it to the worker that sends it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub task_id: Option<String>,
    pub queue: Option<String>,
    pub exchange: Option<String>,
    pub routing_key: Option<String>,
    pub priority: Option<i64>,
    /// Seconds from the moment the call is sent.
    pub countdown: Option<f64>,
    pub eta: Option<jiff::Timestamp>,
    pub expires: Option<Expires>,
    pub link: Vec<Signature>,
    pub link_error: Vec<Signature>,
    pub chord: Option<Box<Signature>>,
    /// What follows, in reverse order: the next step is last.
    pub chain: Option<Vec<Signature>>,
    pub group_id: Option<String>,
    pub group_index: Option<i64>,
    pub root_id: Option<String>,
    pub parent_id: Option<String>,
    pub reply_to: Option<String>,
    /// Hard limit in seconds.
    pub time_limit: Option<f64>,
    /// Soft limit in seconds.
    pub soft_time_limit: Option<f64>,
    /// Custom headers, a JSON object.
    pub headers: Option<Json>,
    pub shadow: Option<String>,
    pub ignore_result: Option<bool>,
    pub retries: Option<i64>,
    pub replaced_task_nesting: Option<i64>,
    /// Everything else, verbatim (stamps among it).
    pub other: Members,
}

const KNOWN: [&str; 24] = [
    "task_id",
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "countdown",
    "eta",
    "expires",
    "link",
    "link_error",
    "chord",
    "chain",
    "group_id",
    "group_index",
    "root_id",
    "parent_id",
    "reply_to",
    "time_limit",
    "soft_time_limit",
    "headers",
    "shadow",
    "ignore_result",
    "retries",
    "replaced_task_nesting",
];

impl Signature {
    /// A plain call without options.
    pub fn task(name: impl Into<String>, args: Json, kwargs: Json) -> Self {
        Self {
            form: Form::Task { name: name.into(), subtask_type: None },
            args,
            kwargs,
            options: Options::default(),
            immutable: false,
        }
    }

    /// A wrapper with no arguments of its own.
    pub fn wrapper(form: Form, options: Options) -> Self {
        Self { form, args: json::written("[]".into()), kwargs: json::written("{}".into()), options, immutable: false }
    }

    /// The name under which Celery knows it.
    pub fn name(&self) -> &str {
        match &self.form {
            Form::Task { name, .. } => name,
            Form::Chain(_) => "celery.chain",
            Form::Group(_) => "celery.group",
            Form::Chord { .. } => "celery.chord",
        }
    }

    /// # Errors
    /// When a required member is missing or of the wrong type, or the nesting is deeper than [`MAX_NESTING`].
    pub fn decode(value: &RawValue) -> Result<Self, DecodeError> {
        Self::decode_at(value, 0)
    }

    /// One signature or a list of them.
    ///
    /// # Errors
    /// As [`Signature::decode`].
    pub fn decode_list(value: &RawValue) -> Result<Vec<Self>, DecodeError> {
        Self::list_at(value, 0)
    }

    fn list_at(value: &RawValue, depth: usize) -> Result<Vec<Self>, DecodeError> {
        match json::elements(value) {
            Some(elements) => elements.into_iter().map(|element| Self::decode_at(element, depth)).collect(),
            None => Ok(vec![Self::decode_at(value, depth)?]),
        }
    }

    fn decode_at(value: &RawValue, depth: usize) -> Result<Self, DecodeError> {
        if depth > MAX_NESTING {
            return Err(DecodeError::TooDeep);
        }
        let fields = Fields::parse(value.get()).map_err(|_| DecodeError::Signature("is not an object"))?;
        let name = fields.text("task").ok_or(DecodeError::Signature("has no task"))?;
        let args = fields.get("args").ok_or(DecodeError::Signature("has no args"))?;
        let options = fields.get("options").ok_or(DecodeError::Signature("has no options"))?;
        let kwargs = fields.get("kwargs").map_or("{}", RawValue::get);
        if !args.get().starts_with('[') || !kwargs.starts_with('{') {
            return Err(DecodeError::Signature("has args or kwargs of the wrong type"));
        }
        let (form, kwargs) = Form::decode(name, fields.text("subtask_type"), kwargs, depth)?;
        Ok(Self {
            form,
            args: args.to_owned(),
            kwargs,
            options: Options::decode(options, depth)?,
            immutable: fields.boolean("immutable").unwrap_or(false),
        })
    }

    /// Appends the signature as Celery writes it.
    pub fn encode(&self, out: &mut String) {
        out.push_str("{\"task\": ");
        json::push_string(out, self.name());
        out.push_str(", \"args\": ");
        out.push_str(self.args.get());
        out.push_str(", \"kwargs\": ");
        self.encode_kwargs(out);
        out.push_str(", \"options\": ");
        self.options.encode(out);
        out.push_str(", \"subtask_type\": ");
        json::push_optional(out, self.form.subtask_type());
        out.push_str(if self.immutable { ", \"immutable\": true}" } else { ", \"immutable\": false}" });
    }

    fn encode_kwargs(&self, out: &mut String) {
        match &self.form {
            Form::Task { .. } => out.push_str(self.kwargs.get()),
            Form::Chain(members) | Form::Group(members) => {
                out.push_str("{\"tasks\": ");
                encode_list(members, out);
                out.push('}');
            }
            Form::Chord { header, body } => {
                out.push_str("{\"kwargs\": ");
                out.push_str(self.kwargs.get());
                out.push_str(", \"header\": ");
                header.encode(out);
                out.push_str(", \"body\": ");
                body.encode(out);
                out.push('}');
            }
        }
    }
}

/// Appends a JSON array of signatures.
pub fn encode_list(signatures: &[Signature], out: &mut String) {
    out.push('[');
    for (index, signature) in signatures.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        signature.encode(out);
    }
    out.push(']');
}

impl Form {
    pub fn subtask_type(&self) -> Option<&str> {
        match self {
            Self::Task { subtask_type, .. } => subtask_type.as_deref(),
            Self::Chain(_) => Some("chain"),
            Self::Group(_) => Some("group"),
            Self::Chord { .. } => Some("chord"),
        }
    }

    /// The form and what is left of the keyword arguments.
    fn decode(
        name: String,
        subtask_type: Option<String>,
        kwargs: &str,
        depth: usize,
    ) -> Result<(Self, Json), DecodeError> {
        let members = || Fields::parse(kwargs).map_err(|_| DecodeError::Signature("has kwargs of the wrong type"));
        let member = |fields: &Fields<'_>, name| {
            let value = fields.get(name).ok_or(DecodeError::Signature("is a canvas without its members"))?;
            Ok::<_, DecodeError>(value.to_owned())
        };
        let empty = || json::written("{}".to_owned());
        Ok(match subtask_type.as_deref() {
            Some("chain") => (Self::Chain(Signature::list_at(&member(&members()?, "tasks")?, depth + 1)?), empty()),
            Some("group") => (Self::Group(Signature::list_at(&member(&members()?, "tasks")?, depth + 1)?), empty()),
            Some("chord") => {
                let fields = members()?;
                let header = Self::header(&member(&fields, "header")?, depth + 1)?;
                let body = Signature::decode_at(&member(&fields, "body")?, depth + 1)?;
                (
                    Self::Chord { header: Box::new(header), body: Box::new(body) },
                    fields.get("kwargs").map_or_else(empty, ToOwned::to_owned),
                )
            }
            _ => {
                let kwargs = json::verbatim(kwargs.to_owned())
                    .map_err(|_| DecodeError::Signature("has kwargs of the wrong type"))?;
                (Self::Task { name, subtask_type }, kwargs)
            }
        })
    }

    /// A chord's header: a group, or (by other writers) a bare list, or one task.
    fn header(value: &RawValue, depth: usize) -> Result<Signature, DecodeError> {
        if value.get().starts_with('[') {
            return Ok(Signature::wrapper(Self::Group(Signature::list_at(value, depth)?), Options::default()));
        }
        let header = Signature::decode_at(value, depth)?;
        Ok(match header.form {
            Self::Group(_) => header,
            _ => Signature::wrapper(Self::Group(vec![header]), Options::default()),
        })
    }
}

impl Options {
    fn decode(value: &RawValue, depth: usize) -> Result<Self, DecodeError> {
        let fields =
            Fields::parse(value.get()).map_err(|_| DecodeError::Signature("has options that are not an object"))?;
        let list = |name| fields.get(name).map_or(Ok(Vec::new()), |value| Signature::list_at(value, depth + 1));
        let time_of = |name| match fields.text(name) {
            Some(text) => time::parse(&text).map(Some).ok_or(DecodeError::Signature("has a time that cannot be read")),
            None => Ok(None),
        };
        let expires = match fields.number("expires") {
            Some(seconds) => Some(Expires::After(seconds)),
            None => time_of("expires")?.map(Expires::At),
        };
        Ok(Self {
            task_id: fields.text("task_id"),
            queue: queue_name(fields.get("queue")),
            exchange: fields.text("exchange"),
            routing_key: fields.text("routing_key"),
            priority: fields.integer("priority"),
            countdown: fields.number("countdown"),
            eta: time_of("eta")?,
            expires,
            link: list("link")?,
            link_error: list("link_error")?,
            chord: fields.get("chord").map(|value| Signature::decode_at(value, depth + 1).map(Box::new)).transpose()?,
            chain: fields.get("chain").map(|value| Signature::list_at(value, depth + 1)).transpose()?,
            group_id: fields.text("group_id"),
            group_index: fields.integer("group_index"),
            root_id: fields.text("root_id"),
            parent_id: fields.text("parent_id"),
            reply_to: fields.text("reply_to"),
            time_limit: fields.number("time_limit"),
            soft_time_limit: fields.number("soft_time_limit"),
            headers: fields.get("headers").map(ToOwned::to_owned),
            shadow: fields.text("shadow"),
            ignore_result: fields.boolean("ignore_result"),
            retries: fields.integer("retries"),
            replaced_task_nesting: fields.integer("replaced_task_nesting"),
            other: fields.members(|name| !KNOWN.contains(&name)),
        })
    }

    fn encode(&self, out: &mut String) {
        let mut object = Object::open(out);
        object.text("task_id", self.task_id.as_deref());
        object.text("queue", self.queue.as_deref());
        object.text("exchange", self.exchange.as_deref());
        object.text("routing_key", self.routing_key.as_deref());
        object.integer("priority", self.priority);
        object.number("countdown", self.countdown);
        object.text("eta", self.eta.map(time::format).as_deref());
        match self.expires {
            Some(Expires::After(seconds)) => object.number("expires", Some(seconds)),
            Some(Expires::At(at)) => object.text("expires", Some(&time::format(at))),
            None => {}
        }
        object.number("time_limit", self.time_limit);
        object.number("soft_time_limit", self.soft_time_limit);
        object.text("shadow", self.shadow.as_deref());
        object.boolean("ignore_result", self.ignore_result);
        object.raw("headers", self.headers.as_deref());
        object.text("reply_to", self.reply_to.as_deref());
        object.text("group_id", self.group_id.as_deref());
        object.integer("group_index", self.group_index);
        object.text("root_id", self.root_id.as_deref());
        object.text("parent_id", self.parent_id.as_deref());
        object.integer("retries", self.retries);
        object.integer("replaced_task_nesting", self.replaced_task_nesting);
        object.list("link", Some(&self.link).filter(|link| !link.is_empty()));
        object.list("link_error", Some(&self.link_error).filter(|link| !link.is_empty()));
        object.list("chain", self.chain.as_ref());
        object.signature("chord", self.chord.as_deref());
        for (name, value) in &self.other {
            object.raw(name, Some(value));
        }
        object.close();
    }

    /// The limits as a message header holds them: hard first.
    pub fn limits(&self) -> seconds::Limits {
        seconds::Limits { hard: self.time_limit, soft: self.soft_time_limit }
    }
}

/// A queue is a name, or (kombu's `Queue` as data) an object that has one.
fn queue_name(value: Option<&RawValue>) -> Option<String> {
    let value = value?;
    json::text(value).or_else(|| Fields::parse(value.get()).ok()?.text("name"))
}

/// Writes an object, leaving out what is absent.
struct Object<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, first: true }
    }

    fn close(self) {
        self.out.push('}');
    }

    fn name(&mut self, name: &str) -> &mut String {
        if !std::mem::take(&mut self.first) {
            self.out.push_str(", ");
        }
        json::push_string(self.out, name);
        self.out.push_str(": ");
        self.out
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            json::push_string(self.name(name), value);
        }
    }

    fn integer(&mut self, name: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.name(name).push_str(&value.to_string());
        }
    }

    fn number(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            json::push_number(self.name(name), value);
        }
    }

    fn boolean(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.name(name).push_str(if value { "true" } else { "false" });
        }
    }

    fn raw(&mut self, name: &str, value: Option<&RawValue>) {
        if let Some(value) = value {
            self.name(name).push_str(value.get());
        }
    }

    fn list(&mut self, name: &str, value: Option<&Vec<Signature>>) {
        if let Some(value) = value {
            encode_list(value, self.name(name));
        }
    }

    fn signature(&mut self, name: &str, value: Option<&Signature>) {
        if let Some(value) = value {
            value.encode(self.name(name));
        }
    }
}
