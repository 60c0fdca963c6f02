//! Compiles the `[[hooks]]` entries, and turns events of other systems into calls.
//!
//! A template may use `body` (the whole event), a path into the body (`{pull_request.number}`, `{items.0.id}`), `{header.NAME}`,
//! `{hook.delivery}` and `{hook.path}`. Values that an event lacks are null.

use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use super::signed::Scheme;
use super::template::{Template, array, object, parts};
use super::{Entry, RESERVED};
use crate::config::{self, Error, RawHook, Secret};
use celery::json::{Fields, elements, written};
use celery::task::{QueueName, TaskName, TaskSignature};

/// A compiled entry.
#[derive(Debug)]
pub struct Hook {
    pub path: String,
    pub scheme: Scheme,
    pub secrets: Vec<Secret>,
    pub task: TaskName,
    pub tolerance: Duration,
    /// Bytes.
    pub max_body: usize,
    args: Vec<Template>,
    kwargs: Vec<(String, Template)>,
    queue: Option<QueueName>,
}

/// The parts of an event that templates may use.
pub struct Source<'a> {
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    pub body: &'a RawValue,
    pub delivery: &'a str,
}

impl Hook {
    /// Compiles all entries; each must have a path of its own.
    pub(super) fn compile_all(raw: &[RawHook], entries: &[std::sync::Arc<Entry>]) -> Result<Vec<Self>, Error> {
        let mut hooks: Vec<Self> = Vec::with_capacity(raw.len());
        for (index, raw) in raw.iter().enumerate() {
            let place = format!("hooks[{index}] ({})", raw.path.0);
            let hook = Self::compile(&place, raw)?;
            if let Some(other) = hooks.iter().position(|other| other.path == hook.path) {
                return Err(Error::pair(
                    format!("hooks[{other}].path"),
                    format!("{place}.path"),
                    "both have this path",
                ));
            }
            let is_alike = |entry: &&std::sync::Arc<Entry>| {
                entry.endpoint.as_ref().is_some_and(|endpoint| covers(&endpoint.path, &hook.path))
            };
            if let Some(entry) = entries.iter().find(is_alike) {
                let harm = format!("a request to {} could mean either", hook.path);
                return Err(Error::pair(format!("{}.endpoint", entry.place), format!("{place}.path"), harm));
            }
            hooks.push(hook);
        }
        Ok(hooks)
    }

    fn compile(place: &str, raw: &RawHook) -> Result<Self, Error> {
        let at = |key: &str| format!("{place}.{key}");
        let path = path(&raw.path.0).map_err(|why| Error::value(at("path"), why))?;
        let scheme = Scheme::parse(&raw.verify.0)
            .ok_or_else(|| Error::value(at("verify"), "must be \"standard\", \"github\", \"stripe\" or \"slack\""))?;
        let secrets = raw.secret.all();
        if secrets.is_empty() {
            return Err(Error::value(at("secret"), "must not be empty"));
        }
        if let Some(why) = secrets.iter().find_map(|secret| scheme.refuses(secret.reveal())) {
            return Err(Error::value(at("secret"), why));
        }
        let task = TaskName::parse(&raw.task.0).map_err(|error| Error::value(at("task"), error.to_string()))?;
        let queue = raw.queue.as_ref().map(|queue| QueueName::parse(&queue.0)).transpose();
        let template =
            |value: &Value, key: &str| Template::parse(value).map_err(|error| Error::value(at(key), error.to_string()));
        let args = match (&raw.args, &raw.kwargs) {
            (Some(args), _) => args.iter().map(|value| template(value, "args")).collect::<Result<_, _>>()?,
            (None, Some(_)) => Vec::new(),
            (None, None) => vec![Template::Whole("body".to_owned())],
        };
        let kwargs = raw.kwargs.iter().flatten();
        let kwargs = kwargs.map(|(name, value)| Ok((name.clone(), template(value, "kwargs")?)));
        Ok(Self {
            path,
            scheme,
            secrets,
            task,
            tolerance: raw.tolerance.map_or(config::HOOK_TOLERANCE, |span| span.0),
            max_body: raw.max_body.map_or(config::HOOK_MAX_BODY, |bytes| bytes.0),
            args,
            kwargs: kwargs.collect::<Result<_, Error>>()?,
            queue: queue.map_err(|error| Error::value(at("queue"), error.to_string()))?,
        })
    }

