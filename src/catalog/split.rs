//! Fan-out (`split` of a catalog entry): a range of numbers or a list is cut into chunks, and each chunk becomes a task.
//!
//! A [`FanOut`] contains everything that its chunks need, so that it can be stored and carried out later, even if the catalog changes
//! meanwhile. Chunk `n` is computed from it alone: no chunk is held in memory before its turn.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::template::{self, Template};
use super::{Invalid, ResolveError};
use celery::json::{elements, integer};
use celery::task::{Json, QueueName, TaskName};

/// Maximum number of chunks of a call.
pub const MAX_CHUNKS: u64 = 1_000_000;
/// Default maximum number of items in a chunk of a list.
const ITEMS: usize = 100;
/// Default maximum size of a chunk's items in MiB, so that messages stay small.
const MIB: f64 = 4.0;

/// How a call is split.
#[derive(Debug, Clone, PartialEq)]
pub enum Split {
    /// Body fields with the first number, the number after the last, and the size of a chunk. In templates the first two names mean the
    /// chunk's own bounds.
    Range { start: String, end: String, size: Size },
    /// A body field with a list. In templates its name means the chunk's part of the list.
    List { field: String, items: usize, bytes: usize },
}

/// How many numbers a chunk has.
#[derive(Debug, Clone, PartialEq)]
pub enum Size {
    Fixed(i64),
    Field(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Raw {
    Range { start: String, end: String, size: RawSize },
    List { field: String, items: Option<u32>, mib: Option<f64> },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawSize {
    Fixed(i64),
    Field(String),
}

impl Split {
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn compile(value: &Value) -> Result<Self, String> {
        let raw: Raw = serde_json::from_value(value.clone()).map_err(|error| {
            format!("{error}: write range = {{ start, end, size }} or list = {{ field, items, mib }}")
        })?;
        match raw {
            Raw::Range { start, end, size } => {
                let size = match size {
                    RawSize::Fixed(size) if size < 1 => return Err(format!("a chunk of {size} is none")),
                    RawSize::Fixed(size) => Size::Fixed(size),
                    RawSize::Field(name) => Size::Field(name),
                };
                Ok(Self::Range { start, end, size })
            }
            Raw::List { field, items, mib } => {
                let mib = mib.unwrap_or(MIB);
                let items = items.map_or(ITEMS, |items| items as usize);
                if items == 0 || !mib.is_finite() || mib <= 0.0 || mib > 64.0 {
                    return Err("a chunk has at least one item and at most 64 MiB".to_owned());
                }
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 64 MiB")]
                let bytes = (mib * 1_048_576.0) as usize;
                Ok(Self::List { field, items, bytes })
            }
        }
    }

    /// The body fields that it reads.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Range { start, end, size: Size::Field(size) } => vec![start, end, size],
            Self::Range { start, end, .. } => vec![start, end],
            Self::List { field, .. } => vec![field],
        }
    }

    /// Whether a chunk has its own value for this name.
    pub(super) fn covers(&self, name: &str) -> bool {
        match self {
            Self::Range { start, end, .. } => name == start || name == end,
            Self::List { field, .. } => name == field,
        }
    }

    /// Cuts the request's values into chunks. `said` returns the JSON text of a field.
    pub(super) fn cut(&self, said: &dyn Fn(&str) -> String) -> Result<Chunks, ResolveError> {
        match self {
            Self::Range { start, end, size } => {
                let number = |name: &str| whole(&said(name)).ok_or_else(|| at(name, "must be a whole number"));
                let (first, after) = (number(start)?, number(end)?);
                let step = match size {
                    Size::Fixed(size) => *size,
                    Size::Field(name) => number(name)
                        .and_then(|size| if size < 1 { Err(at(name, "must be at least 1")) } else { Ok(size) })?,
                };
                if after < first {
                    return Err(at(end, format!("is below {start}, which is {first}")));
                }
                let chunks = Chunks::Range { start: (start.clone(), first), end: (end.clone(), after), size: step };
                chunks.within_limit(end)
            }
            Self::List { field, items, bytes } => {
                let text = said(field);
                let list: &RawValue = serde_json::from_str(&text).map_err(|_| at(field, "must be a list"))?;
                let parts = elements(list).ok_or_else(|| at(field, "must be a list"))?;
                if let Some(large) = parts.iter().position(|part| part.get().len() + 2 > *bytes) {
                    let detail = format!("is larger than {bytes} bytes, which is all that one task may get");
                    return Err(at(&format!("{field}/{large}"), detail));
                }
                let ends = ends(&parts, *items, *bytes);
                let items = parts.into_iter().map(ToOwned::to_owned).collect();
                Chunks::List { field: field.clone(), items, ends }.within_limit(field)
            }
        }
    }
}

/// Where each chunk of a list ends. A chunk takes as many items as fit.
fn ends(parts: &[&RawValue], items: usize, bytes: usize) -> Vec<usize> {
    let (mut ends, mut count, mut size) = (Vec::new(), 0, 2);
    for (index, part) in parts.iter().enumerate() {
        let own = part.get().len() + 2;
        if count > 0 && (count == items || size + own > bytes) {
            ends.push(index);
            (count, size) = (0, 2);
        }
        count += 1;
        size += own;
    }
    if count > 0 {
        ends.push(parts.len());
    }
    ends
}

fn whole(text: &str) -> Option<i64> {
    let value: &RawValue = serde_json::from_str(text).ok()?;
    if text.starts_with('"') { None } else { integer(value) }
}

fn at(name: &str, detail: impl Into<String>) -> ResolveError {
    let pointer = name.split_once('/').map_or_else(
        || format!("/{}", super::body::escape(name)),
        |(field, index)| format!("/{}/{index}", super::body::escape(field)),
    );
    ResolveError::Invalid(vec![Invalid::new(pointer, detail)])
}

/// The chunks of one request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Chunks {
    Range { start: (String, i64), end: (String, i64), size: i64 },
    List { field: String, items: Vec<Json>, ends: Vec<usize> },
}

