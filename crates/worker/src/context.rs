//! The context of a handler: facts about its call, and ways to report a state, send child tasks and learn that it should end.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::cancellation::Cancellation;
use super::logs::Counter;
use super::request::Request;
use celery::Signature;
use celery::json;
use celery::result::ResultTuple;
use celery::task::{GroupId, Json, TaskId};

/// The state by which Celery users report progress.
pub const PROGRESS: &str = "PROGRESS";

/// One run of a task, as its handler sees it. Cheap to clone.
///
/// ```
/// use serde_json::json;
/// use taskgate_worker::{Context, PROGRESS, TaskError};
///
/// async fn crawl(context: Context, (pages,): (u32,)) -> Result<u32, TaskError> {
///     for page in 1..=pages {
///         // A soft limit, a revoke or a shutdown: a handler that checks is trusted to end by itself.
///         if context.cancellation().is_cancelled() {
///             return Err(TaskError::soft_time_limit());
///         }
///         context.update_state(PROGRESS, json!({"progress": page, "total": pages})).await?;
///     }
///     context.submit(context.signature("reports.write", (pages,), json!({"urgent": true}))?).await?;
///     Ok(pages)
/// }
/// # drop(crawl);
/// ```
#[derive(Clone)]
pub struct Context(Arc<Run>);

pub(crate) struct Run {
    pub request: Arc<Request>,
    pub cancellation: Cancellation,
    pub host: Arc<dyn Host>,
    /// The tasks that the handler sent, for the record's `children`.
    pub children: Mutex<Vec<ResultTuple>>,
    /// Positional and keyword arguments, when some of them were not in the message.
    pub arguments: OnceLock<(Json, Json)>,
    /// Numbers and bounds the lines that it logs.
    pub lines: Counter,
}

/// Carries out the calls of handlers: the worker itself, or the parent of a child process.
#[async_trait]
pub(crate) trait Host: Send + Sync {
    fn hostname(&self) -> &str;
    /// Waits while the broker is down.
    async fn update_state(&self, request: &Request, state: &str, meta: Json);
    async fn submit(&self, request: &Request, signature: Signature) -> Result<ResultTuple, ContextError>;
    /// Never waits.
    fn log(&self, request: &Request, lines: &Counter, level: &str, text: &str);
}

/// Why a call of a handler failed.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error("the value cannot be written as JSON: {0}")]
    Value(#[from] serde_json::Error),
    #[error("the task was not sent: {0}")]
    NotSent(String),
}

/// How the message was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeliveryInfo {
    pub exchange: String,
    pub routing_key: String,
    pub priority: u8,
    pub redelivered: bool,
}

impl Context {
    pub(crate) fn new(request: Arc<Request>, cancellation: Cancellation, host: Arc<dyn Host>) -> Self {
        Self(Arc::new(Run {
            request,
            cancellation,
            host,
            children: Mutex::default(),
            arguments: OnceLock::new(),
            lines: Counter::default(),
        }))
    }

    pub(crate) fn run(&self) -> &Run {
        &self.0
    }

    pub fn id(&self) -> &TaskId {
        &self.0.request.message.id
    }

    /// The name by which the task was called.
    pub fn task(&self) -> &str {
        self.0.request.message.task.as_str()
    }

    /// 0 in the first run.
    pub fn retries(&self) -> u32 {
        self.0.request.message.retries
    }

    /// The positional arguments, a JSON array.
    pub fn args(&self) -> &RawValue {
        self.0.arguments.get().map_or(&self.0.request.message.args, |(args, _)| args)
    }

    /// The keyword arguments, a JSON object.
    pub fn kwargs(&self) -> &RawValue {
        self.0.arguments.get().map_or(&self.0.request.message.kwargs, |(_, kwargs)| kwargs)
    }

    /// The first task of the canvas; the task itself when it belongs to none.
    pub fn root_id(&self) -> Option<&TaskId> {
        self.0.request.message.root_id.as_ref()
    }

    /// The task that sent this one.
    pub fn parent_id(&self) -> Option<&TaskId> {
        self.0.request.message.parent_id.as_ref()
    }

