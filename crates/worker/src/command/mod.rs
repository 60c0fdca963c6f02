//! Tasks that are executables, so that shell scripts and programs in other languages can be tasks.
//!
//! The program gets the positional arguments on its command line (texts as they are, other values as JSON) and the whole call as
//! one JSON object on its input. A line `{"progress": …}` on its output becomes `update_state`, its last other JSON line is the
//! result. It runs in a process group of its own, so that processes it starts end with it.
//!
//! It sees nothing of its worker: the environment has the listed variables only, and the directory is its own and removed at the end
//! ([`confine`]). Its use of memory and processes is limited ([`share`]), and a value of the call is never taken for an option.

mod confine;
mod share;
mod talk;

use std::fmt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use serde_json::value::RawValue;
use tokio::process::Child;
use tokio::time::{Instant, timeout};

pub use confine::{Bounds, Dashes};

use super::children::why;
use super::context::Context;
use super::error::Failure;
use super::execute::{Execution, Kill, killed, passed};
use super::request::Outcome;
use super::signals::signal_group;
use celery::json;
use confine::Place;
use share::TooMuch;
use talk::{Said, talk};

/// The time between the first signal and SIGKILL; after a soft limit, the hard limit applies instead if there is one.
const GRACE: Duration = Duration::from_secs(10);
/// How long the outputs are still read after the process ended: its own children may still hold them open.
const DRAIN: Duration = Duration::from_secs(1);
/// The time limit of a command that has none.
const LONGEST: Duration = Duration::from_hours(1);
/// The variable of the worker's environment that every command gets.
const ALWAYS: &str = "PATH";

/// Checks the arguments of a call, and returns what is wrong with them.
type Judge = dyn Fn(&RawValue, &RawValue) -> Result<(), String> + Send + Sync;

/// An executable as a task.
///
/// ```
/// use taskgate_worker::{Command, Registry};
///
/// let mut tasks = Registry::new();
/// let render = Command::new("./render.sh").argument("--fast").environment("LANG", "C.UTF-8");
/// tasks.command("reports.render", render).acks_late(true);
/// ```
#[derive(Clone)]
pub struct Command {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    passed: Vec<String>,
    directory: Option<PathBuf>,
    bounds: Bounds,
    dashes: Dashes,
    /// Positions of arguments whose beginning the owner of the program chose, not a caller.
    owned: Vec<usize>,
    judge: Option<Arc<Judge>>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}

impl Command {
    /// A program by its path, which is relative to the directory in which the worker was started, or by its name on `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            passed: Vec::new(),
            directory: None,
            bounds: Bounds::default(),
            dashes: Dashes::default(),
            owned: Vec::new(),
            judge: None,
        }
    }

    /// Adds an argument before those of the call.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds a variable to its environment, which otherwise has `PATH`, `HOME` and `TASKGATE_TASK_ID` only.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Passes a variable of the worker's environment on to the command, if it is set.
    #[must_use]
    pub fn pass(mut self, name: impl Into<String>) -> Self {
        self.passed.push(name.into());
        self
    }

    /// The working directory. Default: a new empty directory, removed after the run.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// The bounds of a run.
    #[must_use]
    pub fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// What happens to a value that begins with `-`. Default: the run is refused.
    #[must_use]
    pub fn dashes(mut self, dashes: Dashes) -> Self {
        self.dashes = dashes;
        self
    }

    /// Lets the argument at this position begin with `-`, because the owner of the program chose its beginning.
    #[must_use]
    pub fn owned(mut self, position: usize) -> Self {
        self.owned.push(position);
        self
    }

    /// Checks the arguments before each run; an error ends the run as `ArgumentsRefused`.
    #[must_use]
    pub fn judge(mut self, judge: impl Fn(&RawValue, &RawValue) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.judge = Some(Arc::new(judge));
        self
    }

    /// The command-line arguments that come from the call.
    fn words(&self, context: &Context) -> Result<Vec<String>, String> {
        if let Some(judge) = &self.judge {
            judge(context.args(), context.kwargs())?;
        }
        let values = positional(context.args())?;
        let is_option = |(at, value): &(usize, &String)| value.starts_with('-') && !self.owned.contains(at);
        let option = values.iter().enumerate().find(is_option).map(|(at, _)| at);
        match (self.dashes, option) {
            (Dashes::Refuse, Some(at)) => {
                Err(format!("/args/{at} begins with -, which the program would take for an option"))
            }
            (Dashes::Separate, _) => Ok(std::iter::once("--".to_owned()).chain(values).collect()),
            (Dashes::Refuse | Dashes::Allow, _) => Ok(values),
        }
    }

    fn start(&self, context: &Context, words: &[String], place: &Place) -> std::io::Result<Child> {
        let mut command = tokio::process::Command::new(confine::absolute(&self.program));
        let passed = self.passed.iter().map(String::as_str).chain([ALWAYS]);
        let passed = passed.filter_map(|name| Some((name, std::env::var_os(name)?)));
        command
            .args(&self.arguments)
            .args(words)
            .env_clear()
            .envs(passed)
            .env("HOME", place.path())
            .env("TASKGATE_TASK_ID", context.id().as_str())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        confine::bound(&mut command, self.bounds);
        command.spawn()
    }
}

