//! `on_failure = { task = …, queue = … }`: the task that is submitted when another one has failed for good. It gets the failed
//! task's id, its error and the number of its attempts.
//!
//! The signature is stored with every task of the entry at its submission, so that a later change of the catalog does not affect
//! tasks that are under way.

use serde_json::{Value, json};

use super::canvas::checked_call;
use super::template::Template;
use celery::task::Signature;
use celery::task::signature::Limits;
use celery::task::submission::Submission;

/// Names that its templates may use.
const OFFERED: [&str; 7] = ["id", "error", "error_type", "error_message", "attempts", "task", "queue"];

/// The values of a failed task that the signature gets.
#[derive(Debug, Clone, Copy)]
pub struct FailedTask<'a> {
    pub id: &'a str,
    pub task: &'a str,
    pub queue: &'a str,
    pub error_type: &'a str,
    pub error_message: &'a str,
    pub attempts: u32,
}

/// The signature to store with a task. Without arguments of its own it gets id, error and attempts.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn compile(value: &Value) -> Result<Value, String> {
    let mut call = value.clone();
    if call.get("split").is_some() {
        return Err("/split has no meaning here".to_owned());
    }
    let says_arguments = call.get("args").is_some() || call.get("kwargs").is_some();
    if let Some(members) = call.as_object_mut().filter(|_| !says_arguments) {
        members.insert("args".to_owned(), json!(["{id}", "{error}", "{attempts}"]));
    }
    let (_, template) = checked_call(&call, "")?;
    match template.names().into_iter().find(|name| !OFFERED.contains(name)) {
        Some(name) => Err(format!("{{{name}}} is none of {}", OFFERED.join(", "))),
        None => Ok(call),
    }
}

/// The call for this failed task. `None` when the stored signature cannot be read any more.
pub fn telling(kept: &Value, failed: FailedTask<'_>) -> Option<Signature> {
    let value_of = |name: &str| {
        let value = match name {
            "id" => json!(failed.id),
            "error" => json!({"type": failed.error_type, "message": failed.error_message}),
            "error_type" => json!(failed.error_type),
            "error_message" => json!(failed.error_message),
            "attempts" => json!(failed.attempts),
            "task" => json!(failed.task),
            "queue" => json!(failed.queue),
            _ => Value::Null,
        };
        value.to_string()
    };
    let mut text = String::new();
    Template::parse(kept).ok()?.fill(&value_of, &mut text);
    Submission::parse(&text, Limits::default()).ok().map(|submission| submission.signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: FailedTask<'_> = FailedTask {
        id: "i",
        task: "mail.send",
        queue: "mail",
        error_type: "ValueError",
        error_message: "no \"to\"",
        attempts: 3,
    };

    #[test]
    fn it_gets_id_error_and_attempts_unless_it_says_its_arguments() {
        let told = |call: &Value| telling(&compile(call).unwrap(), FAILED).unwrap().to_json();
        let text = told(&json!({"task": "alarm", "queue": "alarms"}));
        assert!(text.contains(r#""args":["i", {"message":"no \"to\"","type":"ValueError"}, 3]"#), "{text}");
        assert!(text.contains(r#""queue":"alarms""#), "{text}");
        let text = told(&json!({"task": "alarm", "kwargs": {"text": "{task} failed: {error_message}"}}));
        assert!(text.contains(r#"mail.send failed: no \"to\""#), "{text}");
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        assert!(compile(&json!({"task": "alarm", "args": ["{user}"]})).unwrap_err().contains("{user} is none of"));
        assert!(compile(&json!({"queue": "x"})).unwrap_err().contains("/task"));
    }
}
