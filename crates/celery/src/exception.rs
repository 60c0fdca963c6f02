//! A Python exception as it stands in a result record: a type, its module and the arguments it was made with.

use serde_json::value::RawValue;

use super::json::{self, Fields};
use super::pyrepr::{self, Sequence};
use crate::task::Json;

/// `{"exc_type": …, "exc_message": […], "exc_module": …}`.
#[derive(Debug, Clone)]
pub struct Exception {
    /// The class, `ValueError`.
    pub kind: String,
    /// The constructor's arguments, a JSON array (or, by other writers, a string).
    pub message: Json,
    /// `builtins`, `celery.exceptions` …
    pub module: Option<String>,
}

/// Errors whose text is `[Errno 2] No such file or directory`.
const OS_ERRORS: [&str; 16] = [
    "OSError",
    "IOError",
    "EnvironmentError",
    "BlockingIOError",
    "ChildProcessError",
    "ConnectionError",
    "BrokenPipeError",
    "ConnectionAbortedError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "FileExistsError",
    "FileNotFoundError",
    "InterruptedError",
    "PermissionError",
    "ProcessLookupError",
    "TimeoutError",
];

impl Exception {
    /// An exception with one text as its argument.
    pub fn new(module: &str, kind: &str, message: &str) -> Self {
        let mut args = String::from("[");
        json::push_string(&mut args, message);
        args.push(']');
        Self { kind: kind.to_owned(), message: json::written(args), module: Some(module.to_owned()) }
    }

    /// `None` when the value is not an exception: a FAILURE whose `result` the task itself set with `update_state`.
    pub fn decode(value: &RawValue) -> Option<Self> {
        let fields = Fields::parse(value.get()).ok()?;
        Some(Self {
            kind: fields.text("exc_type")?,
            message: fields.get("exc_message").map_or_else(|| json::written("[]".into()), ToOwned::to_owned),
            module: fields.text("exc_module"),
        })
    }

    /// As Celery's JSON backend writes it.
    pub fn encode(&self) -> Json {
        let mut out = String::from("{\"exc_type\": ");
        json::push_string(&mut out, &self.kind);
        out.extend([", \"exc_message\": ", self.message.get(), ", \"exc_module\": "]);
        json::push_string(&mut out, self.module.as_deref().unwrap_or("builtins"));
        out.push('}');
        json::written(out)
    }

    /// The message, as `str(exc)` gives it in Python.
    pub fn text(&self) -> String {
        let Some(args) = json::elements(&self.message) else { return pyrepr::str(&self.message) };
        let own_text = matches!(self.kind.as_str(), "TimeLimitExceeded" | "SoftTimeLimitExceeded");
        match args[..] {
            _ if own_text => format!("{}{}", self.kind, pyrepr::repr(&self.message, Sequence::Tuple)),
            [] => String::new(),
            [key] if matches!(self.kind.as_str(), "KeyError" | "NotRegistered") => repr(key),
            [only] => pyrepr::str(only),
            [number, reason] if OS_ERRORS.contains(&self.kind.as_str()) => {
                format!("[Errno {}] {}", pyrepr::str(number), pyrepr::str(reason))
            }
            _ => pyrepr::repr(&self.message, Sequence::Tuple),
        }
    }

    /// `ValueError('boom')`, as events and `ChordError` quote it.
    pub fn repr(&self) -> String {
        match json::elements(&self.message).as_deref() {
            Some([only]) => format!("{}({})", self.kind, repr(only)),
            Some(_) => format!("{}{}", self.kind, pyrepr::repr(&self.message, Sequence::Tuple)),
            None => format!("{}({})", self.kind, repr(&self.message)),
        }
    }
}

fn repr(value: &RawValue) -> String {
    json::text(value).map_or_else(|| pyrepr::repr(value, Sequence::List), |text| pyrepr::quoted(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(kind: &str, message: &str) -> Exception {
        let value = format!(r#"{{"exc_type": "{kind}", "exc_message": {message}, "exc_module": "builtins"}}"#);
        let exception = Exception::decode(&json::verbatim(value.clone()).unwrap()).unwrap();
        assert_eq!(exception.encode().get(), value);
        exception
    }

    #[test]
    fn the_text_is_what_python_prints() {
        assert_eq!(exception("ValueError", r#"["boom"]"#).text(), "boom");
        assert_eq!(exception("ValueError", "[]").text(), "");
        assert_eq!(exception("ValueError", r#"[["a", 1]]"#).text(), "['a', 1]");
        assert_eq!(exception("CustomError", r#"[42, {"why": ["a", 1]}]"#).text(), "(42, {'why': ['a', 1]})");
        assert_eq!(exception("KeyError", r#"["missing"]"#).text(), "'missing'");
        assert_eq!(exception("SoftTimeLimitExceeded", "[]").text(), "SoftTimeLimitExceeded()");
        assert_eq!(exception("TimeLimitExceeded", "[3]").text(), "TimeLimitExceeded(3,)");
        assert_eq!(
            exception("FileNotFoundError", r#"[2, "No such file or directory"]"#).text(),
            "[Errno 2] No such file or directory"
        );
        assert_eq!(exception("ValueError", r#""a plain text""#).text(), "a plain text");
    }

    #[test]
    fn the_repr_is_what_events_carry() {
        assert_eq!(exception("ValueError", r#"["boom"]"#).repr(), "ValueError('boom')");
        assert_eq!(exception("Reject", r#"["no thanks", false]"#).repr(), "Reject('no thanks', False)");
        assert_eq!(exception("ValueError", "[]").repr(), "ValueError()");
    }

    #[test]
    fn a_result_that_is_no_exception_is_not_taken_for_one() {
        assert!(Exception::decode(&json::verbatim(r#"{"why": 1}"#.to_owned()).unwrap()).is_none());
        assert!(Exception::decode(&json::verbatim("7".to_owned()).unwrap()).is_none());
    }
}
