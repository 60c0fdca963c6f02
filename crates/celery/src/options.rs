//! The options of a signature on the wire: how its message will be sent, and what it contains.
//!
//! Unknown options (such as stamps) are kept verbatim, so that the next reader still finds them.

use serde_json::value::RawValue;

use super::json::{self, Fields, Members};
use super::signature::{Signature, encode_list};
use super::{DecodeError, limits, time};
use crate::task::{Expires, Json};

/// The options of a call. With `None` the worker that sends it decides.
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
    /// The next steps, reversed: the first to run is last.
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
    /// All other options, verbatim (such as stamps).
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

impl Options {
    pub(super) fn decode(value: &RawValue, depth: usize) -> Result<Self, DecodeError> {
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

    pub(super) fn encode(&self, out: &mut String) {
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

    /// The limits as in a message header: hard limit first.
    pub fn limits(&self) -> limits::Limits {
        limits::Limits { hard: self.time_limit, soft: self.soft_time_limit }
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
