//! Worker events: messages over pub/sub in which workers (and producers) report on themselves and their tasks.
//!
//! A payload holds one event or a list; an unreadable event is left out, the others are kept. Unknown types are kept as
//! [`Kind::Other`], because tasks may send events of their own.

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::json::{self, Fields};
use super::{DecodeError, Envelope, Properties, envelope, time};
use crate::task::{Json, TaskId};

/// An event, with the fields that all events have.
#[derive(Debug, Clone)]
pub struct Event {
    /// The node's name, `celery@host`.
    pub hostname: String,
    pub pid: Option<i64>,
    /// The node's Lamport clock; meaningless in `task-sent`.
    pub clock: i64,
    /// Hours *west* of UTC.
    pub utcoffset: f64,
    /// When it happened, by the node's wall clock.
    pub timestamp: Timestamp,
    pub kind: Kind,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Kind {
    Task {
        uuid: TaskId,
        news: TaskNews,
    },
    Worker {
        news: WorkerNews,
        state: WorkerState,
    },
    /// A type that is not Celery's, with all its members.
    Other {
        kind: String,
        members: json::Members,
    },
}

/// What happened to a task. Arguments, results and errors are Python `repr` texts, not JSON.
#[derive(Debug, Clone)]
pub enum TaskNews {
    Sent(Box<Call>),
    Received(Box<Call>),
    Started,
    Succeeded {
        result: Option<String>,
        runtime: Option<f64>,
    },
    /// An unknown task has no traceback.
    Failed {
        exception: String,
        traceback: Option<String>,
    },
    Retried {
        exception: String,
        traceback: Option<String>,
    },
    Revoked {
        terminated: bool,
        signum: Option<i64>,
        expired: bool,
    },
    Rejected {
        requeue: bool,
    },
    /// Cancelled by a cold shutdown.
    Cancelled,
}

/// The call, in `task-sent` and `task-received`.
#[derive(Debug, Clone, Default)]
pub struct Call {
    pub name: Option<String>,
    pub args: Option<String>,
    pub kwargs: Option<String>,
    pub root_id: Option<TaskId>,
    pub parent_id: Option<TaskId>,
    pub retries: i64,
    pub eta: Option<Timestamp>,
    pub expires: Option<Timestamp>,
    /// Its message was delivered before. Only taskgate's worker sends this, and only in `task-received`.
    pub redelivered: bool,
    /// Only in `task-sent`, like `exchange` and `routing_key`.
    pub queue: Option<String>,
    pub exchange: Option<String>,
    pub routing_key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerNews {
    Online,
    Heartbeat,
    Offline,
}

/// The state of a worker. A heartbeat on request has neither counts nor load.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkerState {
    /// Seconds between heartbeats; a worker that is silent for twice as long counts as dead.
    pub freq: Option<f64>,
    pub active: Option<i64>,
    pub processed: Option<i64>,
    pub loadavg: Option<[f64; 3]>,
    /// Resident memory, with its children. Only workers of taskgate tell it.
    pub memory_kib: Option<i64>,
    pub sw_ident: Option<String>,
    pub sw_ver: Option<String>,
    pub sw_sys: Option<String>,
}

impl Event {
    /// The events of one published message, in order.
    ///
    /// # Errors
    /// When the payload is not an envelope with JSON in it. A single unreadable event is only left out.
    pub fn decode(payload: &[u8]) -> Result<Vec<Self>, DecodeError> {
        let body = Envelope::decode(payload)?.read_body()?;
        let whole: &RawValue = serde_json::from_str(&body).map_err(|_| DecodeError::BodyNotJson)?;
        let events = json::elements(whole).unwrap_or_else(|| vec![whole]);
        Ok(events.into_iter().filter_map(Self::read).collect())
    }

    fn read(value: &RawValue) -> Option<Self> {
        let fields = Fields::parse(value.get()).ok()?;
        let kind = fields.text("type")?;
        Some(Self {
            hostname: fields.text("hostname").unwrap_or_default(),
            pid: fields.integer("pid"),
            clock: fields.integer("clock").unwrap_or(0),
            utcoffset: fields.number("utcoffset").unwrap_or(0.0),
            timestamp: fields.number("timestamp").and_then(time::from_unix)?,
            kind: Kind::read(kind, &fields)?,
        })
    }

    /// Appends the event as Celery writes it.
    pub fn encode(&self, out: &mut String) {
        out.push_str("{\"hostname\": ");
        json::push_string(out, &self.hostname);
        out.push_str(&format!(", \"utcoffset\": {:?}", self.utcoffset));
        push_integer(out, "pid", self.pid);
        push_integer(out, "clock", Some(self.clock));
        self.kind.encode(out);
        out.push_str(&format!(", \"timestamp\": {:?}, \"type\": ", time::to_unix(self.timestamp)));
        json::push_string(out, self.kind.name());
        out.push('}');
    }

