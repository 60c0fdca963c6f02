//! One child process, seen from its worker: starts it, gives it one run at a time and ends it.
//!
//! The child is this program again with the same arguments; its standard input is a socket to the worker. It is the leader of a
//! process group, so that processes started by a task end with it. However it ends, the worker sees the socket close.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pair;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};
use tokio_util::bytes::Bytes;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tracing::debug;

use super::super::context::Context;
use super::super::execute::{Execution, Kill, killed, passed};
use super::super::memory::peak_kib;
use super::super::request::Outcome;
use super::super::signals::{name_of, signal_group};
use super::CHILD;
use super::frames::{self, MAX_FRAME_BYTES, ToChild, ToWorker};
use celery::Signature;

/// How long the program may take from its start until it calls `Builder::run`.
const START: Duration = Duration::from_secs(30);
/// The time between the requested signal and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// How long to wait after the soft limit for a handler that does not watch its cancellation: it may be about to end.
const UNHEARD: Duration = Duration::from_secs(1);
/// How long an idle child may take to end by itself.
const GOODBYE: Duration = Duration::from_secs(2);

/// A living child. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    pid: u32,
    link: Framed<UnixStream, LengthDelimitedCodec>,
    /// Runs so far.
    pub runs: u64,
}

/// The end of a run, and whether the child may get another one.
pub(super) struct Ended {
    pub outcome: Outcome,
    pub reusable: bool,
}

impl Process {
    /// Starts a child and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, or ends before it is ready.
    pub async fn start(hostname: &str) -> std::io::Result<Self> {
        let mut this = Self::spawn(hostname)?;
        match timeout(START, this.hear()).await {
            Ok(Some(ToWorker::Ready)) => Ok(this),
            Ok(_) => Err(std::io::Error::other(format!("it ended before it was ready: {:?}", this.child.wait().await))),
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }

    fn spawn(hostname: &str) -> std::io::Result<Self> {
        let (ours, theirs) = Pair::pair()?;
        ours.set_nonblocking(true)?;
        let mut words = std::env::args_os();
        let name = words.next().unwrap_or_else(|| OsString::from("taskgate"));
        let child = Command::new(program()?)
            .arg0(name)
            .args(words)
            .env(CHILD, hostname)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().unwrap_or_default();
        let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME_BYTES).new_codec();
        Ok(Self { child, pid, link: Framed::new(UnixStream::from_std(ours)?, codec), runs: 0 })
    }

    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Whether the child still lives; it may have died while idle.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The peak of resident memory in KiB, which Celery's `--max-memory-per-child` limits.
    pub fn peak_kib(&self) -> u64 {
        peak_kib(self.pid)
    }

    /// Lets an idle child end by itself.
    pub async fn end(self) {
        let Self { mut child, pid, link, .. } = self;
        drop(link);
        if timeout(GOODBYE, child.wait()).await.is_err() {
            signal_group(Some(pid), libc::SIGKILL);
            let _ = child.wait().await;
        }
    }

