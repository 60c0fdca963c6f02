//! A chord's bookkeeping in Redis: names of keys, parts and their positions. The scripts are in the backend.

use serde_json::value::RawValue;

use super::exception::Exception;
use super::json;
use super::{DecodeError, result};
use crate::task::Json;

/// Keys of one chord; the backend adds its prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChordKeys {
    /// The saved structure of the header, if it is not flat.
    pub base: String,
    /// Finished parts, sorted by position (`.j`).
    pub parts: String,
    /// Number of parts (`.s`): must exist when the last part ends.
    pub size: String,
    /// Parts added later (`.t`).
    pub added: String,
    /// Parts already counted (`.d`), since 5.7.
    pub counted: String,
    /// Claim of the body, then `done` (`.c`), since 5.7.
    pub claim: String,
}

impl ChordKeys {
    pub fn new(group_id: &str) -> Self {
        let base = format!("celery-taskset-meta-{group_id}");
        let key = |suffix| format!("{base}.{suffix}");
        Self { parts: key('j'), size: key('s'), added: key('t'), counted: key('d'), claim: key('c'), base }
    }
}

/// One finished member: `[1, task id, state, value]`.
#[derive(Debug, Clone)]
pub struct Part {
    pub task_id: String,
    pub state: String,
    /// The return value, or the exception of FAILURE and REVOKED.
    pub value: Json,
}

impl Part {
    pub fn encode(&self) -> String {
        let mut out = String::from("[1, ");
        json::push_string(&mut out, &self.task_id);
        out.push_str(", ");
        json::push_string(&mut out, &self.state);
        out.extend([", ", self.value.get(), "]"]);
        out
    }

    /// # Errors
    /// When it is not a part.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const BAD: DecodeError = DecodeError::NotCelery("it is not a chord part");
        let text = super::envelope::json_text(bytes).ok_or(DecodeError::NotJson)?;
        let parts: Vec<&RawValue> = serde_json::from_str(&text).map_err(|_| BAD)?;
        let [_, task_id, state, value] = parts[..] else { return Err(BAD) };
        let (task_id, state) = (json::text(task_id).ok_or(BAD)?, json::text(state).ok_or(BAD)?);
        Ok(Self { task_id, state, value: value.to_owned() })
    }

    /// Whether the chord fails because of this part.
    pub fn has_failed(&self) -> bool {
        matches!(self.state.as_str(), "FAILURE" | "REVOKED")
    }

    /// The `ChordError` that the body gets because of this part.
    pub fn chord_error(&self) -> Exception {
        let cause =
            Exception::decode(&self.value).map_or_else(|| self.value.get().to_owned(), |exception| exception.repr());
        Exception::new("celery.exceptions", "ChordError", &format!("Dependency {} raised {cause}", self.task_id))
    }
}

/// The position as a score in `.j`: `0`, `1` …, or `+inf` when the message has no `group_index`.
pub fn place(index: Option<i64>) -> String {
    index.map_or_else(|| "+inf".to_owned(), |index| index.to_string())
}

/// The member of `.d`; it must be the same as Python workers write, or a redelivered task counts twice.
pub fn counted(task_id: &str, index: Option<i64>) -> String {
    format!("{task_id}:{}", place(index))
}

/// The body's only argument: the list of values.
pub fn body_argument<'a>(values: impl IntoIterator<Item = &'a RawValue>) -> Json {
    let mut out = String::from("[");
    for value in values {
        if out.len() > 1 {
            out.push_str(", ");
        }
        out.push_str(value.get());
    }
    out.push(']');
    json::written(out)
}

/// The ids of the tasks whose results fill a saved structure, in its order.
pub fn leaves(group: &result::ResultTuple) -> Vec<&str> {
    match &group.nodes {
        Some(nodes) => nodes.iter().flat_map(leaves).collect(),
        None => vec![&group.id],
    }
}

/// The results of a saved structure, nested like the structure. `None` when a result is missing.
pub fn nested(group: &result::ResultTuple, value: &impl Fn(&str) -> Option<Json>) -> Option<Json> {
    match &group.nodes {
        None => value(&group.id),
        Some(nodes) => {
            let values: Vec<Json> = nodes.iter().map(|node| nested(node, value)).collect::<Option<_>>()?;
            Some(body_argument(values.iter().map(AsRef::as_ref)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors;

    #[test]
    fn every_recorded_part_is_written_byte_for_byte() {
        let mut seen = 0;
        for (name, vector) in vectors::all() {
            for text in vectors::payloads(&vector, "ZADD", |key| key.ends_with(".j")) {
                let part = Part::decode(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(part.encode(), text, "{name}");
                seen += 1;
            }
            for text in vectors::payloads(&vector, "SADD", |key| key.ends_with(".d")) {
                let (id, index) = text.rsplit_once(':').unwrap();
                assert_eq!(counted(id, index.parse().ok()), text, "{name}");
            }
        }
        assert!(seen > 30, "only {seen}");
    }

    #[test]
    fn the_keys_are_celerys() {
        let keys = ChordKeys::new("g");
        let all = [keys.base, keys.parts, keys.size, keys.added, keys.counted, keys.claim];
        assert_eq!(all.join(" ").replace("celery-taskset-meta-", ""), "g g.j g.s g.t g.d g.c");
    }

    #[test]
    fn a_failed_part_says_why_the_body_fails() {
        let part = Part::decode(
            br#"[1, "x", "FAILURE", {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}]"#,
        );
        let part = part.unwrap();
        assert!(part.has_failed());
        assert_eq!(part.chord_error().text(), "Dependency x raised ValueError('no')");
        assert_eq!(Part::decode(b"[1]").unwrap_err(), DecodeError::NotCelery("it is not a chord part"));
    }

    #[test]
    fn a_saved_structure_nests_its_results() {
        let text = vectors::payloads(&vectors::load("group_saved"), "SETEX", |key| key.contains("taskset")).remove(0);
        let group = result::decode_saved_group(text.as_bytes()).unwrap();
        assert_eq!(leaves(&group).len(), 2);
        let values = nested(&group, &|id| json::verbatim(format!("\"{}\"", &id[..2])).ok()).unwrap();
        assert_eq!(values.get(), "[\"f0\", \"8f\"]");
        assert!(nested(&group, &|_| None).is_none());
    }
}
