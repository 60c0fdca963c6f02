//! The child's side: runs the tasks that its worker sends, one at a time, and asks the worker for everything that needs Redis.
//!
//! A separate thread reads the socket, so that a handler that never awaits is still told of its limit, and a child whose worker
//! has died ends at once: its task will run elsewhere, so it must not go on here.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error};

use super::super::cancellation::{Cancellation, Cause};
use super::super::context::{Context, ContextError, Host};
use super::super::error::Failure;
use super::super::execute::Execution;
use super::super::logs::Counter;
use super::super::registry::{Registry, Task};
use super::super::request::{Limits, Origin, Outcome, Request};
use super::CHILD;
use super::frames::{self, ToChild, ToWorker};
use broker::Delivery;
use celery::Signature;
use celery::result::ResultTuple;
use celery::task::{Json, QueueName, TaskName};

/// How long the program may take to exit after its worker has closed the socket.
const GOODBYE: Duration = Duration::from_secs(5);

type Answer = Result<Option<Json>, String>;

/// Whether this process was started by a worker, to run its tasks. A program can check this before work that only one of its
/// processes should do; it must still call [`Builder::run`](super::super::Builder::run), with the same tasks registered.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some() && socket().is_some()
}

/// The socket that was passed as standard input.
fn socket() -> Option<UnixStream> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
    socket.local_addr().ok()?;
    Some(socket)
}

/// Runs tasks until the worker closes the socket.
pub(crate) async fn serve(registry: Registry) {
    let Some(socket) = socket() else { return };
    let Ok(reader) = socket.try_clone() else { return };
    forget_standard_input();
    let hostname = std::env::var(CHILD).unwrap_or_default();
    let link =
        Arc::new(Link { hostname, socket: Mutex::new(socket), calls: Mutex::default(), next: AtomicU64::new(0) });
    let (sink, mut runs) = mpsc::unbounded_channel();
    let current = Arc::new(Current::default());
    let listener = Listener { link: Arc::clone(&link), current: Arc::clone(&current), sink };
    let thread = std::thread::Builder::new().name("worker's voice".to_owned()).spawn(move || listener.listen(reader));
    if let Err(problem) = thread {
        return error!(error = %problem, "no thread can be started: {problem}");
    }
    link.say(&ToWorker::Ready);
    let tasks = registry.into_tasks();
    while let Some(Run { run, delivery }) = runs.recv().await {
        let outcome = carry_out(&tasks, &link, &current, run, delivery).await;
        current.end();
        link.say(&ToWorker::Ended { run, end: outcome.into() });
    }
}

struct Run {
    run: u64,
    delivery: Delivery,
}

async fn carry_out(
    tasks: &HashMap<TaskName, Arc<Task>>,
    link: &Arc<Link>,
    current: &Current,
    run: u64,
    delivery: Delivery,
) -> Outcome {
    let (origin, message) = Origin::read(delivery);
    let known = message.ok().and_then(|message| Some((tasks.get(&message.task)?, message)));
    let Some((task, message)) = known else {
        let text = "the child process does not know the task: it registers other tasks than its worker";
        return Outcome::Error(Failure::new("celery.exceptions", "NotRegistered", text).into());
    };
    let request = Arc::new(Request { message, task: Arc::clone(task), origin });
    let cancellation = current.begin(run);
    let host = Arc::new(Parent { link: Arc::clone(link), run });
    let context = Context::new(request, cancellation.clone(), host);
    // The worker enforces limits and kills; nothing in this process does.
    let (_never, kill) = watch::channel(None);
    let execution = Execution { context, cancellation: cancellation.clone(), limits: Limits::default(), kill };
    tokio::select! {
        biased;
        outcome = execution.run_here() => outcome,
        () = unheard(&cancellation) => Outcome::SoftTimeLimit,
    }
}

/// Completes when the soft limit of a handler that does not watch its cancellation has passed.
async fn unheard(cancellation: &Cancellation) {
    cancellation.token().cancelled().await;
    if cancellation.is_watched() {
        std::future::pending::<()>().await;
    }
}

/// The run that is under way.
#[derive(Default)]
struct Current(Mutex<Option<(u64, Cancellation)>>);

impl Current {
    fn begin(&self, run: u64) -> Cancellation {
        let cancellation = Cancellation::default();
        *locked(&self.0) = Some((run, cancellation.clone()));
        cancellation
    }