    pub fn group_id(&self) -> Option<&GroupId> {
        self.0.request.message.group.as_ref()
    }

    pub fn group_index(&self) -> Option<i64> {
        self.0.request.message.group_index
    }

    pub fn eta(&self) -> Option<Timestamp> {
        self.0.request.message.eta
    }

    pub fn expires(&self) -> Option<Timestamp> {
        self.0.request.message.expires
    }

    /// The worker's node name, `celery@host`.
    pub fn hostname(&self) -> &str {
        self.0.host.hostname()
    }

    pub fn delivery_info(&self) -> DeliveryInfo {
        let origin = &self.0.request.origin;
        DeliveryInfo {
            exchange: origin.exchange.clone(),
            routing_key: origin.routing_key.clone(),
            priority: origin.priority.get(),
            redelivered: origin.redelivered,
        }
    }

    /// A header that the sender added to Celery's own.
    pub fn header(&self, name: &str) -> Option<&RawValue> {
        self.0.request.message.custom.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// Stores and publishes a custom state of the task, by convention [`PROGRESS`]. Waits while the backend is down. Does not replace an
    /// existing result.
    ///
    /// # Errors
    /// When `meta` cannot be written as JSON.
    pub async fn update_state(&self, state: &str, meta: impl Serialize) -> Result<(), ContextError> {
        let meta = serde_json::value::to_raw_value(&meta)?;
        self.0.host.update_state(&self.0.request, state, meta).await;
        Ok(())
    }

    /// [`Context::update_state`] for blocking handlers.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// Inside an async handler.
    pub fn update_state_blocking(&self, state: &str, meta: impl Serialize) -> Result<(), ContextError> {
        tokio::runtime::Handle::current().block_on(self.update_state(state, meta))
    }

    /// Adds a line to the task's log. Handlers log with `tracing`: see [`TaskLogs`](crate::TaskLogs).
    pub fn log(&self, level: &str, text: &str) {
        self.0.host.log(&self.0.request, &self.0.lines, level, text);
    }

    /// Whether the task's log has reached its bound, so that further lines would be dropped.
    pub(crate) fn log_has_ended(&self) -> bool {
        self.0.lines.has_ended()
    }

    /// Tells the handler that it should end. A handler that never calls this is dropped at its soft limit.
    pub fn cancellation(&self) -> &Cancellation {
        self.0.cancellation.watch()
    }

    /// Sends a task (or a canvas) whose parent is this one. It appears among the `children` of the result. A signature without a
    /// queue goes to this worker's default queue.
    ///
    /// # Errors
    /// When the signature cannot be sent.
    pub async fn submit(&self, signature: Signature) -> Result<TaskId, ContextError> {
        let sent = self.send(signature).await?;
        TaskId::parse(&sent.id).map_err(|error| ContextError::NotSent(error.to_string()))
    }

    /// Sends a child and records it.
    pub(crate) async fn send(&self, signature: Signature) -> Result<ResultTuple, ContextError> {
        let sent = self.0.host.submit(&self.0.request, signature).await?;
        self.0.children.lock().expect("nothing panics under this lock").push(sent.clone());
        Ok(sent)
    }

    /// A signature for [`Context::submit`].
    ///
    /// # Errors
    /// When `args` does not serialize to a JSON array or `kwargs` not to an object.
    pub fn signature(
        &self,
        task: &str,
        args: impl Serialize,
        kwargs: impl Serialize,
    ) -> Result<Signature, ContextError> {
        let wrong = |what| ContextError::NotSent(format!("the {what}"));
        let args = serde_json::value::to_raw_value(&args)?;
        let args = if args.get() == "null" { json::written("[]".into()) } else { args };
        let kwargs = serde_json::value::to_raw_value(&kwargs)?;
        let kwargs = if kwargs.get() == "null" { json::written("{}".into()) } else { kwargs };
        if !args.get().starts_with('[') {
            return Err(wrong("positional arguments are no array"));
        }
        if !kwargs.get().starts_with('{') {
            return Err(wrong("keyword arguments are no object"));
        }
        Ok(Signature::task(task, args, kwargs))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("id", self.id()).field("task", &self.task()).finish_non_exhaustive()
    }
}
