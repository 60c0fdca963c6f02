//! The tasks that a worker knows, by name.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::arguments::bind;
use super::command::Command;
use super::context::Context;
use super::error::{Failure, TaskError};
use super::options::TaskOptions;
use celery::task::{Json, TaskName};

type Returned = Result<Json, TaskError>;
type AsyncHandler = Arc<dyn Fn(Context) -> Pin<Box<dyn Future<Output = Returned> + Send>> + Send + Sync>;

/// Where and how a handler runs.
#[derive(Clone)]
pub(crate) enum Run {
    /// On the worker's runtime: for tasks that wait.
    Async(AsyncHandler),
    /// On a separate thread: for tasks that compute. It cannot be killed.
    Blocking(Arc<dyn Fn(Context) -> Returned + Send + Sync>),
    /// Any executable, in a process of its own.
    Command(Command),
}

/// One registered task.
pub(crate) struct Task {
    pub name: TaskName,
    pub options: TaskOptions,
    pub run: Run,
}

/// Handlers by task name. Registering a name again replaces its handler.
///
/// The arguments of a handler, which a Celery client may pass by position or by name, are a struct whose fields, in their order,
/// are the parameters. `#[serde(default)]` and `Option` make a field optional, a tuple takes positional arguments only, `()` none,
/// `IgnoredAny` any.
///
/// ```
/// use std::time::Duration;
///
/// use serde::Deserialize;
/// use taskgate_worker::{Command, Context, Registry, RetryPolicy, TaskError};
///
/// #[derive(Deserialize)]
/// struct Resize {
///     image: String,
///     #[serde(default)]
///     width: Option<u32>,
/// }
///
/// async fn resize(context: Context, resize: Resize) -> Result<String, TaskError> {
///     Ok(format!("{} for {} at {:?}", resize.image, context.id(), resize.width))
/// }
///
/// let mut tasks = Registry::new();
/// tasks.task("images.resize", resize).time_limit(Duration::from_secs(60)).acks_late(true);
/// tasks.task("images.count", async |_: Context, (names,): (Vec<String>,)| Ok(names.len()));
/// tasks.blocking("images.hash", |_: Context, (seed,): (u64,)| Ok(seed.wrapping_mul(31))).rate_limit("100/m");
/// tasks.child("images.risky", async |_: Context, (): ()| Ok(())).retry_failures(RetryPolicy::default());
/// tasks.command("images.render", Command::new("./render").argument("--fast"));
/// assert_eq!(tasks.names().len(), 5);
/// ```
#[derive(Default)]
pub struct Registry {
    tasks: HashMap<TaskName, Task>,
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an async handler, for tasks that wait for I/O. The arguments are a struct whose fields are the parameters, a
    /// tuple, or `()`.
    ///
    /// # Panics
    /// When the name is empty, longer than 255 characters, or has control characters.
    pub fn task<A, R, F, W>(&mut self, name: &str, handler: F) -> &mut TaskOptions
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize,
        F: Fn(Context, A) -> W + Send + Sync + 'static,
        W: Future<Output = Result<R, TaskError>> + Send + 'static,
    {
        let run = Run::Async(erased(name, handler));
        self.insert(name, run)
    }

    /// Registers a handler that computes or blocks: it runs on a separate thread, which cannot be killed.
    ///
    /// # Panics
    /// As [`Registry::task`].
    pub fn blocking<A, R, F>(&mut self, name: &str, handler: F) -> &mut TaskOptions
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(Context, A) -> Result<R, TaskError> + Send + Sync + 'static,
    {
        let function = function_name(name);
        let run = Run::Blocking(Arc::new(move |context: Context| {
            let arguments = bind(&function, context.args(), context.kwargs())?;
            encode(&handler(context, arguments)?)
        }));
        self.insert(name, run)
    }

    /// Registers an async handler that runs in a child process, one task at a time: it may block, leak, abort or be killed without
    /// harm to other tasks. The child is this program, started again; see [`is_child`](super::is_child).
    ///
    /// # Panics
    /// As [`Registry::task`].
    pub fn child<A, R, F, W>(&mut self, name: &str, handler: F) -> &mut TaskOptions
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize,
        F: Fn(Context, A) -> W + Send + Sync + 'static,
        W: Future<Output = Result<R, TaskError>> + Send + 'static,
    {
        self.task(name, handler).child(true)
    }

    /// The settings of a registered task; `None` when the name is not registered.
    pub fn options(&mut self, name: &str) -> Option<&mut TaskOptions> {
        let name = TaskName::parse(name).ok()?;
        self.tasks.get_mut(&name).map(|task| &mut task.options)
    }

    /// Registers an executable as a task.
    ///
    /// # Panics
    /// As [`Registry::task`].
    pub fn command(&mut self, name: &str, command: Command) -> &mut TaskOptions {
        self.insert(name, Run::Command(command))
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<&TaskName> {
        let mut names: Vec<_> = self.tasks.keys().collect();
        names.sort();
        names
    }

    fn insert(&mut self, name: &str, run: Run) -> &mut TaskOptions {
        let name = TaskName::parse(name).expect("a task's name is printable text of 1 to 255 characters");
        let task = Task { name: name.clone(), options: TaskOptions::default(), run };
        self.tasks.insert(name.clone(), task);
        &mut self.tasks.get_mut(&name).expect("it was just inserted").options
    }

    pub(crate) fn into_tasks(self) -> HashMap<TaskName, Arc<Task>> {
        self.tasks.into_iter().map(|(name, task)| (name, Arc::new(task))).collect()
    }
}

fn erased<A, R, F, W>(name: &str, handler: F) -> AsyncHandler
where
    A: DeserializeOwned + Send + 'static,
    R: Serialize,
    F: Fn(Context, A) -> W + Send + Sync + 'static,
    W: Future<Output = Result<R, TaskError>> + Send + 'static,
{
    let function = function_name(name);
    let handler = Arc::new(handler);
    Arc::new(move |context: Context| {
        let arguments = bind(&function, context.args(), context.kwargs());
        let handler = Arc::clone(&handler);
        Box::pin(async move { encode(&handler(context, arguments?).await?) })
    })
}

/// The name of the Python function of a task: the last part of its name.
fn function_name(task: &str) -> String {
    task.rsplit('.').next().unwrap_or(task).to_owned()
}

fn encode(value: &impl Serialize) -> Returned {
    serde_json::value::to_raw_value(value)
        .map_err(|error| Failure::new("kombu.exceptions", "EncodeError", &error.to_string()).into())
}

impl Task {
    /// A placeholder for a task that is not registered here: it is settled, never run.
    pub fn unknown(name: TaskName) -> Self {
        let run = Run::Blocking(Arc::new(|_| Err(TaskError::Ignore)));
        Self { name, options: TaskOptions::default(), run }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.name).field("options", &self.options).finish_non_exhaustive()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
