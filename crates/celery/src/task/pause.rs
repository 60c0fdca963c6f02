//! Canvas steps that the gateway carries out itself: `wait` for an answer from outside, `sleep` for a time.
//!
//! On the wire such a step is an ordinary task on a queue that only the gateway reads, so any worker can publish it as the next step
//! of a chain or the body of a chord. The keyword arguments say what the step has to do.
//!
//! Invariant: every step that [`Pause::read`] accepts can be read back from its message by [`Pause::of`].

use serde_json::value::RawValue;

use super::Json;
use super::invalid::Problems;
use super::json::{self, Fields};

/// The queue of these steps. Clients may not use it, see [`super::reserved`].
pub const QUEUE: &str = "taskgate.waits";
/// A step that ends with an answer from outside.
pub const WAIT: &str = "taskgate.wait";
/// A step that ends by itself.
pub const SLEEP: &str = "taskgate.sleep";
/// Task names with this prefix belong to the gateway.
pub const PREFIX: &str = "taskgate.";

/// Maximum length of the name of a wait, in characters.
const MAX_NAME: usize = 255;

/// Maximum size of a schema, in bytes: it is compiled when the step is submitted and when it is answered.
const MAX_SCHEMA: usize = 16 << 10;

/// What a step has to do.
#[derive(Debug, Clone)]
pub enum Pause {
    Wait(Wait),
    /// Seconds.
    Sleep(f64),
}

/// A step that waits for an answer.
#[derive(Debug, Clone)]
pub struct Wait {
    pub name: String,
    /// Seconds; without it, as long as the history is kept.
    pub timeout: Option<f64>,
    /// JSON Schema of the answer.
    pub schema: Option<Json>,
    pub on_timeout: OnTimeout,
}

/// What happens when a wait gets no answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    /// The step fails.
    Fail,
    /// The canvas goes on as if the step were not there.
    Skip,
}

impl OnTimeout {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Fail, Self::Skip].into_iter().find(|choice| choice.as_str() == text)
    }
}

/// Whether a task of this name is a step of the gateway.
pub fn is_pause(name: &str) -> bool {
    name == WAIT || name == SLEEP
}

/// Whether the gateway itself is carrying out this task.
pub fn is_held_here(queue: Option<&str>) -> bool {
    queue == Some(QUEUE)
}

impl Pause {
    /// Reads the keyword arguments of a step as a client wrote them.
    pub fn read(problems: &mut Problems, name: &str, kwargs: &RawValue) -> Option<Self> {
        let fields = problems.object(kwargs)?;
        if name == SLEEP {
            problems.refuse_unknown(&fields, &["seconds"]);
            return seconds(problems, &fields, "seconds", true).map(Self::Sleep);
        }
        problems.refuse_unknown(&fields, &["name", "timeout", "schema", "on_timeout"]);
        let name = wait_name(problems, &fields);
        let timeout = seconds(problems, &fields, "timeout", false);
        let schema =
            fields.get("schema").and_then(|value| problems.within("schema", |problems| schema(problems, value)));
        let on_timeout = fields.get("on_timeout").and_then(|value| {
            problems.within("on_timeout", |problems| {
                problems.parsed(value, |text| OnTimeout::parse(&text).ok_or("must be \"fail\" or \"skip\""))
            })
        });
        let on_timeout = on_timeout.unwrap_or(OnTimeout::Fail);
        Some(Self::Wait(Wait { name: name?, timeout, schema, on_timeout }))
    }

    /// Reads a step from a message. `None` when it is another task, or not in the form that the gateway writes.
    pub fn of(name: &str, kwargs: &RawValue) -> Option<Self> {
        let mut problems = Problems::default();
        let pause = is_pause(name).then(|| Self::read(&mut problems, name, kwargs)).flatten();
        pause.filter(|_| problems.found.is_empty())
    }

    /// The name under which people see the step.
    pub fn name(&self) -> &str {
        match self {
            Self::Wait(wait) => &wait.name,
            Self::Sleep(_) => "sleep",
        }
    }

    /// Seconds from the beginning of the step to its end, unless it is ended earlier.
    pub fn seconds(&self) -> Option<f64> {
        match self {
            Self::Wait(wait) => wait.timeout,
            Self::Sleep(seconds) => Some(*seconds),
        }
    }
}

fn wait_name(problems: &mut Problems, fields: &Fields<'_>) -> Option<String> {
    let Some(value) = fields.get("name") else {
        problems.add_at("name", "is required");
        return None;
    };
    problems.within("name", |problems| {
        let name = problems.text(value)?;
        let is_good = (1..=MAX_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        if !is_good {
            problems.add(format!("must have 1 to {MAX_NAME} characters and no control characters"));
        }
        is_good.then_some(name)
    })
}

fn seconds(problems: &mut Problems, fields: &Fields<'_>, name: &str, is_needed: bool) -> Option<f64> {
    match fields.get(name) {
        Some(value) if value.get() == "null" && !is_needed => None,
        Some(value) => problems.within(name, |problems| problems.positive(value)),
        None => {
            if is_needed {
                problems.add_at(name, "is required");
            }
            None
        }
    }
}

fn schema(problems: &mut Problems, value: &RawValue) -> Option<Json> {
    if value.get().len() > MAX_SCHEMA {
        problems.add(format!("has more than {MAX_SCHEMA} bytes"));
        return None;
    }
    match value.get().as_bytes()[0] {
        b'{' | b't' | b'f' => Some(value.to_owned()),
        b'n' => None,
        _ => {
            problems.add("must be a JSON Schema: an object, true or false");
            None
        }
    }
}

/// Builds the keyword arguments of `{"sleep": seconds}`.
pub fn sleep_kwargs(seconds: &RawValue) -> Json {
    json::written(format!("{{\"seconds\": {}}}", seconds.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, kwargs: &str) -> (Option<Pause>, Vec<String>) {
        let mut problems = Problems::default();
        let pause = Pause::read(&mut problems, name, &json::written(kwargs.to_owned()));
        (pause, problems.found.into_iter().map(|problem| problem.pointer).collect())
    }

    #[test]
    fn a_wait_is_read_with_its_defaults() {
        let (pause, wrong) = read(WAIT, r#"{"name": "approve", "timeout": 60, "schema": {"type": "boolean"}}"#);
        let Some(Pause::Wait(wait)) = pause else { panic!("{wrong:?}") };
        assert_eq!((wait.name.as_str(), wait.timeout, wait.on_timeout), ("approve", Some(60.0), OnTimeout::Fail));
        assert_eq!(wait.schema.unwrap().get(), r#"{"type": "boolean"}"#);
    }

    #[test]
    fn every_mistake_is_named_by_its_place() {
        let (_, wrong) = read(WAIT, r#"{"timeout": 0, "schema": 1, "on_timeout": "retry", "extra": 1}"#);
        assert_eq!(wrong, ["/extra", "/name", "/timeout", "/schema", "/on_timeout"]);
        assert_eq!(read(SLEEP, "{}").1, ["/seconds"]);
        assert_eq!(read(SLEEP, r#"{"seconds": "5"}"#).1, ["/seconds"]);
    }

    #[test]
    fn a_message_of_another_task_is_no_step() {
        assert!(Pause::of("tasks.add", &json::written("{}".into())).is_none());
        assert!(Pause::of(SLEEP, &sleep_kwargs(&json::written("2.5".into()))).is_some());
    }
}