    /// Runs one task within its limits. `job` is the number in the error of a lost child.
    ///
    /// # Cancel safety
    /// A dropped run kills the child.
    pub async fn run(&mut self, execution: &mut Execution, job: u64) -> Ended {
        self.runs += 1;
        let run = self.runs;
        let context = execution.context.clone();
        let origin = &context.run().request.origin;
        let start = ToChild::Run {
            run,
            queue: origin.queue.as_str().to_owned(),
            tag: origin.tag.clone(),
            message: String::from_utf8_lossy(&origin.raw).into_owned(),
        };
        if self.say(&start).await.is_err() {
            return self.lost(job).await;
        }
        let started = Instant::now();
        let (mut soft, hard) = (execution.limits.soft, execution.limits.hard);
        let mut calls = FuturesUnordered::new();
        let mut unheard: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                heard = self.hear() => match heard {
                    Some(ToWorker::Ended { run: of, end }) if of == run => {
                        let outcome = Outcome::from(end);
                        let reusable = !matches!(outcome, Outcome::SoftTimeLimit);
                        return Ended { outcome, reusable };
                    }
                    Some(ToWorker::Heard { run: of, watched }) if of == run && watched => unheard = None,
                    Some(said) => calls.extend(called(&context, run, said)),
                    None => return self.lost(job).await,
                },
                Some(answer) = calls.next(), if !calls.is_empty() => if self.say(&answer).await.is_err() {
                    return self.lost(job).await;
                },
                kill = killed(&mut execution.kill) => return self.end_run(kill).await,
                limit = passed(started, hard) => {
                    self.kill().await;
                    return Ended { outcome: Outcome::TimeLimit(limit), reusable: false };
                }
                _ = passed(started, soft) => {
                    soft = None;
                    unheard = Some(Instant::now());
                    if self.say(&ToChild::SoftLimit { run }).await.is_err() {
                        return self.lost(job).await;
                    }
                }
                _ = passed(unheard.unwrap_or(started), unheard.map(|_| UNHEARD)) => {
                    self.kill().await;
                    return Ended { outcome: Outcome::SoftTimeLimit, reusable: false };
                }
            }
        }
    }

    async fn end_run(&mut self, kill: Kill) -> Ended {
        let outcome = match kill {
            Kill::Terminate { signal } => {
                signal_group(Some(self.pid), signal);
                if timeout(GRACE, self.child.wait()).await.is_err() {
                    self.kill().await;
                }
                Outcome::Terminated { signal }
            }
            Kill::Shutdown => {
                self.kill().await;
                Outcome::Cancelled
            }
        };
        Ended { outcome, reusable: false }
    }

    async fn kill(&mut self) {
        signal_group(Some(self.pid), libc::SIGKILL);
        let _ = self.child.wait().await;
    }

    /// Finds out why the process ended, after its socket was closed.
    async fn lost(&mut self, job: u64) -> Ended {
        let status = match timeout(GOODBYE, self.child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                self.kill().await;
                None
            }
        };
        let outcome = Outcome::WorkerLost(format!("Worker exited prematurely: {} Job: {job}.", why(status)));
        Ended { outcome, reusable: false }
    }

    /// # Cancel safety
    /// A dropped call loses nothing.
    async fn hear(&mut self) -> Option<ToWorker> {
        let frame = self.link.next().await?.ok()?;
        serde_json::from_slice(&frame)
            .inspect_err(
                |error| debug!(child.pid = self.pid, %error, "child {} sent an invalid frame: {error}", self.pid),
            )
            .ok()
    }

    async fn say(&mut self, frame: &ToChild) -> std::io::Result<()> {
        self.link.send(Bytes::from(serde_json::to_vec(frame)?)).await
    }
}

/// The program that is running, even if its file was replaced since.
fn program() -> std::io::Result<OsString> {
    let running = "/proc/self/exe";
    if std::path::Path::new(running).exists() { Ok(running.into()) } else { Ok(std::env::current_exe()?.into()) }
}

/// The reason, worded as billiard does.
pub(crate) fn why(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "exitcode None".to_owned() };
    match (status.signal(), status.code()) {
        (Some(signal), _) => match name_of(signal) {
            Some(name) => format!("signal {signal} (SIG{name})"),
            None => format!("signal {signal}"),
        },
        (None, code) => format!("exitcode {}", code.unwrap_or_default()),
    }
}

/// Starts a handler's call to its worker; `None` for frames that are not calls.
fn called(context: &Context, run: u64, said: ToWorker) -> Option<impl Future<Output = ToChild> + use<>> {
    let (of, call) = match &said {
        ToWorker::UpdateState { run, call, .. } | ToWorker::Submit { run, call, .. } => (*run, *call),
        ToWorker::Ready | ToWorker::Heard { .. } | ToWorker::Ended { .. } => return None,
    };
    let context = (of == run).then(|| context.clone());
    Some(async move {
        let done = match (context, said) {
            (None, _) => Err("its task has ended".to_owned()),
            (Some(context), ToWorker::UpdateState { state, meta, .. }) => {
                context.update_state(&state, meta).await.map(|()| None).map_err(|error| error.to_string())
            }
            (Some(context), ToWorker::Submit { signature, .. }) => match Signature::decode(&signature) {
                Ok(signature) => context.send(signature).await.map(Some).map_err(|error| error.to_string()),
                Err(error) => Err(format!("the signature {error}")),
            },
            (Some(_), _) => Ok(None),
        };
        match done {
            Ok(sent) => {
                ToChild::Answer { call, problem: None, sent: sent.map(|sent| frames::encoded(|out| sent.encode(out))) }
            }
            Err(problem) => ToChild::Answer { call, problem: Some(problem), sent: None },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_billiards_words() {
        assert_eq!(why(Some(ExitStatus::from_raw(libc::SIGKILL))), "signal 9 (SIGKILL)");
        assert_eq!(why(Some(ExitStatus::from_raw(libc::SIGSEGV))), "signal 11 (SIGSEGV)");
        assert_eq!(why(Some(ExitStatus::from_raw(3 << 8))), "exitcode 3");
    }
}
