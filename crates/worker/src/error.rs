//! How a task ends without a value: it asks for a retry, fails, or rejects its message.
//!
//! `?` turns any Rust error into a failure. A Python client that waits for the result sees an exception of the same name, with the
//! same text.

use std::time::Duration;

use serde::Serialize;

use celery::exception::Exception;
use celery::json;

/// What a handler returns instead of a value.
///
/// ```
/// use std::time::Duration;
///
/// use taskgate_worker::{Context, TaskError};
///
/// async fn fetch(context: Context, (page,): (String,)) -> Result<i64, TaskError> {
///     if page.is_empty() {
///         return Err(TaskError::fail("ValueError", "which page?"));
///     }
///     if page == "busy" {
///         let cause = std::io::Error::other("503");
///         return Err(TaskError::retry_in(Duration::from_secs(5 + 2_u64.pow(context.retries())), cause));
///     }
///     // Any error fails the task: a Python client sees a ParseIntError with this text.
///     Ok(page.parse::<i64>()?)
/// }
/// # drop(fetch);
/// assert!(matches!(TaskError::fail("ValueError", "no"), TaskError::Fail(_)));
/// ```
#[derive(Debug, Clone)]
pub enum TaskError {
    /// Run it again later. After the last attempt the cause becomes the failure.
    Retry(Box<Retry>),
    /// It failed: state FAILURE, `link_error` runs.
    Fail(Box<Failure>),
    /// The message goes back to its queue, or (without `requeue`) the task fails with Celery's `Reject`.
    Reject { reason: String, requeue: bool },
    /// Nothing is stored and no callback runs: the state last set with `update_state` stays.
    Ignore,
}

/// An error as stored in the result backend.
#[derive(Debug, Clone)]
pub struct Failure {
    pub exception: Exception,
    /// Python clients show it below the error. `None`: the causes of the error, if it has any.
    pub traceback: Option<String>,
}

/// A request to run again.
#[derive(Debug, Clone, Default)]
pub struct Retry {
    /// The error that caused the retry. `None`: `MaxRetriesExceededError` when no attempt is left.
    pub cause: Option<Failure>,
    /// The delay before the next run. `None`: the policy of the message decides, else that of the task.
    pub delay: Option<Duration>,
    /// The most retries after the first run. `None`: as in the policy.
    pub max_retries: Option<u32>,
}

impl TaskError {
    /// A failure with one text, of a builtin class or any other: `TaskError::fail("ValueError", "no such page")`.
    pub fn fail(kind: &str, message: impl AsRef<str>) -> Self {
        Failure::new("builtins", kind, message.as_ref()).into()
    }

    /// A retry because of `cause`; the task's policy decides when and how often.
    pub fn retry(cause: impl Into<Failure>) -> Self {
        Self::Retry(Box::new(Retry { cause: Some(cause.into()), ..Retry::default() }))
    }

    /// A retry after `delay`.
    pub fn retry_in(delay: Duration, cause: impl Into<Failure>) -> Self {
        Self::Retry(Box::new(Retry { cause: Some(cause.into()), delay: Some(delay), ..Retry::default() }))
    }

    /// For a handler that stops because its soft limit passed: the failure that a Python task gets then.
    pub fn soft_time_limit() -> Self {
        Failure::without_arguments("billiard.exceptions", "SoftTimeLimitExceeded").into()
    }
}

impl Failure {
    pub fn new(module: &str, kind: &str, message: &str) -> Self {
        Self { exception: Exception::new(module, kind, message), traceback: None }
    }

    /// An exception whose arguments are any JSON values.
    pub fn with_arguments(module: &str, kind: &str, arguments: &impl Serialize) -> Self {
        let message = serde_json::value::to_raw_value(arguments).unwrap_or_else(|_| json::written("[]".into()));
        Self {
            exception: Exception { kind: kind.to_owned(), message, module: Some(module.to_owned()), wrapper: None },
            traceback: None,
        }
    }

    pub(crate) fn without_arguments(module: &str, kind: &str) -> Self {
        Self::with_arguments(module, kind, &[(); 0])
    }

    #[must_use]
    pub fn traceback(mut self, text: impl Into<String>) -> Self {
        self.traceback = Some(text.into());
        self
    }

    fn of<E: std::error::Error>(error: &E) -> Self {
        let path = std::any::type_name::<E>();
        let path = path.split('<').next().unwrap_or(path);
        let (module, kind) = path.rsplit_once("::").unwrap_or(("builtins", path));
        let mut text = format!("{kind}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!("\n  caused by: {cause}"));
            source = cause.source();
        }
        Self { exception: Exception::new(&module.replace("::", "."), kind, &error.to_string()), traceback: Some(text) }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}

impl<E: std::error::Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        Failure::of(&error).into()
    }
}

impl From<Failure> for TaskError {
    fn from(failure: Failure) -> Self {
        Self::Fail(Box::new(failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rust_error_is_named_and_told_as_an_exception() {
        let error = "x".parse::<i64>().unwrap_err();
        let TaskError::Fail(failure) = TaskError::from(error) else { panic!("not a failure") };
        assert_eq!(failure.exception.kind, "ParseIntError");
        assert_eq!(failure.exception.text(), "invalid digit found in string");
        assert!(failure.traceback.unwrap().starts_with("ParseIntError: invalid digit"));
    }

    #[test]
    fn a_failure_names_the_class_that_a_python_client_raises() {
        let TaskError::Fail(failure) = TaskError::fail("ValueError", "no such page") else { panic!("not a failure") };
        let written = r#"{"exc_type": "ValueError", "exc_message": ["no such page"], "exc_module": "builtins"}"#;
        assert_eq!(failure.exception.encode().get(), written);
    }
}
