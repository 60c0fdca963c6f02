//! The result record that Celery's backend stores under `celery-task-meta-<id>` and publishes on the channel of that name.
//!
//! Reading is tolerant (missing members, compressed payloads, Python's bare `NaN`), but refuses with a reason what is not a record,
//! because other programs may use the same Redis. Values stay text.

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::envelope::{decompress, json_text};
use super::exception::Exception;
use super::json::{self, Fields, Members};
use super::serial::{self, Serializer, pickle};
use super::{DecodeError, bounds, time};
use crate::task::{GroupId, Json, TaskId};

/// State and result of one task.
#[derive(Debug, Clone)]
pub struct ResultMeta {
    /// Missing in records of some writers; the key contains it too.
    pub task_id: Option<TaskId>,
    /// Celery's state, or a custom state of the task.
    pub status: String,
    /// The return value, the exception, or the `meta` of `update_state`.
    pub result: Json,
    pub traceback: Option<String>,
    /// The tasks that it sent; `None` where the writer did not know (REVOKED).
    pub children: Option<Vec<ResultTuple>>,
    /// Only set for ready states.
    pub date_done: Option<Timestamp>,
    pub group_id: Option<GroupId>,
    pub parent_id: Option<TaskId>,
    /// Present with `result_extended`.
    pub extended: Option<Box<Extended>>,
}

/// What `result_extended` adds.
#[derive(Debug, Clone, Default)]
pub struct Extended {
    pub name: Option<String>,
    pub args: Option<Json>,
    pub kwargs: Option<Json>,
    pub worker: Option<String>,
    pub retries: Option<i64>,
    pub queue: Option<String>,
    /// Stamps and all other members of the record.
    pub other: Members,
}

/// A result's position in a canvas: `[[id, parent], nodes]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultTuple {
    pub id: String,
    /// The result before it.
    pub parent: Option<Box<ResultTuple>>,
    /// The members, when it is a group.
    pub nodes: Option<Vec<ResultTuple>>,
}

const MAGIC: &[u8] = b"\0celery-compressed\0";
const KNOWN: [&str; 14] = [
    "task_id",
    "status",
    "result",
    "traceback",
    "children",
    "date_done",
    "group_id",
    "parent_id",
    "name",
    "args",
    "kwargs",
    "worker",
    "retries",
    "queue",
];

impl ResultMeta {
    /// A record with only a state and a value.
    pub fn new(task_id: TaskId, status: impl Into<String>, result: Json) -> Self {
        Self { task_id: Some(task_id), ..Self::of(status, result) }
    }

    /// The same of a task that is named elsewhere.
    pub(super) fn of(status: impl Into<String>, result: Json) -> Self {
        Self {
            task_id: None,
            status: status.into(),
            result,
            traceback: None,
            children: Some(Vec::new()),
            date_done: None,
            group_id: None,
            parent_id: None,
            extended: None,
        }
    }

