//! A task's row in a database of results, as the record that it stands for: Celery's own table (`celery_taskmeta`, SQLAlchemy) and that
//! of django-celery-results. Pure.
//!
//! The row comes as a JSON object of its columns, because which ones there are depends on versions and settings. Celery 5.7 stores
//! values as its serializer writes them; earlier versions pickle them in SQLAlchemy's table, whatever the serializer is. A pickle is
//! never run: plain data in it is read ([`serial::plain`]), anything else is kept as bytes. Times without a zone are left out, because
//! their zone depends on the database's settings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::json::{self, Fields};
use super::result::{self, Extended, ResultMeta, ResultTuple};
use super::serial::{self, Serializer};
use super::{DecodeError, time};
use crate::task::{Json, TaskId};

/// The content type for a value in an unknown format.
const UNKNOWN: &str = "application/octet-stream";

/// # Errors
/// When it is not an object, or has no state.
pub fn record(row: &str) -> Result<ResultMeta, DecodeError> {
    let fields = Fields::parse(row).map_err(|_| DecodeError::NotCelery("it is not an object"))?;
    let status = fields.text("status").filter(|status| !status.is_empty());
    let status = status.ok_or(DecodeError::NotCelery("it has no status"))?;
    let is_django = fields.text("content_type").is_some();
    let value = if is_django { django(&fields) } else { bytes(&fields, "result").map(|bytes| value(&bytes)) };
    let mut record = ResultMeta::of(status, value.map_or_else(json::null, json::written));
    record.task_id = fields.text("task_id").and_then(|id| TaskId::parse(id).ok());
    record.traceback = fields.text("traceback");
    record.children = if is_django { meta_children(&fields) } else { children(bytes(&fields, "children").as_deref()) };
    record.date_done = fields.text("date_done").filter(|text| has_zone(text)).and_then(|text| time::parse(&text));
    record.extended = extended(&fields);
    Ok(record)
}

/// A column of bytes, as PostgreSQL writes them in JSON.
fn bytes(fields: &Fields<'_>, name: &str) -> Option<Vec<u8>> {
    let text = fields.text(name)?;
    let digits = text.strip_prefix("\\x")?;
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.as_bytes().chunks(2).map(pair).collect()
}

/// A value as JSON text. Its format is not stored, so it is recognised by its bytes.
fn value(bytes: &[u8]) -> String {
    let inflated = result::inflate(bytes).ok().flatten();
    let bytes = inflated.as_deref().unwrap_or(bytes);
    if bytes.starts_with(&[0x80]) && bytes.ends_with(b".") {
        let pickled = || serial::opaque(Serializer::Pickle.content_type(), bytes);
        return serial::plain::to_json(bytes).unwrap_or_else(pickled);
    }
    let is_text = std::str::from_utf8(bytes)
        .is_ok_and(|text| !text.contains(|char: char| char < ' ' && !"\t\r\n".contains(char)));
    let readers: &[Serializer] = if is_text { &[Serializer::Json, Serializer::Yaml] } else { &[Serializer::Msgpack] };
    let read = readers.iter().find_map(|reader| reader.to_json(bytes).ok());
    read.unwrap_or_else(|| serial::opaque(UNKNOWN, bytes))
}

/// django-celery-results stores the format of the value; binary formats are in base64.
fn django(fields: &Fields<'_>) -> Option<String> {
    let (text, content_type) = (fields.text("result")?, fields.text("content_type")?);
    let is_binary = fields.text("content_encoding").is_some_and(|encoding| encoding == "binary");
    let bytes = if is_binary { STANDARD.decode(text.trim()).ok()? } else { text.into_bytes() };
    let read = match Serializer::of_content_type(&content_type) {
        Some(Serializer::Pickle) => serial::plain::to_json(&bytes),
        Some(reader) => reader.to_json(&bytes).ok(),
        None => None,
    };
    Some(read.unwrap_or_else(|| serial::opaque(&content_type, &bytes)))
}