    /// The routing key of its channel: `task.multi`, `task.sent`, `worker.heartbeat` …
    pub fn routing_key(&self) -> String {
        match &self.kind {
            Kind::Task { news: TaskNews::Sent(_), .. } => "task.sent".to_owned(),
            Kind::Task { .. } => "task.multi".to_owned(),
            other => other.name().replacen('-', ".", 1),
        }
    }
}

/// The message for a list of task events of one worker; its routing key is `task.multi`.
pub fn encode_tasks(events: &[Event], exchange: &str, delivery_tag: &str) -> Vec<u8> {
    let mut body = String::from("[");
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.push_str(", ");
        }
        event.encode(&mut body);
    }
    body.push(']');
    let hostname = events.first().map_or("", |event| event.hostname.as_str());
    envelope(&headers(hostname), &body, &Properties::transient(exchange, "task.multi", delivery_tag))
}

/// The message for an event that is sent alone: `worker-*` and `task-sent`.
pub fn encode_one(event: &Event, exchange: &str, delivery_tag: &str) -> Vec<u8> {
    let mut body = String::new();
    event.encode(&mut body);
    envelope(&headers(&event.hostname), &body, &Properties::transient(exchange, &event.routing_key(), delivery_tag))
}

fn headers(hostname: &str) -> String {
    let mut headers = String::from("{\"hostname\": ");
    json::push_string(&mut headers, hostname);
    headers.push('}');
    headers
}

impl Kind {
    fn read(kind: String, fields: &Fields<'_>) -> Option<Self> {
        let worker = |news| Some(Self::Worker { news, state: WorkerState::read(fields) });
        match kind.as_str() {
            "worker-online" => worker(WorkerNews::Online),
            "worker-heartbeat" => worker(WorkerNews::Heartbeat),
            "worker-offline" => worker(WorkerNews::Offline),
            _ => match TaskNews::read(&kind, fields) {
                Some(news) => Some(Self::Task { uuid: TaskId::parse(fields.text("uuid")?).ok()?, news }),
                None => Some(Self::Other { kind, members: fields.members(|_| true) }),
            },
        }
    }

    /// Celery's name of the event.
    pub fn name(&self) -> &str {
        match self {
            Self::Task { news, .. } => news.name(),
            Self::Worker { news: WorkerNews::Online, .. } => "worker-online",
            Self::Worker { news: WorkerNews::Heartbeat, .. } => "worker-heartbeat",
            Self::Worker { news: WorkerNews::Offline, .. } => "worker-offline",
            Self::Other { kind, .. } => kind,
        }
    }

    fn encode(&self, out: &mut String) {
        match self {
            Self::Task { uuid, news } => {
                push_text(out, "uuid", Some(uuid.as_str()));
                news.encode(out);
            }
            Self::Worker { state, .. } => state.encode(out),
            Self::Other { members, .. } => {
                let common = ["hostname", "utcoffset", "pid", "clock", "timestamp", "type"];
                for (name, value) in members.iter().filter(|(name, _)| !common.contains(&name.as_str())) {
                    push_raw(out, name, value);
                }
            }
        }
    }
}

impl TaskNews {
    fn read(kind: &str, fields: &Fields<'_>) -> Option<Self> {
        let (exception, traceback) = (|| fields.text("exception").unwrap_or_default(), || fields.text("traceback"));
        Some(match kind {
            "task-sent" => Self::Sent(Box::new(Call::read(fields))),
            "task-received" => Self::Received(Box::new(Call::read(fields))),
            "task-started" => Self::Started,
            "task-succeeded" => Self::Succeeded { result: fields.text("result"), runtime: fields.number("runtime") },
            "task-failed" => Self::Failed { exception: exception(), traceback: traceback() },
            "task-retried" => Self::Retried { exception: exception(), traceback: traceback() },
            "task-revoked" => Self::Revoked {
                terminated: fields.boolean("terminated").unwrap_or(false),
                signum: fields.integer("signum"),
                expired: fields.boolean("expired").unwrap_or(false),
            },
            "task-rejected" => Self::Rejected { requeue: fields.boolean("requeue").unwrap_or(false) },
            "task-cancelled" => Self::Cancelled,
            _ => return None,
        })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Sent(_) => "task-sent",
            Self::Received(_) => "task-received",
            Self::Started => "task-started",
            Self::Succeeded { .. } => "task-succeeded",
            Self::Failed { .. } => "task-failed",
            Self::Retried { .. } => "task-retried",
            Self::Revoked { .. } => "task-revoked",
            Self::Rejected { .. } => "task-rejected",
            Self::Cancelled => "task-cancelled",
        }
    }

    fn encode(&self, out: &mut String) {
        match self {
            Self::Sent(call) => call.encode(out, true),
            Self::Received(call) => call.encode(out, false),
            Self::Started | Self::Cancelled => {}
            Self::Succeeded { result, runtime } => {
                push_text(out, "result", result.as_deref());
                push_float(out, "runtime", *runtime);
            }
            Self::Failed { exception, traceback } | Self::Retried { exception, traceback } => {
                push_text(out, "exception", Some(exception));
                if let Some(traceback) = traceback {
                    push_text(out, "traceback", Some(traceback));
                }
            }
            Self::Revoked { terminated, signum, expired } => {
                push_boolean(out, "terminated", *terminated);
                push_integer(out, "signum", *signum);
                push_boolean(out, "expired", *expired);
            }
            Self::Rejected { requeue } => push_boolean(out, "requeue", *requeue),
        }
    }
}