    /// Reads a stored or published record.
    ///
    /// # Errors
    /// When it is not UTF-8, not JSON (even after decompression), or not a record: not an object, or an object without `status`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > bounds::MAX_BYTES {
            return Err(DecodeError::TooLarge { actual: bytes.len(), limit: bounds::MAX_BYTES });
        }
        let plain = inflate(bytes)?;
        let plain = plain.as_deref().unwrap_or(bytes);
        let serializer = Serializer::of_record(plain);
        if serializer == Serializer::Pickle {
            return Self::pickled(plain);
        }
        // Other programs may store anything under such a key: a single word is valid YAML too, but not a record.
        let other = || serializer.to_json(plain).ok().filter(|text| text.starts_with('{'));
        let text = json_text(plain).or_else(other).ok_or(DecodeError::NotJson)?;
        let fields = Fields::parse(&text).map_err(|_| DecodeError::NotCelery("it is not an object"))?;
        let status = fields
            .text("status")
            .filter(|status| !status.is_empty())
            .ok_or(DecodeError::NotCelery("it has no status"))?;
        Ok(Self {
            task_id: fields.text("task_id").and_then(|id| TaskId::parse(id).ok()),
            status,
            result: fields.get("result").map_or_else(json::null, ToOwned::to_owned),
            traceback: fields.text("traceback"),
            children: fields.get("children").and_then(ResultTuple::decode_list),
            date_done: fields.text("date_done").and_then(|text| time::parse(&text)),
            group_id: fields.text("group_id").and_then(|id| GroupId::parse(id).ok()),
            parent_id: fields.text("parent_id").and_then(|id| TaskId::parse(id).ok()),
            extended: Extended::decode(&fields),
        })
    }

    /// A pickled record: its state is read, its value is kept as bytes.
    fn pickled(bytes: &[u8]) -> Result<Self, DecodeError> {
        let status = pickle::status(bytes).ok_or(DecodeError::NotCelery("it has no status"))?;
        let text = |name: &str| pickle::text(bytes, name);
        let value = serial::opaque(Serializer::Pickle.content_type(), bytes);
        Ok(Self {
            traceback: text("traceback").map(str::to_owned),
            children: None,
            date_done: text("date_done").and_then(time::parse),
            group_id: text("group_id").and_then(|id| GroupId::parse(id).ok()),
            parent_id: text("parent_id").and_then(|id| TaskId::parse(id).ok()),
            task_id: text("task_id").and_then(|id| TaskId::parse(id).ok()),
            ..Self::of(status, json::written(value))
        })
    }

    /// The record as Celery's backend writes it.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(256 + self.result.get().len());
        out.push_str("{\"status\": ");
        json::push_string(&mut out, &self.status);
        out.extend([", \"result\": ", self.result.get(), ", \"traceback\": "]);
        json::push_optional(&mut out, self.traceback.as_deref());
        out.push_str(", \"children\": ");
        push_tuples(self.children.as_deref(), &mut out);
        out.push_str(", \"date_done\": ");
        json::push_optional(&mut out, self.date_done.map(time::format).as_deref());
        push_text(&mut out, "group_id", self.group_id.as_ref().map(GroupId::as_str));
        push_text(&mut out, "parent_id", self.parent_id.as_ref().map(TaskId::as_str));
        if let Some(extended) = &self.extended {
            extended.encode(&mut out);
        }
        push_text(&mut out, "task_id", self.task_id.as_ref().map(TaskId::as_str));
        out.push('}');
        out
    }

    /// Whether Celery itself would call the state final.
    pub fn is_ready(&self) -> bool {
        matches!(self.status.as_str(), "SUCCESS" | "FAILURE" | "REVOKED")
    }

    /// The exception of FAILURE, RETRY and REVOKED; `None` when the task stored something else with `update_state`.
    pub fn exception(&self) -> Option<Exception> {
        matches!(self.status.as_str(), "FAILURE" | "RETRY" | "REVOKED")
            .then(|| Exception::decode(&self.result))
            .flatten()
    }
}

impl Extended {
    fn decode(fields: &Fields<'_>) -> Option<Box<Self>> {
        let extended = Self {
            name: fields.text("name"),
            args: fields.get("args").map(ToOwned::to_owned),
            kwargs: fields.get("kwargs").map(ToOwned::to_owned),
            worker: fields.text("worker"),
            retries: fields.integer("retries"),
            queue: fields.text("queue"),
            other: fields.members(|name| !KNOWN.contains(&name)),
        };
        let present = extended.name.is_some()
            || extended.worker.is_some()
            || extended.queue.is_some()
            || !extended.other.is_empty();
        present.then(|| Box::new(extended))
    }

    fn encode(&self, out: &mut String) {
        push_text(out, "name", self.name.as_deref());
        push_raw(out, "args", self.args.as_deref());
        push_raw(out, "kwargs", self.kwargs.as_deref());
        push_text(out, "worker", self.worker.as_deref());
        if let Some(retries) = self.retries {
            out.extend([", \"retries\": ", &retries.to_string()]);
        }
        push_text(out, "queue", self.queue.as_deref());
        for (name, value) in &self.other {
            push_raw(out, name, Some(value));
        }
    }
}

