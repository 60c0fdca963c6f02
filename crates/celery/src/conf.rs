//! Reads from a worker's `inspect conf` the settings that must be the same in taskgate.
//!
//! Celery masks values whose name sounds like a secret, such as names with `key`: so `global_keyprefix` and `unacked_key` only show
//! whether they are set.

use serde_json::Value;

use crate::{FanoutPrefix, Transport};

/// Options that Celery masks, by their names in `broker_transport_options`.
pub const MASKED: [&str; 4] = ["global_keyprefix", "unacked_key", "unacked_index_key", "unacked_mutex_key"];

/// One worker's settings. `None`: Celery's default.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Conf {
    pub sep: Option<String>,
    pub priority_steps: Option<Vec<u8>>,
    pub queue_order_strategy: Option<String>,
    pub fanout_prefix: Option<FanoutPrefix>,
    pub fanout_patterns: Option<bool>,
    /// The options of [`MASKED`] that are set.
    pub masked: Vec<&'static str>,
    /// Seconds.
    pub visibility_timeout: Option<f64>,
    /// Seconds. Zero: never.
    pub result_expires: Option<f64>,
    /// With the password masked, as Celery masks it.
    pub result_backend: Option<String>,
    pub backend_prefix: Hidden,
    /// Names of serializers or content types.
    pub accept_content: Option<Vec<String>>,
    pub result_serializer: Option<String>,
}

/// A setting that may be masked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Hidden {
    #[default]
    Unset,
    /// It is set, but Celery does not show its value.
    Masked,
    Shown(String),
}

impl Conf {
    /// Reads the reply, which has Celery's settings by name.
    pub fn read(settings: &Value) -> Self {
        let options = &settings["broker_transport_options"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let steps = |value: &Value| {
            let steps = value.as_array()?.iter().map(|step| u8::try_from(step.as_u64()?).ok());
            steps.collect::<Option<Vec<u8>>>()
        };
        let is_set = |name: &&str| options[*name].as_str().is_some_and(|value| !value.is_empty());
        Self {
            sep: text(&options["sep"]),
            priority_steps: steps(&options["priority_steps"]),
            queue_order_strategy: text(&options["queue_order_strategy"]),
            fanout_prefix: fanout_prefix(&options["fanout_prefix"]),
            fanout_patterns: options["fanout_patterns"].as_bool(),
            masked: MASKED.into_iter().filter(is_set).collect(),
            visibility_timeout: seconds(&options["visibility_timeout"]),
            result_expires: seconds(&settings["result_expires"]),
            result_backend: text(&settings["result_backend"]),
            backend_prefix: Hidden::read(&settings["result_backend_transport_options"]["global_keyprefix"]),
            accept_content: texts(&settings["accept_content"]),
            result_serializer: text(&settings["result_serializer"]),
        }
    }

    /// The worker's transport options. Masked options are assumed to equal ours, because a worker that answers received our request.
    pub fn transport(&self, ours: &Transport) -> Transport {
        let kombus = Transport::default();
        Transport {
            sep: self.sep.clone().unwrap_or(kombus.sep),
            priority_steps: self.priority_steps.clone().unwrap_or(kombus.priority_steps),
            fanout_prefix: self.fanout_prefix.clone().unwrap_or(kombus.fanout_prefix),
            fanout_patterns: self.fanout_patterns.unwrap_or(kombus.fanout_patterns),
            ..ours.clone()
        }
    }

    /// Whether the worker accepts messages with JSON content.
    pub fn accepts_json(&self) -> bool {
        let is_json = |name: &String| name == "json" || name == "application/json";
        self.accept_content.as_ref().is_none_or(|names| names.iter().any(is_json))
    }
}

impl Hidden {
    fn read(value: &Value) -> Self {
        match value.as_str() {
            None | Some("") => Self::Unset,
            Some(text) if text.bytes().all(|byte| byte == b'*') => Self::Masked,
            Some(text) => Self::Shown(text.to_owned()),
        }
    }
}

impl Transport {
    /// The options that differ: the key under `[broker]`, and the line of TOML that sets it to the value in `theirs`.
    pub fn differences(&self, theirs: &Self) -> Vec<(&'static str, String)> {
        let line =
            |name: &'static str, differs: bool, value: String| differs.then(|| (name, format!("{name} = {value}")));
        let steps: Vec<String> = theirs.priority_steps.iter().map(u8::to_string).collect();
        let prefix = match &theirs.fanout_prefix {
            FanoutPrefix::Database => "true".to_owned(),
            FanoutPrefix::None => "false".to_owned(),
            FanoutPrefix::Text(text) => quoted(text),
        };
        let all = [
            line("sep", self.sep != theirs.sep, quoted(&theirs.sep)),
            line("priority_steps", self.priority_steps != theirs.priority_steps, format!("[{}]", steps.join(", "))),
            line("fanout_prefix", self.fanout_prefix != theirs.fanout_prefix, prefix),
            line("fanout_patterns", self.fanout_patterns != theirs.fanout_patterns, theirs.fanout_patterns.to_string()),
        ];
        all.into_iter().flatten().collect()
    }
}

/// A basic string of TOML; its escapes are JSON's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn fanout_prefix(value: &Value) -> Option<FanoutPrefix> {
    match value {
        Value::Bool(true) => Some(FanoutPrefix::Database),
        Value::Bool(false) => Some(FanoutPrefix::None),
        Value::String(text) if text.is_empty() => Some(FanoutPrefix::None),
        Value::String(text) => Some(FanoutPrefix::Text(text.clone())),
        _ => None,
    }
}

