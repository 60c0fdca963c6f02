//! A Python exception in a result record: its type, its module and its constructor's arguments.

use serde_json::value::RawValue;

use super::json::{self, Fields};
use super::pyrepr::{self, Sequence};
use crate::task::Json;

/// `{"exc_type": …, "exc_message": […], "exc_module": …}`.
#[derive(Debug, Clone)]
pub struct Exception {
    /// The class, `ValueError`.
    pub kind: String,
    /// The constructor's arguments, a JSON array (other writers store a string).
    pub message: Json,
    /// `builtins`, `celery.exceptions` …
    pub module: Option<String>,
    /// The wrapper class that replaced it, because it could not be pickled to leave its pool process.
    pub wrapper: Option<String>,
}

/// Celery's wrapper class; its arguments are module, class, arguments and text of the wrapped exception.
const WRAPPER: &str = "UnpickleableExceptionWrapper";

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
        Self { kind: kind.to_owned(), message: json::written(args), module: Some(module.to_owned()), wrapper: None }
    }

    /// `None` when the value is not an exception: a FAILURE whose `result` the task itself set with `update_state`.
    pub fn decode(value: &RawValue) -> Option<Self> {
        let fields = Fields::parse(value.get()).ok()?;
        let plain = Self {
            kind: fields.text("exc_type")?,
            message: fields.get("exc_message").map_or_else(|| json::written("[]".into()), ToOwned::to_owned),
            module: fields.text("exc_module"),
            wrapper: None,
        };
        Some(plain.unwrapped().unwrap_or(plain))
    }

    /// The exception inside a wrapper.
    fn unwrapped(&self) -> Option<Self> {
        if self.kind != WRAPPER {
            return None;
        }
        let [module, kind, args, ..] = json::elements(&self.message)?[..] else { return None };
        Some(Self {
            kind: json::text(kind)?,
            message: args.to_owned(),
            module: json::text(module),
            wrapper: Some(self.kind.clone()),
        })
    }

    /// Type and message from the end of a traceback, for records that have them nowhere else.
    pub fn of_traceback(traceback: &str) -> Option<Self> {
        let last = traceback.trim_end().lines().rev().find(|line| !line.starts_with(char::is_whitespace))?;
        let (class, message) = last.split_once(": ").unwrap_or((last, ""));
        let is_class = !class.is_empty() && class.chars().all(|c| c.is_alphanumeric() || "._<>".contains(c));
        let (module, kind) = class.rsplit_once('.').unwrap_or(("builtins", class));
        is_class.then(|| Self::new(module, kind, message))
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

    /// The message as Python printed it at the end of its traceback. A record stores arguments that are not JSON as strings, so they
    /// look like string arguments; only without a matching traceback is the message built from them.
    pub fn message_in(&self, traceback: Option<&str>) -> String {
        let text = self.text();
        let traceback = traceback.unwrap_or_default().trim_end();
        if traceback.ends_with(&text) {
            return text;
        }
        let name = |line: &str| line.split(": ").next().unwrap_or_default().rsplit('.').next().map(str::to_owned);
        let mut ends = traceback.rmatch_indices('\n').map(|(at, _)| &traceback[at + 1..]);
        let printed = ends.find(|rest| name(rest).as_ref() == Some(&self.kind));
        printed.and_then(|rest| rest.split_once(": ")).map_or(text, |(_, message)| message.to_owned())
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
    fn a_stand_in_names_the_exception_behind_it() {
        let value = r#"{"exc_type": "UnpickleableExceptionWrapper", "exc_message": ["app.errors", "Broken", [1, "x"], "Broken(1, 'x')"], "exc_module": "celery.utils.serialization"}"#;
        let found = Exception::decode(&json::verbatim(value.to_owned()).unwrap()).unwrap();
        assert_eq!(
            (found.kind.as_str(), found.module.as_deref(), found.text().as_str()),
            ("Broken", Some("app.errors"), "(1, 'x')")
        );
        assert_eq!(found.wrapper.as_deref(), Some("UnpickleableExceptionWrapper"));
    }

    #[test]
    fn arguments_that_were_no_json_are_shown_as_python_printed_them() {
        let found = exception("ValueError", r#"["bad", "{1, 2}"]"#);
        let traceback = "Traceback (most recent call last):\n  File \"t.py\", line 1\nValueError: ('bad', {1, 2})\n";
        assert_eq!(found.message_in(Some(traceback)), "('bad', {1, 2})");
        assert_eq!(found.message_in(None), "('bad', '{1, 2}')");
        let plain = exception("ValueError", r#"["boom"]"#);
        assert_eq!(plain.message_in(Some("Traceback\nValueError: boom\n")), "boom");
        assert_eq!(plain.message_in(Some("Traceback\napp.Other: else\n")), "boom");
    }

    #[test]
    fn a_traceback_alone_says_what_was_raised() {
        let found = Exception::of_traceback("Traceback:\n  File\napp.errors.Broken: no such page\n").unwrap();
        assert_eq!(
            (found.kind.as_str(), found.module.as_deref(), found.text().as_str()),
            ("Broken", Some("app.errors"), "no such page")
        );
        assert!(Exception::of_traceback("").is_none());
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
