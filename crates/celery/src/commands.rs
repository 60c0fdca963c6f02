//! Celery's remote-control commands: their names, their arguments, and whether workers reply.
//!
//! Workers answer a wrong argument with a Python exception, or act on it in an unintended way; so arguments are checked here
//! before anything is published. `election` is not in the table, because it makes workers exit.

use serde_json::value::RawValue;

use crate::task::Invalid;
use crate::task::json::{self, Fields};

/// What an argument must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Boolean,
    /// A whole number of at least this.
    Integer(i64),
    /// A number of at least zero.
    Number,
    /// A string or a list of strings, not empty.
    TextOrTexts,
    Texts,
    Object,
    /// `"100/m"`, `"5/s"`, `"1/h"`, or a number.
    Rate,
    /// A signal's name.
    Signal,
}

/// One argument of a command.
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
}

/// One command.
#[derive(Debug)]
pub struct Command {
    pub name: &'static str,
    pub arguments: &'static [Argument],
    /// It only reads.
    pub inspects: bool,
    /// Workers reply to it.
    pub replies: bool,
}

const fn needs(name: &'static str, kind: Kind) -> Argument {
    Argument { name, kind, required: true }
}

const fn takes(name: &'static str, kind: Kind) -> Argument {
    Argument { name, kind, required: false }
}

const fn inspects(name: &'static str, arguments: &'static [Argument]) -> Command {
    Command { name, arguments, inspects: true, replies: true }
}

const fn acts(name: &'static str, arguments: &'static [Argument]) -> Command {
    Command { name, arguments, inspects: false, replies: true }
}

/// All commands that may be sent to workers, by name.
pub const COMMANDS: &[Command] = &[
    inspects("active", &[takes("safe", Kind::Boolean)]),
    inspects("active_queues", &[]),
    acts(
        "add_consumer",
        &[
            needs("queue", Kind::Text),
            takes("exchange", Kind::Text),
            takes("exchange_type", Kind::Text),
            takes("routing_key", Kind::Text),
        ],
    ),
    acts("autoscale", &[takes("max", Kind::Integer(0)), takes("min", Kind::Integer(0))]),
    acts("cancel_consumer", &[needs("queue", Kind::Text)]),
    inspects("clock", &[]),
    inspects("conf", &[takes("with_defaults", Kind::Boolean)]),
    acts("disable_events", &[]),
    acts("enable_events", &[]),
    acts("heartbeat", &[]),
    inspects("ping", &[]),
    acts("pool_grow", &[takes("n", Kind::Integer(1))]),
    acts("pool_restart", &[takes("modules", Kind::Texts), takes("reload", Kind::Boolean)]),
    acts("pool_shrink", &[takes("n", Kind::Integer(1))]),
    inspects("query_task", &[needs("ids", Kind::TextOrTexts)]),
    acts("rate_limit", &[needs("task_name", Kind::Text), needs("rate_limit", Kind::Rate)]),
    inspects("registered", &[takes("taskinfoitems", Kind::Texts), takes("builtins", Kind::Boolean)]),
    inspects("report", &[]),
    inspects("reserved", &[]),
    acts(
        "revoke",
        &[needs("task_id", Kind::TextOrTexts), takes("terminate", Kind::Boolean), takes("signal", Kind::Signal)],
    ),
    acts(
        "revoke_by_stamped_headers",
        &[needs("headers", Kind::Object), takes("terminate", Kind::Boolean), takes("signal", Kind::Signal)],
    ),
    inspects("revoked", &[]),
    inspects("scheduled", &[]),
    Command { name: "shutdown", arguments: &[], inspects: false, replies: false },
    inspects("stats", &[]),
    acts("terminate", &[needs("signal", Kind::Signal), needs("task_id", Kind::TextOrTexts)]),
    acts("time_limit", &[needs("task_name", Kind::Text), needs("hard", Kind::Number), takes("soft", Kind::Number)]),
];

