//! The protocol between a worker and its child process: frames of a four-byte length and a JSON object, over one socket.
//!
//! Every frame names its run, because an answer may arrive after the run has ended; frames of a run that has ended are ignored.

use std::io::{Read, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::error::{Failure, Retry, TaskError};
use super::super::request::Outcome;
use celery::exception::Exception;
use celery::json;
use celery::task::Json;

/// The longest value that Redis takes, so no message and no result is longer.
pub(super) const MAX_FRAME_BYTES: usize = 512 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToChild {
    /// Run this message, as it came from `queue`. It is a string, because the JSON that Python writes is not always valid JSON.
    Run { run: u64, queue: String, tag: Option<String>, message: String },
    /// The soft limit has passed: tell the handler, and answer whether it watches its cancellation.
    SoftLimit { run: u64 },
    /// The outcome of a call: `sent` is the result tuple of the submitted task.
    Answer { call: u64, problem: Option<String>, sent: Option<Json> },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToWorker {
    /// The handlers are registered; the child waits for its first run.
    Ready,
    UpdateState {
        run: u64,
        call: u64,
        state: String,
        meta: Json,
    },
    Submit {
        run: u64,
        call: u64,
        signature: Json,
    },
    /// Whether the handler watches its cancellation.
    Heard {
        run: u64,
        watched: bool,
    },
    Ended {
        run: u64,
        end: End,
    },
}

/// How a handler ended, as data.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum End {
    Returned(Json),
    Failed(Cause),
    Retry { cause: Option<Cause>, delay_secs: Option<f64>, max_retries: Option<u32> },
    Rejected { reason: String, requeue: bool },
    Ignored,
    SoftTimeLimit,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cause {
    kind: String,
    message: Json,
    module: Option<String>,
    traceback: Option<String>,
}

impl From<Failure> for Cause {
    fn from(failure: Failure) -> Self {
        let Exception { kind, message, module, .. } = failure.exception;
        Self { kind, message, module, traceback: failure.traceback }
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        let Cause { kind, message, module, traceback } = cause;
        Self { exception: Exception { kind, message, module, wrapper: None }, traceback }
    }
}

impl From<Outcome> for End {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Returned(value) => Self::Returned(value),
            Outcome::Error(TaskError::Fail(failure)) => Self::Failed((*failure).into()),
            Outcome::Error(TaskError::Retry(retry)) => Self::Retry {
                cause: retry.cause.map(Cause::from),
                delay_secs: retry.delay.map(|delay| delay.as_secs_f64()),
                max_retries: retry.max_retries,
            },
            Outcome::Error(TaskError::Reject { reason, requeue }) => Self::Rejected { reason, requeue },
            Outcome::Error(TaskError::Ignore) => Self::Ignored,
            // The worker decides the other outcomes: a child either ends by itself or is told that its soft limit has passed.
            Outcome::SoftTimeLimit
            | Outcome::TimeLimit(_)
            | Outcome::WorkerLost(_)
            | Outcome::Terminated { .. }
            | Outcome::Cancelled => Self::SoftTimeLimit,
        }
    }
}

impl From<End> for Outcome {
    fn from(end: End) -> Self {
        match end {
            End::Returned(value) => Self::Returned(value),
            End::Failed(cause) => Self::Error(Failure::from(cause).into()),
            End::Retry { cause, delay_secs, max_retries } => Self::Error(TaskError::Retry(Box::new(Retry {
                cause: cause.map(Failure::from),
                delay: delay_secs.and_then(|secs| Duration::try_from_secs_f64(secs).ok()),
                max_retries,
            }))),
            End::Rejected { reason, requeue } => Self::Error(TaskError::Reject { reason, requeue }),
            End::Ignored => Self::Error(TaskError::Ignore),
            End::SoftTimeLimit => Self::SoftTimeLimit,
        }
    }
}

/// The JSON that `encode` appends.
pub(super) fn encoded(encode: impl FnOnce(&mut String)) -> Json {
    let mut text = String::new();
    encode(&mut text);
    json::written(text)
}

/// Writes one frame.
///
/// # Errors
/// When the other side is gone.
pub(super) fn write(out: &mut impl Write, frame: &impl Serialize) -> std::io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, frame)?;
    let length = u32::try_from(bytes.len() - 4).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    out.write_all(&bytes)
}

/// Waits for one frame and reads it.
///
/// # Errors
/// When the other side is gone, or sends something else.
pub(super) fn read<T: for<'de> Deserialize<'de>>(input: &mut impl Read) -> std::io::Result<T> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME_BYTES {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(outcome: Outcome) -> Outcome {
        let mut bytes = Vec::new();
        write(&mut bytes, &ToWorker::Ended { run: 7, end: outcome.into() }).unwrap();
        match read(&mut &bytes[..]).unwrap() {
            ToWorker::Ended { run: 7, end } => end.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_end_is_the_same_on_the_other_side() {
        let value: Json = serde_json::value::RawValue::from_string(r#"{"a":  [1, "☃"]}"#.to_owned()).unwrap();
        let Outcome::Returned(same) = through(Outcome::Returned(value.clone())) else { panic!("not returned") };
        assert_eq!(same.get(), value.get());
        let failed = TaskError::fail("ValueError", "no");
        let Outcome::Error(TaskError::Fail(failure)) = through(Outcome::Error(failed)) else { panic!("not failed") };
        assert_eq!((failure.exception.kind.as_str(), failure.exception.text().as_str()), ("ValueError", "no"));
        let retry = TaskError::retry_in(Duration::from_millis(1_500), Failure::new("builtins", "KeyError", "k"));
        let Outcome::Error(TaskError::Retry(retry)) = through(Outcome::Error(retry)) else { panic!("no retry") };
        assert_eq!((retry.delay, retry.max_retries), (Some(Duration::from_millis(1_500)), None));
        let rejected = TaskError::Reject { reason: "no".into(), requeue: true };
        assert!(matches!(through(Outcome::Error(rejected)), Outcome::Error(TaskError::Reject { requeue: true, .. })));
        assert!(matches!(through(Outcome::Error(TaskError::Ignore)), Outcome::Error(TaskError::Ignore)));
        assert!(matches!(through(Outcome::SoftTimeLimit), Outcome::SoftTimeLimit));
    }

    #[test]
    fn a_frame_cut_off_or_too_long_is_an_error() {
        let mut bytes = Vec::new();
        write(&mut bytes, &ToChild::SoftLimit { run: 1 }).unwrap();
        assert!(read::<ToChild>(&mut &bytes[..bytes.len() - 1]).is_err());
        assert!(read::<ToChild>(&mut &[0xff, 0xff, 0xff, 0xff, 0][..]).is_err());
    }
}
