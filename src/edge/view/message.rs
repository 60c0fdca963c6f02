//! A task's message as it was put into the broker, or will be.

use crate::edge::answer::Lends;
use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Mask;
use ledger::{Message, Task};

/// Celery's own texts of the arguments, which would reveal masked values.
const TEXTS: [&str; 2] = ["argsrepr", "kwargsrepr"];

/// The two JSON texts of a message; the broker has the body as base64.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskMessage)]
pub struct MessageView<'a> {
    #[schema(value_type = String)]
    pub task_id: &'a str,
    #[schema(value_type = Option<String>)]
    pub queue: Option<&'a str>,
    pub priority: u8,
    /// How often taskgate published it.
    pub delivery: i32,
    #[schema(value_type = String, example = "application/json")]
    pub content_type: &'static str,
    /// Celery's headers and those of the client; null if a worker made the message from its predecessor's result.
    #[schema(value_type = Option<Object>)]
    pub headers: Option<Cow<'a, RawValue>>,
    /// `[args, kwargs, embed]`
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    pub body: Option<Cow<'a, RawValue>>,
    /// Of the body.
    pub bytes: usize,
}

impl Lends for MessageView<'static> {
    type With<'a> = MessageView<'a>;
}

impl<'a> MessageView<'a> {
    pub fn of(task: &'a Task, message: &'a Message) -> Self {
        let mut hidden = task.options.redact.clone();
        if !hidden.is_empty() {
            hidden.extend(TEXTS.map(str::to_owned));
        }
        let mask = Mask::new(&hidden);
        let shown = |text: &'a str| serde_json::from_str::<&RawValue>(text).ok().map(|value| mask.json(value));
        Self {
            task_id: task.id.as_str(),
            queue: task.queue.as_deref(),
            priority: task.priority.get(),
            delivery: task.delivery,
            content_type: "application/json",
            headers: message.headers.as_deref().and_then(shown),
            body: shown(&message.body),
            bytes: message.body.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::task::Phase;
    use ledger::sample_task;
    use runtime::clock::Time;

    #[test]
    fn masked_fields_are_nowhere_in_the_message() {
        let mut task = sample_task("0199c2a8-0000-7000-8000-000000000001", Phase::Queued, Time(0));
        task.options.redact = vec!["password".to_owned()];
        let message = Message {
            headers: Some(r#"{"task": "t", "argsrepr": "[]", "kwargsrepr": "{'password': 'geheim'}"}"#.to_owned()),
            body: r#"[[], {"password": "geheim"}, {"chain": [{"kwargs": {"password": "geheim"}}]}]"#.to_owned(),
        };
        let text = serde_json::to_string(&MessageView::of(&task, &message)).unwrap();
        assert!(!text.contains("geheim") && text.contains(r#""task": "t""#), "{text}");
    }
}