impl Chunks {
    fn count(&self) -> u64 {
        match self {
            Self::Range { start, end, size } => end.1.abs_diff(start.1).div_ceil(size.unsigned_abs().max(1)),
            Self::List { ends, .. } => ends.len() as u64,
        }
    }

    pub(super) fn total(&self) -> u32 {
        u32::try_from(self.count()).unwrap_or(u32::MAX)
    }

    fn within_limit(self, name: &str) -> Result<Self, ResolveError> {
        match self.count() {
            count if count > MAX_CHUNKS => {
                Err(at(name, format!("would make {count} tasks, the limit is {MAX_CHUNKS}")))
            }
            _ => Ok(self),
        }
    }

    /// The value of a name of the split in this chunk.
    pub(super) fn value_of(&self, index: u32, name: &str) -> Option<String> {
        match self {
            Self::Range { start, end, size } => {
                let first = start.1.saturating_add(size.saturating_mul(i64::from(index)));
                match name {
                    name if name == start.0 => Some(first.to_string()),
                    name if name == end.0 => Some(first.saturating_add(*size).min(end.1).to_string()),
                    _ => None,
                }
            }
            Self::List { field, items, ends } if name == field => {
                let index = index as usize;
                let first = index.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
                let last = ends.get(index).copied().unwrap_or(first);
                let part: Vec<&str> =
                    items.get(first..last).unwrap_or_default().iter().map(|item| item.get()).collect();
                Some(format!("[{}]", part.join(", ")))
            }
            Self::List { .. } => None,
        }
    }
}

/// A call that becomes many tasks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FanOut {
    task: String,
    queue: Option<String>,
    /// Templates, as written in the catalog.
    args: Vec<Value>,
    kwargs: BTreeMap<String, Value>,
    /// The values of the other names, JSON text by name.
    fields: BTreeMap<String, Json>,
    chunks: Chunks,
}

/// The arguments of one task of a fan-out.
#[derive(Debug)]
pub struct Chunk {
    pub task: TaskName,
    pub args: Json,
    pub kwargs: Json,
    pub queue: Option<QueueName>,
}

/// A stored fan-out that cannot be read any more.
#[derive(Debug, thiserror::Error)]
#[error("a kept fan-out is damaged: {0}")]
pub struct Damaged(String);

