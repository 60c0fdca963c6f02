//! Retry policies: whether and when a failed task runs again.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::invalid::Problems;

/// A retry policy, in Celery's terms. Defaults are Celery's: 3 retries, 180 seconds apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetryPolicy {
    /// Retries after the first run; 0 means none.
    pub max: u32,
    /// Seconds before the first retry. With `backoff` this is the first step.
    pub delay: f64,
    /// Factor of the delay after each retry; `None` keeps the delay constant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<f64>,
    /// The longest delay in seconds.
    pub cap: f64,
    /// Use a random delay between zero and the computed one, so that failed tasks do not all return at the same moment.
    pub jitter: bool,
    /// Exception classes after which the task runs again; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<String>,
    /// Exception classes after which it never runs again, whatever `on` says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
}

/// Celery's `retry_backoff_max`.
const DEFAULT_CAP: f64 = 600.0;
const FIELDS: [&str; 7] = ["max", "delay", "backoff", "cap", "jitter", "on", "never"];
/// Maximum number of classes in a list.
const MOST_CLASSES: usize = 64;

impl Default for RetryPolicy {
    fn default() -> Self {
        let (on, never) = (Vec::new(), Vec::new());
        Self { max: 3, delay: 180.0, backoff: None, cap: DEFAULT_CAP, jitter: false, on, never }
    }
}

impl RetryPolicy {
    /// The pause before the retry that follows run number `attempt` (0 is the first run).
    /// `random` is between 0 and 1 and only used with jitter.
    pub fn delay_for(&self, attempt: u32, random: f64) -> Duration {
        let factor = self.backoff.map_or(1.0, |backoff| backoff.powi(attempt.min(1000).cast_signed()));
        let cap = if self.backoff.is_some() { self.cap } else { self.cap.max(self.delay) };
        let full = (self.delay * factor).min(cap);
        let seconds = if self.jitter { (full * random.clamp(0.0, 1.0)).floor() } else { full };
        Duration::from_secs_f64(seconds)
    }

    /// Whether the task may run again after run number `attempt`.
    pub fn allows(&self, attempt: u32) -> bool {
        attempt < self.max
    }

    /// Whether an exception of this class is a reason to run again. A result names only the exception's own class, not its base
    /// classes, so only that class is compared.
    pub fn covers(&self, class: &str) -> bool {
        let names = |list: &[String]| list.iter().any(|name| name == class);
        !names(&self.never) && (self.on.is_empty() || names(&self.on))
    }

    /// Reads a policy; absent members get Celery's defaults. `backoff: true` doubles the delay, as in Celery.
    pub fn read(problems: &mut Problems, value: &RawValue) -> Option<Self> {
        let fields = problems.object(value)?;
        problems.refuse_unknown(&fields, &FIELDS);
        let mut policy = Self::default();
        if let Some(value) = fields.get("max") {
            let max = problems.within("max", |problems| problems.integer(value, 0..=10_000))?;
            policy.max = u32::try_from(max).expect("inside the range above");
        }
        if let Some(value) = fields.get("backoff") {
            policy.backoff = problems.within("backoff", |problems| backoff(problems, value))?;
            policy.delay = if policy.backoff.is_some() { 1.0 } else { policy.delay };
        }
        if let Some(value) = fields.get("delay") {
            policy.delay = problems.within("delay", |problems| problems.number(value, 0.0))?;
        }
        if let Some(value) = fields.get("cap") {
            policy.cap = problems.within("cap", |problems| problems.number(value, 0.0))?;
        }
        if let Some(value) = fields.get("jitter") {
            policy.jitter = problems.within("jitter", |problems| problems.boolean(value))?;
        }
        for (name, list) in [("on", &mut policy.on), ("never", &mut policy.never)] {
            if let Some(value) = fields.get(name) {
                *list = problems.within(name, |problems| classes(problems, value))?;
            }
        }
        let both = policy.on.iter().find(|class| policy.never.contains(class));
        if let Some(class) = both {
            problems.add_at("never", format!("has {class}, which stands in on too"));
            return None;
        }
        Some(policy)
    }
}