    /// The call that an event becomes.
    pub fn call(&self, source: &Source<'_>) -> TaskSignature {
        let value_of = |name: &str| self.value(source, name);
        let (mut args, mut kwargs) = (String::new(), String::new());
        array(&self.args, &value_of, &mut args);
        object(&self.kwargs, &value_of, &mut kwargs);
        let mut task = TaskSignature::new(self.task.clone(), written(args), written(kwargs));
        task.queue.clone_from(&self.queue);
        task
    }

    fn value(&self, source: &Source<'_>, name: &str) -> String {
        let text = |text: Option<&str>| text.map_or_else(|| "null".to_owned(), |text| Value::from(text).to_string());
        if let Some(header) = name.strip_prefix("header.") {
            return text((source.header)(&header.to_ascii_lowercase()));
        }
        match name {
            "body" => source.body.get().to_owned(),
            "hook.delivery" => text(Some(source.delivery)),
            "hook.path" => text(Some(&self.path)),
            _ => {
                let way = name.strip_prefix("body.").unwrap_or(name);
                inside(source.body, way).map_or_else(|| "null".to_owned(), |value| value.get().to_owned())
            }
        }
    }
}

/// The value at a path such as `a.b.0`.
pub fn inside<'a>(value: &'a RawValue, way: &str) -> Option<&'a RawValue> {
    way.split('.').try_fold(value, |value, step| match value.get().as_bytes()[0] {
        b'{' => Fields::parse(value.get()).ok()?.get(step),
        b'[' => elements(value)?.get(step.parse::<usize>().ok()?).copied(),
        _ => None,
    })
}

/// Checks that a path is plain and does not belong to the gateway.
fn path(text: &str) -> Result<String, String> {
    let is_plain = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    let Some(rest) = text.strip_prefix('/').filter(|rest| rest.split('/').all(is_plain)) else {
        return Err("must be a path as /hooks/github: letters, digits and -._~ between slashes".to_owned());
    };
    let first = rest.split('/').next().unwrap_or_default();
    if RESERVED.contains(&first) {
        return Err(format!("/{first} belongs to the gateway itself"));
    }
    Ok(text.to_owned())
}

/// Whether this endpoint matches requests to `path`.
fn covers(endpoint: &str, path: &str) -> bool {
    let (own, asked): (Vec<&str>, Vec<&str>) = (endpoint.split('/').collect(), path.split('/').collect());
    own.len() == asked.len()
        && own.iter().zip(&asked).all(|(left, right)| {
            left == right
                || parts(left)
                    .is_ok_and(|parts| parts.iter().any(|part| matches!(part, super::template::Part::Name(_))))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(toml: &str) -> Vec<RawHook> {
        let config = crate::config::Config::parse(crate::config::Role::Dev, toml).unwrap();
        config.hooks
    }

    fn refused(toml: &str) -> String {
        Hook::compile_all(&raw(toml), &[]).unwrap_err().to_string()
    }

    #[test]
    fn an_event_fills_the_templates() {
        let hooks = Hook::compile_all(
            &raw("[[hooks]]\npath = '/hooks/gh'\nverify = 'github'\nsecret = 's'\ntask = 'app.push'\n\
                  args = ['{repository.full_name}', '{commits.0.id}']\n\
                  kwargs = {n = '{number}', what = 'is {header.X-GitHub-Event}', none = '{a.b}', id = '{hook.delivery}'}"),
            &[],
        )
        .unwrap();
        let body = written(
            r#"{"repository": {"full_name": "o/r"}, "commits": [{"id": "abc"}], "number": 12345678901234567890123}"#
                .into(),
        );
        let header = |name: &str| (name == "x-github-event").then_some("push");
        let call = hooks[0].call(&Source { header: &header, body: &body, delivery: "d1" });
        assert_eq!(call.args.get(), r#"["o/r", "abc"]"#);
        assert_eq!(call.kwargs.get(), r#"{"id": "d1", "n": 12345678901234567890123, "none": null, "what": "is push"}"#);
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_said_at_start() {
        let entry = |path: &str, verify: &str, secret: &str| {
            format!("[[hooks]]\npath = '{path}'\nverify = '{verify}'\nsecret = '{secret}'\ntask = 'a.b'\n")
        };
        assert!(refused(&entry("/v1/x", "github", "s")).contains("belongs to the gateway"));
        assert!(refused(&entry("hooks", "github", "s")).contains("must be a path"));
        assert!(refused(&entry("/h", "gitlab", "s")).contains("verify"));
        assert!(refused(&entry("/h", "standard", "s")).contains("whsec_"));
        let twice = [entry("/h", "github", "s"), entry("/h", "slack", "s")].concat();
        assert!(refused(&twice).contains("both have this path"));
        assert!(!refused(&entry("/v1/x", "github", "geheim")).contains("geheim"));
    }
}