fn meta_children(fields: &Fields<'_>) -> Option<Vec<ResultTuple>> {
    let meta = fields.text("meta")?;
    let members = Fields::parse(&meta).ok()?;
    ResultTuple::decode_list(members.get("children")?)
}

fn children(bytes: Option<&[u8]>) -> Option<Vec<ResultTuple>> {
    let written: Json = json::written(value(bytes?));
    ResultTuple::decode_list(&written)
}

/// `result_extended`; django-celery-results has other names for some.
fn extended(fields: &Fields<'_>) -> Option<Box<Extended>> {
    let either = |name: &str, alias: &str| fields.text(name).or_else(|| fields.text(alias));
    let extended = Extended {
        name: either("name", "task_name"),
        worker: fields.text("worker"),
        queue: fields.text("queue"),
        retries: fields.integer("retries"),
        ..Extended::default()
    };
    let is_told = extended.name.is_some() || extended.worker.is_some() || extended.queue.is_some();
    is_told.then(|| Box::new(extended))
}

/// `…T10:00:00+00:00`, `…Z`.
fn has_zone(text: &str) -> bool {
    text.ends_with('Z') || text.split_once('T').is_some_and(|(_, clock)| clock.contains(['+', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        format!("\\\\x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    fn row(result: &[u8]) -> ResultMeta {
        let text = format!(
            r#"{{"id": 1, "task_id": "a", "status": "SUCCESS", "result": "{}", "date_done": "2026-11-30T10:00:00", "traceback": null}}"#,
            hex(result)
        );
        record(&text).unwrap()
    }

    #[test]
    fn values_are_read_as_any_celery_stored_them() {
        for (stored, expected) in [
            (&b"{\"a\": [1]}"[..], "{\"a\": [1]}"),
            (b"5", "5"),
            (b"\x80\x05K\x05.", "5"),
            (b"\x80\x04]\x94(K\x01K\x02e.", "[1, 2]"),
            (b"\x93\x01\x02\x03", "[1, 2, 3]"),
            (b"- 1\n- x\n", "[1, \"x\"]"),
        ] {
            let spaceless = |text: &str| text.replace(' ', "");
            assert_eq!(spaceless(row(stored).result.get()), spaceless(expected), "{stored:?}");
        }
        let exception = row(b"\x80\x04\x8c\x08builtins\x94\x8c\nValueError\x94\x93\x94\x8c\x01x\x85\x94R\x94.");
        assert!(serial::is_opaque(exception.result.get()), "{}", exception.result.get());
        assert_eq!((exception.status.as_str(), exception.date_done), ("SUCCESS", None), "nobody knows its zone");
    }

    #[test]
    fn a_row_of_django_says_how_its_value_was_written() {
        let text = r#"{"task_id": "a", "status": "FAILURE", "content_type": "application/json", "content_encoding": "utf-8",
            "result": "{\"exc_type\": \"ValueError\", \"exc_message\": [\"boom\"], \"exc_module\": \"builtins\"}",
            "traceback": "Traceback …", "meta": "{\"children\": [[[\"b\", null], null]]}", "worker": "w1", "task_name": "app.add",
            "date_done": "2026-11-30T10:00:00.5+00:00"}"#;
        let read = record(text).unwrap();
        assert_eq!(read.exception().map(|exception| exception.kind), Some("ValueError".to_owned()));
        assert_eq!(read.children.map(|children| children[0].id.clone()), Some("b".to_owned()));
        assert_eq!(read.date_done.map(|at| at.as_millisecond() % 1_000), Some(500));
        let extended = read.extended.unwrap();
        assert_eq!((extended.name.as_deref(), extended.worker.as_deref()), (Some("app.add"), Some("w1")));
        let pickled = r#"{"status": "SUCCESS", "content_type": "application/x-python-serialize", "content_encoding": "binary", "result": "gAVLBS4="}"#;
        assert_eq!(record(pickled).unwrap().result.get(), "5");
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for text in ["[]", "{}", r#"{"status": null}"#] {
            assert!(record(text).is_err());
        }
    }
}