fn classes(problems: &mut Problems, value: &RawValue) -> Option<Vec<String>> {
    super::submission::list(problems, value, MOST_CLASSES, |problems, value| problems.parsed(value, class))
}

/// Checks the name of a class, in the form that results contain.
fn class(text: String) -> Result<String, &'static str> {
    let is_word = !text.is_empty() && text.chars().all(|char| char.is_alphanumeric() || char == '_');
    if is_word { Ok(text) } else { Err("must be the name of a class without its module, as ValidationError") }
}

fn backoff(problems: &mut Problems, value: &RawValue) -> Option<Option<f64>> {
    match value.get() {
        "true" => Some(Some(2.0)),
        "false" => Some(None),
        _ => problems.number(value, 1.0).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::json::verbatim;

    fn read(text: &str) -> (Option<RetryPolicy>, Vec<String>) {
        let mut problems = Problems::default();
        let policy = RetryPolicy::read(&mut problems, &verbatim(text.to_owned()).unwrap());
        (policy, problems.found.into_iter().map(|invalid| format!("{} {}", invalid.pointer, invalid.detail)).collect())
    }

    #[test]
    fn delays_grow_up_to_the_cap() {
        let (policy, _) = read(r#"{"max": 8, "delay": 60, "backoff": 2, "cap": 600}"#);
        let policy = policy.unwrap();
        let minutes = |attempt| policy.delay_for(attempt, 0.0).as_secs() / 60;
        assert_eq!([0, 1, 2, 3, 4, 5].map(minutes), [1, 2, 4, 8, 10, 10]);
        assert!(policy.allows(7) && !policy.allows(8));
    }

    #[test]
    fn without_backoff_the_delay_stays_celerys_180_seconds() {
        assert_eq!(RetryPolicy::default().delay_for(2, 0.5), Duration::from_secs(180));
        assert_eq!(read(r#"{"delay": 3600}"#).0.unwrap().delay_for(0, 0.0), Duration::from_secs(3600));
    }

    #[test]
    fn jitter_takes_a_whole_number_of_seconds_below_the_delay() {
        let policy = RetryPolicy { delay: 10.0, jitter: true, ..RetryPolicy::default() };
        assert_eq!(policy.delay_for(0, 0.37), Duration::from_secs(3));
        assert_eq!(policy.delay_for(0, 0.0), Duration::ZERO);
        assert_eq!(policy.delay_for(0, 1.0), Duration::from_secs(10));
    }

    #[test]
    fn no_attempt_number_overflows() {
        let policy = RetryPolicy { delay: 1.0, backoff: Some(1e9), ..RetryPolicy::default() };
        assert_eq!(policy.delay_for(u32::MAX, 0.0), Duration::from_secs(600));
    }

    #[test]
    fn classes_decide_whether_it_runs_again() {
        let policy = read(r#"{"on": ["TimeoutError", "OSError"], "never": ["ValidationError"]}"#).0.unwrap();
        assert!(policy.covers("TimeoutError") && !policy.covers("ValueError") && !policy.covers("ValidationError"));
        let policy = read(r#"{"never": ["ValidationError"]}"#).0.unwrap();
        assert!(policy.covers("ValueError") && !policy.covers("ValidationError"));
        assert!(RetryPolicy::default().covers("ValidationError"));
        assert_eq!(
            read(r#"{"on": ["a.b"]}"#).1,
            ["/on/0 must be the name of a class without its module, as ValidationError"]
        );
        assert_eq!(read(r#"{"on": ["A"], "never": ["A"]}"#).1, ["/never has A, which stands in on too"]);
    }

    #[test]
    fn mistakes_are_named() {
        let (policy, found) = read(r#"{"max": -1, "dely": 3}"#);
        assert!(policy.is_none());
        assert_eq!(found, ["/dely unknown field; did you mean delay?", "/max must be between 0 and 10000"]);
        assert_eq!(read(r#"{"backoff": 0.5}"#).1, ["/backoff must be at least 1"]);
        assert_eq!(read("3").1, [" must be an object, not a number"]);
        assert_eq!(read(r#"{"backoff": true, "max": 5}"#).0.unwrap().delay_for(3, 0.0), Duration::from_secs(8));
    }
}