impl Call {
    fn read(fields: &Fields<'_>) -> Self {
        let id = |name| fields.text(name).and_then(|id| TaskId::parse(id).ok());
        let instant = |name| fields.text(name).and_then(|text| time::parse(&text));
        Self {
            name: fields.text("name"),
            args: fields.text("args"),
            kwargs: fields.text("kwargs"),
            root_id: id("root_id"),
            parent_id: id("parent_id"),
            retries: fields.integer("retries").unwrap_or(0),
            eta: instant("eta"),
            expires: instant("expires"),
            redelivered: fields.boolean("redelivered").unwrap_or(false),
            queue: fields.text("queue"),
            exchange: fields.text("exchange"),
            routing_key: fields.text("routing_key"),
        }
    }

    /// `task-sent` begins with root and parent and ends with the route; the order is Celery's.
    fn encode(&self, out: &mut String, sent: bool) {
        let family = |out: &mut String| {
            push_text(out, "root_id", self.root_id.as_ref().map(TaskId::as_str));
            push_text(out, "parent_id", self.parent_id.as_ref().map(TaskId::as_str));
        };
        if sent {
            family(out);
        }
        push_text(out, "name", self.name.as_deref());
        push_text(out, "args", self.args.as_deref());
        push_text(out, "kwargs", self.kwargs.as_deref());
        if !sent {
            family(out);
        }
        push_integer(out, "retries", Some(self.retries));
        push_text(out, "eta", self.eta.map(time::format).as_deref());
        push_text(out, "expires", self.expires.map(time::format).as_deref());
        if !sent && self.redelivered {
            push_boolean(out, "redelivered", true);
        }
        if sent {
            push_text(out, "queue", self.queue.as_deref());
            push_text(out, "exchange", self.exchange.as_deref());
            push_text(out, "routing_key", self.routing_key.as_deref());
        }
    }
}

impl WorkerState {
    fn read(fields: &Fields<'_>) -> Self {
        let load = fields
            .get("loadavg")
            .and_then(json::elements)
            .map(|load| load.into_iter().map_while(json::number).collect::<Vec<_>>());
        Self {
            freq: fields.number("freq"),
            active: fields.integer("active"),
            processed: fields.integer("processed"),
            loadavg: load.and_then(|load| load.try_into().ok()),
            memory_kib: fields.integer("memory_kib"),
            sw_ident: fields.text("sw_ident"),
            sw_ver: fields.text("sw_ver"),
            sw_sys: fields.text("sw_sys"),
        }
    }

    fn encode(&self, out: &mut String) {
        push_float(out, "freq", self.freq);
        for (name, count) in [("active", self.active), ("processed", self.processed), ("memory_kib", self.memory_kib)] {
            if count.is_some() {
                push_integer(out, name, count);
            }
        }
        if let Some([one, five, fifteen]) = self.loadavg {
            out.push_str(&format!(", \"loadavg\": [{one:?}, {five:?}, {fifteen:?}]"));
        }
        push_text(out, "sw_ident", self.sw_ident.as_deref());
        push_text(out, "sw_ver", self.sw_ver.as_deref());
        push_text(out, "sw_sys", self.sw_sys.as_deref());
    }
}

fn push_text(out: &mut String, name: &str, value: Option<&str>) {
    out.extend([", \"", name, "\": "]);
    json::push_optional(out, value);
}

fn push_raw(out: &mut String, name: &str, value: &Json) {
    out.push_str(", ");
    json::push_string(out, name);
    out.extend([": ", value.get()]);
}

fn push_integer(out: &mut String, name: &str, value: Option<i64>) {
    let value = value.map_or_else(|| "null".to_owned(), |value| value.to_string());
    out.extend([", \"", name, "\": ", &value]);
}

fn push_float(out: &mut String, name: &str, value: Option<f64>) {
    let value = value.map_or_else(|| "null".to_owned(), |value| format!("{value:?}"));
    out.extend([", \"", name, "\": ", &value]);
}

fn push_boolean(out: &mut String, name: &str, value: bool) {
    out.extend([", \"", name, if value { "\": true" } else { "\": false" }]);
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
