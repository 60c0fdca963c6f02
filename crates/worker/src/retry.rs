//! The retry policy of one call: the message's own, else the task's.

use serde_json::value::RawValue;

use celery::task::RetryPolicy;
use celery::task::invalid::Problems;

/// The header with a signature's `retry`, a JSON object of its fields.
pub(crate) const RETRY_HEADER: &str = "taskgate_retry";

/// The policy in a message; `None` when there is none or it cannot be read, and the task's own policy applies.
pub(crate) fn policy(header: Option<&RawValue>) -> Option<RetryPolicy> {
    let mut problems = Problems::default();
    let policy = RetryPolicy::read(&mut problems, header?)?;
    problems.found.is_empty().then_some(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_policy_without_mistakes_counts() {
        let read = |text: &str| policy(Some(&*RawValue::from_string(text.to_owned()).unwrap()));
        assert_eq!(
            read(r#"{"max": 1, "delay": 0.5}"#),
            Some(RetryPolicy { max: 1, delay: 0.5, ..RetryPolicy::default() })
        );
        assert_eq!(read(r#"{"max": 1, "dely": 0.5}"#), None);
        assert_eq!(policy(None), None);
    }
}