/// Runs the command within the limits of its call.
pub(super) async fn run(command: &Command, execution: &mut Execution) -> Outcome {
    let context = execution.context.clone();
    let words = match command.words(&context) {
        Ok(words) => words,
        Err(text) => return Outcome::Error(Failure::new("taskgate", "ArgumentsRefused", &text).into()),
    };
    let started = Place::make(command.directory.as_deref())
        .and_then(|place| Ok((command.start(&context, &words, &place)?, place)));
    let (mut child, place) = match started {
        Ok(started) => started,
        Err(error) => {
            let text = format!("{} cannot be started: {error}", command.program.display());
            return Outcome::Error(Failure::new("builtins", "OSError", &text).into());
        }
    };
    let outcome = attend(command.bounds, execution, &context, &mut child).await;
    // Removing a large directory takes time, and the next run need not wait for it.
    drop(tokio::task::spawn_blocking(move || drop(place)));
    outcome
}

async fn attend(bounds: Bounds, execution: &mut Execution, context: &Context, child: &mut Child) -> Outcome {
    let group = child.id();
    let said = Mutex::new(Said::new(bounds.output));
    let mut talk = std::pin::pin!(talk(context, &said, child).fuse());
    let mut running = Running { group, asked: None, since: Instant::now() };
    let ended_by = {
        let mut end = std::pin::pin!(running.end(execution, bounds, child));
        loop {
            tokio::select! {
                biased;
                ended = &mut end => break Ok(ended),
                // Both outputs may be closed long before the process ends.
                said = &mut talk, if !talk.is_terminated() => if let Some(too_much) = said { break Err(too_much) },
            }
        }
    };
    let (outcome, status) = match ended_by {
        Ok(ended) => ended,
        Err(too_much) => (Some(refused(too_much)), running.kill(child).await),
    };
    // Its remaining processes are killed, so that none of them holds its output open.
    if !talk.is_terminated() && timeout(DRAIN, &mut talk).await.is_err() {
        share::kill_all(group);
        // No process holds the pipe open now: read the rest, however busy the machine is.
        let _ = timeout(GRACE, &mut talk).await;
    }
    share::kill_all(group);
    outcome.unwrap_or_else(|| {
        let mut said = said.lock().expect("nothing panics under this lock");
        ended(status, said.result.take(), &said.tail())
    })
}

fn refused(too_much: TooMuch) -> Outcome {
    Outcome::Error(Failure::new("taskgate", too_much.kind(), &too_much.told()).into())
}

/// A running process.
struct Running {
    group: Option<u32>,
    /// Why the process was sent a signal, if it was; decides the outcome of a process that ends because of it.
    asked: Option<Asked>,
    /// When that signal was sent.
    since: Instant,
}

#[derive(Clone, Copy)]
enum Asked {
    ToEndSoon,
    ToEnd { signal: i32 },
}

impl Running {
    /// Waits for the end of the process. Returns an outcome when it did not end by itself.
    async fn end(
        &mut self,
        execution: &mut Execution,
        bounds: Bounds,
        child: &mut Child,
    ) -> (Option<Outcome>, std::io::Result<ExitStatus>) {
        let started = Instant::now();
        let (mut soft, hard) = (execution.limits.soft, execution.limits.hard.or(Some(LONGEST)));
        let mut share = std::pin::pin!(share::watch(self.group, bounds));
        loop {
            let terminated = matches!(self.asked, Some(Asked::ToEnd { .. }));
            let patience = (terminated || (self.asked.is_some() && execution.limits.hard.is_none())).then_some(GRACE);
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
                too_much = &mut share => return (Some(refused(too_much)), self.kill(child).await),
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
        share::kill_all(self.group);
        child.wait().await
    }
}

impl Asked {
    /// A program may succeed even after its soft limit, as a handler may.
    fn outcome(self, succeeded: bool) -> Option<Outcome> {
        match self {
            Self::ToEndSoon => (!succeeded).then_some(Outcome::SoftTimeLimit),
            Self::ToEnd { signal } => Some(Outcome::Terminated { signal }),
        }
    }
}

fn ended(status: std::io::Result<ExitStatus>, result: Option<celery::task::Json>, tail: &str) -> Outcome {
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

/// The positional arguments as text. A NUL is refused, because it would end a C string early and so change the value.
fn positional(args: &RawValue) -> Result<Vec<String>, String> {
    let text = |value: &RawValue| json::text(value).unwrap_or_else(|| value.get().to_owned());
    let values: Vec<String> = json::elements(args).unwrap_or_default().into_iter().map(text).collect();
    match values.iter().position(|value| value.contains('\0')) {
        Some(at) => Err(format!("/args/{at} has a NUL character, which no command line can hold")),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> celery::task::Json {
        json::verbatim(text.to_owned()).unwrap()
    }

    #[test]
    fn texts_are_passed_as_they_are_and_values_as_json() {
        assert_eq!(positional(&raw(r#"["a b", 1, {"x": null}]"#)).unwrap(), ["a b", "1", r#"{"x": null}"#]);
        assert!(positional(&raw(r#"["fine", "cut\u0000off"]"#)).unwrap_err().contains("/args/1"));
    }
}
