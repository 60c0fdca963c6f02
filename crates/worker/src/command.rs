//! Tasks that are executables: shell scripts and other languages become workers by being named.
//!
//! The program gets the positional arguments on its command line (texts as they are, other values as JSON) and the whole call as
//! one JSON object on its input. A line `{"progress": …}` on its output becomes `update_state`, its last other JSON line is the
//! result. It runs in a process group of its own, so that what it starts ends with it.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::children::why;
use super::context::{Context, PROGRESS};
use super::error::Failure;
use super::execute::{Execution, Kill, killed, passed};
use super::request::Outcome;
use super::signals::signal_group;
use celery::json;
use celery::task::Json;

/// The longest line that is read; what is longer is no result.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// How much of the error output a failure shows.
const TAIL_BYTES: usize = 4 << 10;
/// Between the polite signal and the certain one; after a soft limit, the hard one decides if there is one.
const GRACE: Duration = Duration::from_secs(10);
/// How long the outputs of an ended process are read on: what it started may still hold them.
const DRAIN: Duration = Duration::from_secs(1);

/// An executable as a task.
///
/// ```
/// use taskgate_worker::{Command, Registry};
///
/// let mut tasks = Registry::new();
/// let render = Command::new("./render.sh").argument("--fast").environment("LANG", "C.UTF-8");
/// tasks.command("reports.render", render).acks_late(true);
/// ```
#[derive(Debug, Clone)]
pub struct Command {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// What the process has said so far.
#[derive(Default)]
struct Said {
    result: Option<Json>,
    errors: Vec<u8>,
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
    let group = child.id();
    let said = Mutex::default();
    let mut talk = std::pin::pin!(talk(&context, &said, &mut child).fuse());
    let (outcome, status) = {
        let mut running = Running { group, asked: None, since: Instant::now() };
        tokio::select! {
            biased;
            ended = running.end(execution, &mut child) => ended,
            never = async { (&mut talk).await; std::future::pending().await } => never,
        }
    };
    // What it left behind ends with it, and then nobody holds its output open.
    if !talk.is_terminated() && timeout(DRAIN, &mut talk).await.is_err() {
        signal_group(group, libc::SIGKILL);
        let _ = timeout(DRAIN, &mut talk).await;
    }
    signal_group(group, libc::SIGKILL);
    outcome.unwrap_or_else(|| {
        let said = std::mem::take(&mut *said.lock().expect("nothing panics under this lock"));
        ended(status, said.result, &shown(&said.errors))
    })
}

/// A process under way.
struct Running {
    group: Option<u32>,
    /// What the outcome is when the process heeds the polite signal that it was sent.
    asked: Option<Asked>,
    /// When it was asked.
    since: Instant,
}

#[derive(Clone, Copy)]
enum Asked {
    ToEndSoon,
    ToEnd { signal: i32 },
}

impl Running {
    /// Ends with the process. An outcome when it did not end by itself.
    async fn end(
        &mut self,
        execution: &mut Execution,
        child: &mut Child,
    ) -> (Option<Outcome>, std::io::Result<ExitStatus>) {
        let started = Instant::now();
        let (mut soft, hard) = (execution.limits.soft, execution.limits.hard);
        loop {
            let terminated = matches!(self.asked, Some(Asked::ToEnd { .. }));
            let patience = (terminated || (self.asked.is_some() && hard.is_none())).then_some(GRACE);
            tokio::select! {
                biased;
                status = child.wait() => {
                    let succeeded = status.as_ref().is_ok_and(ExitStatus::success);
                    let outcome = self.asked.and_then(|asked| asked.outcome(succeeded));
                    return (outcome, status);
                }
                kill = killed(&mut execution.kill), if !terminated => match kill {
                    Kill::Terminate { signal } => self.ask(Asked::ToEnd { signal }, signal),
                    Kill::Shutdown => return (Some(Outcome::Cancelled), self.kill(child).await),
                },
                limit = passed(started, hard) => return (Some(Outcome::TimeLimit(limit)), self.kill(child).await),
                _ = passed(started, soft) => {
                    soft = None;
                    self.ask(Asked::ToEndSoon, libc::SIGTERM);
                }
                _ = passed(self.since, patience) => {
                    let status = self.kill(child).await;
                    return (self.asked.and_then(|asked| asked.outcome(false)), status);
                }
            }
        }
    }

    fn ask(&mut self, asked: Asked, signal: i32) {
        signal_group(self.group, signal);
        (self.asked, self.since) = (Some(asked), Instant::now());
    }

    async fn kill(&self, child: &mut Child) -> std::io::Result<ExitStatus> {
        signal_group(self.group, libc::SIGKILL);
        child.wait().await
    }
}

impl Asked {
    /// A program may take its soft limit as a hint and still succeed, as a handler may.
    fn outcome(self, succeeded: bool) -> Option<Outcome> {
        match self {
            Self::ToEndSoon => (!succeeded).then_some(Outcome::SoftTimeLimit),
            Self::ToEnd { signal } => Some(Outcome::Terminated { signal }),
        }
    }
}

/// Gives the process its input and reads what it says, to the end of both outputs.
fn talk<'a>(context: &'a Context, said: &'a Mutex<Said>, child: &mut Child) -> impl Future<Output = ()> + use<'a> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = call(context);
    async move {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input is no failure.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let read = async {
            if let Some(stdout) = stdout {
                listen(context, said, stdout).await;
            }
        };
        let errors = async {
            if let Some(stderr) = stderr {
                keep_tail(said, stderr).await;
            }
        };
        tokio::join!(write, read, errors);
    }
}

fn ended(status: std::io::Result<ExitStatus>, result: Option<Json>, tail: &str) -> Outcome {
    use std::os::unix::process::ExitStatusExt as _;
    let status = match status {
        Ok(status) => status,
        Err(error) => return Outcome::WorkerLost(format!("the process was lost: {error}")),
    };
    if status.signal().is_some() {
        return Outcome::WorkerLost(format!("Worker exited prematurely: {}", why(Some(status))));
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
async fn listen(context: &Context, said: &Mutex<Said>, output: impl AsyncRead + Unpin) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut output).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let Ok(value) = serde_json::from_slice::<Json>(line.trim_ascii()) else {
            debug!(task.id = %context.id(), "{} printed a line that is not JSON", context.id());
            continue;
        };
        match progress(&value) {
            Some(meta) => drop(context.update_state(PROGRESS, meta).await),
            None => said.lock().expect("nothing panics under this lock").result = Some(value),
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

/// Reads to the end and keeps at least the last [`TAIL_BYTES`].
async fn keep_tail(said: &Mutex<Said>, mut output: impl AsyncRead + Unpin) {
    let mut chunk = [0; 4096];
    loop {
        let count = match output.read(&mut chunk).await {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) => return warn!(error = %error, "the error output of a command was lost: {error}"),
        };
        let errors = &mut said.lock().expect("nothing panics under this lock").errors;
        errors.extend_from_slice(&chunk[..count]);
        if errors.len() > 2 * TAIL_BYTES {
            errors.drain(..errors.len() - TAIL_BYTES);
        }
    }
}

fn shown(errors: &[u8]) -> String {
    let start = errors.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(&errors[start..]).into_owned()
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
        let said = Mutex::default();
        keep_tail(&said, text.as_bytes()).await;
        let tail = shown(&said.lock().unwrap().errors);
        assert!(tail.len() <= TAIL_BYTES && tail.ends_with("the end"));
    }
}