fn texts(list: &Value) -> Option<Vec<String>> {
    list.as_array().map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// A number, or Python's text of a `timedelta`: `1 day, 0:00:00`.
fn seconds(value: &Value) -> Option<f64> {
    if let Some(number) = value.as_f64() {
        return Some(number);
    }
    let text = value.as_str()?;
    let (days, clock) = match text.split_once(", ") {
        Some((days, clock)) => (days.split(' ').next()?.parse::<f64>().ok()?, clock),
        None => (0.0, text),
    };
    let parts: Vec<f64> = clock.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    match parts.as_slice() {
        [hours, minutes, seconds] => Some(days * 86_400.0 + hours * 3_600.0 + minutes * 60.0 + seconds),
        [number] => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_read_as_python_writes_them() {
        assert_eq!(seconds(&json!(3600)), Some(3_600.0));
        assert_eq!(seconds(&json!("1 day, 0:00:00")), Some(86_400.0));
        assert_eq!(seconds(&json!("0:30:00")), Some(1_800.0));
        assert_eq!(seconds(&json!(null)), None);
        assert_eq!(seconds(&json!("soon")), None);
    }

    #[test]
    fn what_celery_masks_is_no_value() {
        let conf = Conf::read(&json!({
            "broker_transport_options": {"global_keyprefix": "********", "unacked_key": "********", "sep": ":"},
            "result_backend_transport_options": {"global_keyprefix": "********"},
        }));
        assert_eq!(conf.masked, ["global_keyprefix", "unacked_key"]);
        assert_eq!((conf.sep.as_deref(), &conf.backend_prefix), (Some(":"), &Hidden::Masked));
        let shown = json!({"result_backend_transport_options": {"global_keyprefix": "res"}});
        assert_eq!(Conf::read(&shown).backend_prefix, Hidden::Shown("res".to_owned()));
        assert_eq!(Conf::read(&json!({})), Conf::default());
    }

    #[test]
    fn differing_options_are_told_as_lines_to_paste() {
        let ours = Transport { global_keyprefix: "app:".to_owned(), ..Transport::default() };
        let told = json!({"broker_transport_options": {"sep": ":", "priority_steps": [0, 5], "fanout_prefix": "/x."}});
        let lines: Vec<String> =
            ours.differences(&Conf::read(&told).transport(&ours)).into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["sep = \":\"", "priority_steps = [0, 5]", "fanout_prefix = \"/x.\""]);
        assert!(ours.differences(&Conf::default().transport(&ours)).is_empty());
        let back = Transport { sep: ":".to_owned(), ..ours.clone() }.differences(&ours);
        assert_eq!(back[0].1, "sep = \"\\u0006\\u0016\"");
    }

    #[test]
    fn a_worker_accepts_json_unless_it_says_otherwise() {
        assert!(Conf::default().accepts_json());
        assert!(Conf::read(&json!({"accept_content": ["pickle", "application/json"]})).accepts_json());
        assert!(!Conf::read(&json!({"accept_content": ["yaml"]})).accepts_json());
    }
}