    fn end(&self) {
        *locked(&self.0) = None;
    }

    fn of(&self, run: u64) -> Option<Cancellation> {
        locked(&self.0).as_ref().filter(|(current, _)| *current == run).map(|(_, cancellation)| cancellation.clone())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics under this lock")
}

/// The writing half of the socket, and the calls that wait for an answer.
struct Link {
    hostname: String,
    socket: Mutex<UnixStream>,
    calls: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
}

impl Link {
    /// Sends a frame. A failure is only logged: the thread that reads the socket notices that the worker is gone.
    fn say(&self, frame: &ToWorker) {
        if let Err(error) = frames::write(&mut *locked(&self.socket), frame) {
            debug!(%error, "a frame could not be sent to the worker: {error}");
        }
    }

    async fn call(&self, frame: impl FnOnce(u64) -> ToWorker) -> Answer {
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        locked(&self.calls).insert(call, answer);
        self.say(&frame(call));
        answered.await.unwrap_or_else(|_| Err("the worker is gone".to_owned()))
    }
}

struct Listener {
    link: Arc<Link>,
    current: Arc<Current>,
    sink: mpsc::UnboundedSender<Run>,
}

impl Listener {
    fn listen(self, mut socket: UnixStream) {
        while let Ok(frame) = frames::read::<ToChild>(&mut socket) {
            self.heed(frame);
        }
        if locked(&self.current.0).is_some() {
            leave();
        }
        // The program may end in its own way, but it must end.
        drop(self.sink);
        #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
        std::thread::sleep(GOODBYE);
        leave();
    }

    fn heed(&self, frame: ToChild) {
        match frame {
            ToChild::Run { run, queue, tag, message } => {
                let Ok(queue) = QueueName::parse(&queue) else { return };
                let delivery = Delivery { queue, tag, raw: message.into_bytes(), delivered_before: None };
                let _ = self.sink.send(Run { run, delivery });
            }
            ToChild::SoftLimit { run } => {
                let Some(cancellation) = self.current.of(run) else { return };
                cancellation.cancel(Cause::SoftTimeLimit);
                self.link.say(&ToWorker::Heard { run, watched: cancellation.is_watched() });
            }
            ToChild::Answer { call, problem, sent } => {
                if let Some(waiting) = locked(&self.link.calls).remove(&call) {
                    let _ = waiting.send(problem.map_or(Ok(sent), Err));
                }
            }
        }
    }
}

/// Forwards the calls of handlers to the worker.
struct Parent {
    link: Arc<Link>,
    run: u64,
}

#[async_trait]
impl Host for Parent {
    fn hostname(&self) -> &str {
        &self.link.hostname
    }

    async fn update_state(&self, _: &Request, state: &str, meta: Json) {
        let (run, state) = (self.run, state.to_owned());
        let said = self.link.call(|call| ToWorker::UpdateState { run, call, state, meta }).await;
        if let Err(problem) = said {
            debug!("a state was not stored: {problem}");
        }
    }

    async fn submit(&self, _: &Request, signature: Signature) -> Result<ResultTuple, ContextError> {
        let signature = frames::encoded(|out| signature.encode(out));
        let sent = self.link.call(|call| ToWorker::Submit { run: self.run, call, signature }).await;
        let sent = sent.map_err(ContextError::NotSent)?;
        let sent = sent.as_deref().and_then(ResultTuple::decode);
        sent.ok_or_else(|| ContextError::NotSent("the worker's answer was not understood".to_owned()))
    }

    /// Does nothing: a child reaches Redis through its parent only, and the frames carry no log lines.
    fn log(&self, _: &Request, _: &Counter, _: &str, _: &str) {}
}

/// Replaces standard input, so that processes started by tasks do not read the socket.
fn forget_standard_input() {
    let Ok(nothing) = std::fs::File::open("/dev/null").map(OwnedFd::from) else { return };
    #[expect(unsafe_code, reason = "dup2(2) takes two numbers; both are open files of this process")]
    // SAFETY: no memory is involved.
    let _ = unsafe { libc::dup2(nothing.as_raw_fd(), libc::STDIN_FILENO) };
}

/// Ends the process at once, whatever its other threads do.
fn leave() -> ! {
    #[expect(unsafe_code, reason = "exit(3) would run what other threads may be in the middle of")]
    // SAFETY: it does not return.
    unsafe {
        libc::_exit(0)
    }
}