/// The signals that a worker's `revoke` understands.
pub const SIGNALS: [&str; 8] = ["SIGTERM", "SIGKILL", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGABRT"];

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// The arguments of `revoke`.
pub fn revoke_arguments(ids: &[&str], terminate: bool, signal: &str) -> String {
    serde_json::json!({"task_id": ids, "terminate": terminate, "signal": signal}).to_string()
}

impl Command {
    /// Everything that is wrong with these arguments, with places below `base`.
    pub fn check(&self, arguments: &Fields<'_>, base: &str) -> Vec<Invalid> {
        let mut found = Vec::new();
        let mut refuse = |name: &str, detail: String| {
            let name = name.replace('~', "~0").replace('/', "~1");
            found.push(Invalid { pointer: format!("{base}/{name}"), detail });
        };
        for (name, value) in arguments.iter() {
            match self.arguments.iter().find(|argument| argument.name == name) {
                None => refuse(name, format!("{} takes no such argument", self.name)),
                Some(argument) if value.get() == "null" && !argument.required => {}
                Some(argument) if !argument.kind.fits(value) => {
                    refuse(name, format!("must be {}", argument.kind.words()))
                }
                Some(_) => {}
            }
        }
        for argument in self.arguments.iter().filter(|argument| argument.required) {
            if !arguments.iter().any(|(name, _)| name == argument.name) {
                refuse(argument.name, "is required".to_owned());
            }
        }
        found
    }
}

impl Kind {
    fn fits(self, value: &RawValue) -> bool {
        let text = |value: &RawValue| json::text(value).is_some_and(|text| !text.is_empty());
        let whole = || !value.get().starts_with('"') && !value.get().contains(['.', 'e', 'E']);
        match self {
            Self::Text => text(value),
            Self::Boolean => matches!(value.get(), "true" | "false"),
            Self::Integer(least) => whole() && json::integer(value).is_some_and(|number| number >= least),
            Self::Number => json::number(value).is_some_and(|number| number >= 0.0),
            Self::TextOrTexts => text(value) || Self::Texts.fits(value) && value.get() != "[]",
            Self::Texts => json::elements(value).is_some_and(|texts| texts.into_iter().all(text)),
            Self::Object => value.get().starts_with('{'),
            Self::Rate => {
                json::number(value).is_some_and(|rate| rate >= 0.0)
                    || json::text(value).is_some_and(|text| is_rate(&text))
            }
            Self::Signal => json::text(value).is_some_and(|name| SIGNALS.contains(&name.as_str())),
        }
    }

    fn words(self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Integer(least) => format!("a whole number of at least {least}"),
            Self::Number => "a number of at least 0".to_owned(),
            Self::TextOrTexts => "a text or a list of texts".to_owned(),
            Self::Texts => "a list of texts".to_owned(),
            Self::Object => "an object".to_owned(),
            Self::Rate => "a number or a rate as \"100/m\"".to_owned(),
            Self::Signal => format!("one of {}", SIGNALS.join(", ")),
        }
    }
}

/// `10`, `10/s`, `10.5/m`, `1/h`.
fn is_rate(text: &str) -> bool {
    let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
    matches!(unit, "s" | "m" | "h") && count.parse::<f64>().is_ok_and(|count| count.is_finite() && count >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(command: &str, arguments: &str) -> Vec<String> {
        let fields = Fields::parse(arguments).unwrap();
        find(command).unwrap().check(&fields, "/arguments").into_iter().map(|problem| problem.pointer).collect()
    }

    #[test]
    fn arguments_of_the_wrong_type_are_named_by_their_place() {
        assert_eq!(
            wrong("revoke", r#"{"task_id": 7, "terminate": "yes"}"#),
            ["/arguments/task_id", "/arguments/terminate"]
        );
        assert_eq!(wrong("pool_grow", r#"{"n": 1.5}"#), ["/arguments/n"]);
        assert_eq!(wrong("pool_grow", r#"{"n": "2"}"#), ["/arguments/n"]);
        assert_eq!(wrong("rate_limit", r#"{"task_name": "t", "rate_limit": "often"}"#), ["/arguments/rate_limit"]);
        assert_eq!(wrong("time_limit", r#"{"task_name": "t"}"#), ["/arguments/hard"]);
        assert_eq!(wrong("ping", r#"{"a/b": 1}"#), ["/arguments/a~1b"]);
        assert_eq!(wrong("terminate", r#"{"task_id": "a", "signal": "SIGNONE"}"#), ["/arguments/signal"]);
    }

    #[test]
    fn what_celery_takes_passes() {
        for (command, arguments) in [
            ("ping", "{}"),
            ("revoke", r#"{"task_id": ["a", "b"], "terminate": true, "signal": "SIGKILL"}"#),
            ("rate_limit", r#"{"task_name": "t", "rate_limit": "100/m"}"#),
            ("rate_limit", r#"{"task_name": "t", "rate_limit": 0}"#),
            ("autoscale", r#"{"max": 3, "min": null}"#),
            ("time_limit", r#"{"task_name": "t", "hard": 60, "soft": 30.5}"#),
            ("query_task", r#"{"ids": "a"}"#),
        ] {
            assert!(wrong(command, arguments).is_empty(), "{command} {arguments}");
        }
    }

    #[test]
    fn the_command_that_makes_workers_exit_is_unknown() {
        assert!(find("election").is_none());
        assert!(COMMANDS.is_sorted_by_key(|command| command.name));
    }
}