impl Damaged {
    pub fn new(error: &dyn std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl FanOut {
    pub(super) fn new(
        task: &TaskName,
        queue: Option<&QueueName>,
        templates: (&[Value], &BTreeMap<String, Value>),
        fields: BTreeMap<String, Json>,
        chunks: Chunks,
    ) -> Self {
        let (args, kwargs) = (templates.0.to_vec(), templates.1.clone());
        let queue = queue.map(|queue| queue.as_str().to_owned());
        Self { task: task.as_str().to_owned(), queue, args, kwargs, fields, chunks }
    }

    /// The number of its tasks, at most [`MAX_CHUNKS`].
    pub fn count(&self) -> u32 {
        u32::try_from(self.chunks.count()).unwrap_or(u32::MAX)
    }

    /// The chunks from `first` to before `after`.
    ///
    /// # Errors
    /// When the stored fan-out cannot be read any more.
    pub fn part(&self, first: u32, after: u32) -> Result<Vec<Chunk>, Damaged> {
        let parse = |value: &Value| Template::parse(value).map_err(|error| Damaged::new(&error));
        let task = TaskName::parse(&self.task).map_err(|error| Damaged::new(&error))?;
        let queue = self.queue.as_ref().map(QueueName::parse).transpose().map_err(|error| Damaged::new(&error))?;
        let args = self.args.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let kwargs = self.kwargs.iter().map(|(key, value)| Ok((key.clone(), parse(value)?)));
        let kwargs = kwargs.collect::<Result<Vec<_>, Damaged>>()?;
        let chunk = |index: u32| {
            let value_of = |name: &str| self.value_of(index, name);
            let (mut positional, mut named) = (String::new(), String::new());
            template::array(&args, &value_of, &mut positional);
            template::object(&kwargs, &value_of, &mut named);
            Chunk {
                task: task.clone(),
                args: super::call::json(positional),
                kwargs: super::call::json(named),
                queue: queue.clone(),
            }
        };
        Ok((first..after.min(self.count())).map(chunk).collect())
    }

    fn value_of(&self, index: u32, name: &str) -> String {
        let own = self.chunks.value_of(index, name);
        own.unwrap_or_else(|| self.fields.get(name).map_or_else(|| "null".to_owned(), |value| value.get().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fan_out(split: &Value, said: &Value, args: Vec<Value>) -> Result<FanOut, ResolveError> {
        let chunks = Split::compile(split).unwrap().cut(&|name| said[name].to_string())?;
        let task = TaskName::parse("t").unwrap();
        let fields = BTreeMap::from([("mode".to_owned(), super::super::call::json("\"full\"".to_owned()))]);
        Ok(FanOut::new(&task, None, (&args, &BTreeMap::new()), fields, chunks))
    }

    fn args(fan_out: &FanOut) -> Vec<String> {
        fan_out.part(0, fan_out.count()).unwrap().into_iter().map(|chunk| chunk.args.get().to_owned()).collect()
    }

    fn pointer(error: ResolveError) -> String {
        match error {
            ResolveError::Invalid(errors) => errors[0].pointer.clone(),
            other @ ResolveError::UnknownValue { .. } => panic!("{other}"),
        }
    }

    #[test]
    fn a_range_is_cut_without_gap_or_overlap() {
        let split = json!({"range": {"start": "from", "end": "to", "size": "size"}});
        let said = json!({"from": -5, "to": 20, "size": 10});
        let whole = fan_out(&split, &said, vec![json!("{from}"), json!("{to}"), json!("{mode}-{from}")]).unwrap();
        let expected = [r#"[-5, 5, "full--5"]"#, r#"[5, 15, "full-5"]"#, r#"[15, 20, "full-15"]"#];
        assert_eq!(args(&whole), expected);
        let kept: FanOut = serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
        assert_eq!(args(&kept), expected, "and again after it was kept");
        assert_eq!(fan_out(&split, &json!({"from": 7, "to": 7, "size": 1}), vec![]).unwrap().count(), 0);
    }

    #[test]
    fn a_list_is_cut_by_items_and_by_size_digit_for_digit() {
        let said = json!({"ids": ["a", "b", "c", "dddddddddddddddddddd", "e"]});
        let by_items = json!({"list": {"field": "ids", "items": 2}});
        assert_eq!(
            args(&fan_out(&by_items, &said, vec![json!("{ids}")]).unwrap()),
            [r#"[["a", "b"]]"#, r#"[["c", "dddddddddddddddddddd"]]"#, r#"[["e"]]"#]
        );
        let kept = serde_json::to_string(&fan_out(&by_items, &said, vec![json!("{ids}")]).unwrap()).unwrap();
        assert_eq!(args(&serde_json::from_str(&kept).unwrap())[2], r#"[["e"]]"#);
        let by_size = json!({"list": {"field": "ids", "mib": 0.000_026}});
        assert_eq!(
            args(&fan_out(&by_size, &said, vec![json!("{ids}")]).unwrap()),
            [r#"[["a", "b", "c"]]"#, r#"[["dddddddddddddddddddd"]]"#, r#"[["e"]]"#]
        );
    }

    #[test]
    fn what_cannot_be_cut_is_refused_by_name() {
        let range = json!({"range": {"start": "a", "end": "b", "size": "n"}});
        let refused = |said: &Value| pointer(fan_out(&range, said, vec![]).unwrap_err());
        assert_eq!(refused(&json!({"a": 0, "b": 10, "n": 0})), "/n");
        assert_eq!(refused(&json!({"a": 10, "b": 0, "n": 1})), "/b");
        assert_eq!(refused(&json!({"a": "0", "b": 1, "n": 1})), "/a");
        assert_eq!(refused(&json!({"a": 0.5, "b": 1, "n": 1})), "/a");
        assert_eq!(refused(&json!({"a": i64::MIN, "b": i64::MAX, "n": 1})), "/b");
        let list = json!({"list": {"field": "ids", "mib": 0.000_01}});
        assert_eq!(pointer(fan_out(&list, &json!({"ids": ["a", "bbbbbbbbbbbb"]}), vec![]).unwrap_err()), "/ids/1");
        assert_eq!(pointer(fan_out(&list, &json!({"ids": "a"}), vec![]).unwrap_err()), "/ids");
    }

    #[test]
    fn what_says_no_split_is_refused_at_start() {
        for wrong in [
            json!({}),
            json!({"range": {"start": "a", "end": "b"}}),
            json!({"range": {"start": "a", "end": "b", "size": 0}}),
            json!({"list": {"field": "a", "items": 0}}),
            json!({"list": {"field": "a", "mib": 0}}),
            json!({"list": {"field": "a", "extra": 1}}),
        ] {
            assert!(Split::compile(&wrong).is_err(), "{wrong}");
        }
    }
}