impl ResultTuple {
    /// A task without a parent.
    pub fn task(id: impl Into<String>) -> Self {
        Self { id: id.into(), parent: None, nodes: None }
    }

    /// `None` when it is not a result tuple or nested too deep.
    pub fn decode(value: &RawValue) -> Option<Self> {
        Self::decode_at(value, 0)
    }

    pub(super) fn decode_list(value: &RawValue) -> Option<Vec<Self>> {
        json::elements(value)?.into_iter().map(|node| Self::decode_at(node, 0)).collect()
    }

    fn decode_at(value: &RawValue, depth: usize) -> Option<Self> {
        if depth > bounds::MAX_NESTING {
            return None;
        }
        let [head, nodes] = json::elements(value)?[..] else { return None };
        let [id, parent] = json::elements(head)?[..] else { return None };
        let nodes = match nodes.get() {
            "null" => None,
            _ => Some(
                json::elements(nodes)?
                    .into_iter()
                    .map(|node| Self::decode_at(node, depth + 1))
                    .collect::<Option<_>>()?,
            ),
        };
        // Older writers put the parent's id where newer ones put its tuple.
        let parent = match (parent.get(), json::text(parent)) {
            ("null", _) => None,
            (_, Some(id)) => Some(Box::new(Self::task(id))),
            _ => Some(Box::new(Self::decode_at(parent, depth + 1)?)),
        };
        Some(Self { id: json::text(id)?, parent, nodes })
    }

    pub fn encode(&self, out: &mut String) {
        out.push_str("[[");
        json::push_string(out, &self.id);
        out.push_str(", ");
        match &self.parent {
            Some(parent) => parent.encode(out),
            None => out.push_str("null"),
        }
        out.push_str("], ");
        push_tuples(self.nodes.as_deref(), out);
        out.push(']');
    }
}

/// `celery-taskset-meta-<gid>`: the structure of a saved group.
pub fn encode_saved_group(group: &ResultTuple) -> String {
    let mut out = String::from("{\"result\": ");
    group.encode(&mut out);
    out.push('}');
    out
}

/// # Errors
/// When it is not the structure of a saved group.
pub fn decode_saved_group(bytes: &[u8]) -> Result<ResultTuple, DecodeError> {
    let plain = inflate(bytes)?;
    let text = json_text(plain.as_deref().unwrap_or(bytes)).ok_or(DecodeError::NotJson)?;
    let fields = Fields::parse(&text).map_err(|_| DecodeError::NotCelery("it is not an object"))?;
    fields.get("result").and_then(ResultTuple::decode).ok_or(DecodeError::NotCelery("it holds no group"))
}

/// The plain bytes of a compressed record; `None` when it is not compressed.
pub(super) fn inflate(bytes: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else { return Ok(None) };
    let end = rest.iter().position(|byte| *byte == 0).ok_or(DecodeError::Decompress)?;
    let method = std::str::from_utf8(&rest[..end]).map_err(|_| DecodeError::Decompress)?;
    decompress(method, &rest[end + 1..]).map(Some)
}

fn push_tuples(tuples: Option<&[ResultTuple]>, out: &mut String) {
    let Some(tuples) = tuples else { return out.push_str("null") };
    out.push('[');
    for (index, tuple) in tuples.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        tuple.encode(out);
    }
    out.push(']');
}

fn push_text(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.extend([", \"", name, "\": "]);
        json::push_string(out, value);
    }
}

