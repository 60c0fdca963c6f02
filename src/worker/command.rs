//! Tasks that are executables: shell scripts and other languages become workers by being named.
//!
//! The program gets the positional arguments on its command line (texts as they are, other values as JSON) and the whole call as
//! one JSON object on its input. A line `{"progress": …}` on its output becomes `update_state`, its last other JSON line is the
//! result. It runs in a process group of its own, so that what it starts ends with it.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::context::{Context, PROGRESS};
use super::error::Failure;
use super::execute::{Execution, Kill, killed, passed};
use super::request::Outcome;
use super::signals::signal_group;
use crate::celery::json;
use crate::task::Json;

/// The longest line that is read; what is longer is no result.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// How much of the error output a failure shows.
const TAIL_BYTES: usize = 4 << 10;
/// Between the polite signal and the certain one.
const GRACE: Duration = Duration::from_secs(10);

/// An executable as a task.
#[derive(Debug, Clone)]
pub struct Command {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// Why the process is being ended.
enum Ending {
    Soft,
    Hard(Duration),
    Kill(Kill),
}

impl Command {
    /// A program by its path, or by its name on `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new(), environment: Vec::new() }
    }

    /// Put before the call's own arguments.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Added to the worker's own environment.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn start(&self, context: &Context) -> std::io::Result<Child> {
        tokio::process::Command::new(&self.program)
            .args(&self.arguments)
            .args(positional(context.args()))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("TASKGATE_TASK_ID", context.id().as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// Runs the command within the limits of its call.
pub(super) async fn run(command: &Command, execution: &mut Execution) -> Outcome {
    let context = execution.context.clone();
    let mut child = match command.start(&context) {
        Ok(child) => child,
        Err(error) => {
            let text = format!("{} cannot be started: {error}", command.program.display());
            return Outcome::Error(Failure::new("builtins", "OSError", &text).into());
        }
    };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let talk = async {
        let input = call(&context);
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input is no failure.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let read = async {
            match stdout {
                Some(stdout) => result(&context, stdout).await,
                None => None,
            }
        };
        let tail = async {
            match stderr {
                Some(stderr) => tail(stderr).await,
                None => String::new(),
            }
        };
        let ((), result, tail) = tokio::join!(write, read, tail);
        (result, tail)
    };
    let mut talk = std::pin::pin!(talk);
    let group = child.id();
    let ending = tokio::select! {
        (result, tail) = &mut talk => return ended(child.wait().await, result, &tail),
        ending = ending(execution) => ending,
    };
    let first = match &ending {
        Ending::Soft => libc::SIGTERM,
        Ending::Kill(Kill::Terminate { signal }) => *signal,
        Ending::Hard(_) | Ending::Kill(Kill::Shutdown) => libc::SIGKILL,
    };
    signal_group(group, first);
    let grace = execution.limits.hard.map_or(GRACE, |hard| hard.saturating_sub(execution.limits.soft.unwrap_or(hard)));
    if tokio::time::timeout(grace.min(GRACE), &mut talk).await.is_err() {
        signal_group(group, libc::SIGKILL);
    }
    let _ = child.wait().await;
    match ending {
        Ending::Soft => Outcome::SoftTimeLimit,
        Ending::Hard(limit) => Outcome::TimeLimit(limit),
        Ending::Kill(Kill::Terminate { signal }) => Outcome::Terminated { signal },
        Ending::Kill(Kill::Shutdown) => Outcome::Cancelled,
    }
}

async fn ending(execution: &mut Execution) -> Ending {
    let started = Instant::now();
    tokio::select! {
        kill = killed(&mut execution.kill) => Ending::Kill(kill),
        _ = passed(started, execution.limits.soft) => Ending::Soft,
        limit = passed(started, execution.limits.hard) => Ending::Hard(limit),
    }
}

fn ended(status: std::io::Result<ExitStatus>, result: Option<Json>, tail: &str) -> Outcome {
    use std::os::unix::process::ExitStatusExt as _;
    let status = match status {
        Ok(status) => status,
        Err(error) => return Outcome::WorkerLost(format!("the process was lost: {error}")),
    };
    if let Some(signal) = status.signal() {
        return Outcome::WorkerLost(format!("Worker exited prematurely: signal {signal}"));
    }
    if !status.success() {
        let text = format!("{status}: {}", tail.trim_end());
        return Outcome::Error(Failure::new("taskgate", "CommandFailed", &text).traceback(tail).into());
    }
    Outcome::Returned(result.unwrap_or_else(json::null))
}

/// `{"id", "task", "args", "kwargs", "retries"}` and a line break.
fn call(context: &Context) -> String {
    let mut out = String::from("{\"id\": ");
    json::push_string(&mut out, context.id().as_str());
    out.push_str(", \"task\": ");
    json::push_string(&mut out, context.task());
    out.push_str(&format!(", \"retries\": {}, \"args\": ", context.retries()));
    out.extend([context.args().get(), ", \"kwargs\": ", context.kwargs().get(), "}\n"]);
    out
}

fn positional(args: &RawValue) -> Vec<String> {
    let values = json::elements(args).unwrap_or_default();
    let text = |value: &RawValue| json::text(value).unwrap_or_else(|| value.get().to_owned());
    // The end of a text is where C ends it.
    values.into_iter().map(|value| text(value).split('\0').next().unwrap_or_default().to_owned()).collect()
}

/// Reads the output to its end: reports progress, keeps the last other JSON line.
async fn result(context: &Context, output: impl AsyncRead + Unpin) -> Option<Json> {
    let mut output = BufReader::new(output);
    let (mut result, mut line) = (None, Vec::new());
    loop {
        line.clear();
        match (&mut output).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return result,
            Ok(_) => {}
        }
        let Ok(value) = serde_json::from_slice::<Json>(line.trim_ascii()) else {
            debug!(task.id = %context.id(), "{} printed a line that is not JSON", context.id());
            continue;
        };
        match progress(&value) {
            Some(meta) => drop(context.update_state(PROGRESS, meta).await),
            None => result = Some(value),
        }
    }
}

/// The meta of a progress line: what stands under `progress`, or the whole object when that is a plain value.
fn progress(value: &RawValue) -> Option<Value> {
    let fields = json::Fields::parse(value.get()).ok()?;
    let progress = fields.get("progress")?;
    let meta = if progress.get().starts_with('{') { progress.get() } else { value.get() };
    serde_json::from_str(meta).ok()
}

/// Reads to the end and keeps the last [`TAIL_BYTES`].
async fn tail(mut output: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match output.read(&mut chunk).await {
            Ok(0) => break,
            Ok(count) => kept.extend_from_slice(&chunk[..count]),
            Err(error) => {
                warn!(error = %error, "the error output of a command was lost: {error}");
                break;
            }
        }
        if kept.len() > 2 * TAIL_BYTES {
            kept.drain(..kept.len() - TAIL_BYTES);
        }
    }
    let start = kept.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(&kept[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Json {
        json::verbatim(text.to_owned()).unwrap()
    }

    #[test]
    fn a_progress_line_says_how_far_it_is() {
        assert_eq!(progress(&raw(r#"{"progress": {"done": 1}}"#)), Some(serde_json::json!({"done": 1})));
        assert_eq!(
            progress(&raw(r#"{"progress": 1, "total": 3}"#)),
            Some(serde_json::json!({"progress": 1, "total": 3}))
        );
        assert_eq!(progress(&raw(r#"{"result": 1}"#)), None);
        assert_eq!(progress(&raw("3")), None);
    }

    #[test]
    fn texts_are_passed_as_they_are_and_values_as_json() {
        assert_eq!(
            positional(&raw(r#"["a b", 1, {"x": null}, "cut\u0000off"]"#)),
            ["a b", "1", r#"{"x": null}"#, "cut"]
        );
    }

    #[tokio::test]
    async fn only_the_end_of_the_error_output_is_kept() {
        let text = "x".repeat(100_000) + "the end";
        let tail = tail(text.as_bytes()).await;
        assert!(tail.len() <= TAIL_BYTES && tail.ends_with("the end"));
    }
}