fn push_raw(out: &mut String, name: &str, value: Option<&RawValue>) {
    if let Some(value) = value {
        out.push_str(", ");
        json::push_string(out, name);
        out.extend([": ", value.get()]);
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;
    use crate::vectors;

    fn records(vector: &serde_json::Value) -> Vec<String> {
        let mut records = vectors::payloads(vector, "SETEX", |key| key.contains("celery-task-meta-"));
        records.extend(vectors::payloads(vector, "PUBLISH", |key| key.contains("celery-task-meta-")));
        records
    }

    #[test]
    fn every_recorded_result_is_read_and_written_byte_for_byte() {
        let mut seen = 0;
        for (name, vector) in vectors::all().into_iter().filter(|(name, _)| !name.ends_with("config_tz")) {
            for text in records(&vector).iter().filter(|text| text.starts_with('{')) {
                let meta = ResultMeta::decode(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(meta.task_id.is_some() && meta.is_ready() == meta.date_done.is_some(), "{name}");
                assert_eq!(meta.encode(), *text, "{name}");
                seen += 1;
            }
        }
        assert!(seen > 300, "only {seen}");
    }

    #[test]
    fn times_of_other_zones_are_read_as_instants() {
        let text = records(&vectors::load("config_tz")).remove(0);
        let meta = ResultMeta::decode(text.as_bytes()).unwrap();
        assert!(text.contains("2026-11-20T19:20:01.467365+01:00"));
        assert_eq!(meta.date_done.map(time::format).as_deref(), Some("2026-11-20T18:20:01.467365+00:00"));
    }

    #[test]
    fn a_failure_has_type_message_and_module() {
        let vector = vectors::load("result_failure_custom");
        let meta = ResultMeta::decode(vector["stored_value"].as_str().unwrap().as_bytes()).unwrap();
        let exception = meta.exception().unwrap();
        assert_eq!((exception.kind.as_str(), exception.module.as_deref()), ("CustomError", Some("tasks")));
        assert_eq!(exception.text(), "(42, {'why': ['a', 1]})");
        assert!(meta.traceback.unwrap().trim_end().ends_with(&exception.text()));
    }

    #[test]
    fn children_are_result_tuples() {
        let vector = vectors::load("result_children");
        let meta = ResultMeta::decode(vector["stored_value"].as_str().unwrap().as_bytes()).unwrap();
        let ids: Vec<_> = meta.children.unwrap().into_iter().map(|child| child.id).collect();
        assert_eq!(ids, ["5a3638fb-2a68-4fde-b077-c209e2a3d54a", "30924b2a-aff3-4c74-aba7-f08459947d8b"]);
    }

    #[test]
    fn a_saved_group_reads_back() {
        let text = vectors::payloads(&vectors::load("group_saved"), "SETEX", |key| key.contains("taskset")).remove(0);
        let group = decode_saved_group(text.as_bytes()).unwrap();
        assert_eq!(group.nodes.as_ref().unwrap().len(), 2);
        assert_eq!(encode_saved_group(&group), text);
    }

    #[test]
    fn compressed_records_are_read() {
        let text = records(&vectors::load("config_result_compressed")).remove(0);
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.strip_prefix("base64:").unwrap()).unwrap();
        let meta = ResultMeta::decode(&bytes).unwrap();
        assert_eq!(meta.status, "SUCCESS");
        assert_eq!(ResultMeta::decode(&bytes[..40]).unwrap_err(), DecodeError::Decompress);
    }

    #[test]
    fn little_is_needed_and_much_is_tolerated() {
        let meta =
            ResultMeta::decode(br#"{"status": "SUCCESS", "result": [NaN, 12345678901234567890123], "children": 7}"#)
                .unwrap();
        assert_eq!(meta.result.get(), r#"["NaN", 12345678901234567890123]"#);
        assert!(meta.children.is_none() && meta.task_id.is_none() && meta.extended.is_none());
        let failed = ResultMeta::decode(br#"{"status": "FAILURE", "result": {"why": 1}, "task_id": "x"}"#).unwrap();
        assert!(failed.exception().is_none());
    }

    #[test]
    fn what_is_no_record_says_so() {
        assert_eq!(ResultMeta::decode(b"hello").unwrap_err(), DecodeError::NotJson);
        assert_eq!(ResultMeta::decode(&[0xff, 0xfe]).unwrap_err(), DecodeError::NotJson);
        assert_eq!(ResultMeta::decode(b"[1]").unwrap_err(), DecodeError::NotCelery("it is not an object"));
        assert_eq!(ResultMeta::decode(b"{\"state\": 1}").unwrap_err(), DecodeError::NotCelery("it has no status"));
        assert_eq!(ResultMeta::decode(b"{\"status\": 1}").unwrap_err(), DecodeError::NotCelery("it has no status"));
    }
}
