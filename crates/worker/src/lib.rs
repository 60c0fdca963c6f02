//! A Celery worker in Rust: the same queues and wire format, beside Python workers or instead of them.
//!
//! ```no_run
//! use serde::Deserialize;
//! use taskgate_worker::{Builder, Context, Registry, TaskError, queue_names};
//!
//! #[derive(Deserialize)]
//! struct Add {
//!     x: i64,
//!     #[serde(default)]
//!     y: i64,
//! }
//!
//! async fn add(context: Context, add: Add) -> Result<i64, TaskError> {
//!     context.update_state("PROGRESS", serde_json::json!({"progress": 1, "total": 2})).await?;
//!     Ok(add.x + add.y)
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut tasks = Registry::new();
//!     tasks.task("tasks.add", add).rate_limit("100/m");
//!     let worker = Builder::connect("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/1")?;
//!     worker.registry(tasks).queues(queue_names(["celery", "heavy"])?).concurrency(4).run_until_signalled().await;
//!     Ok(())
//! }
//! ```
//!
//! A message passes through `consumer` (taken, reserved) → `dispatcher` (admitted, held, started) → `execute` (run within limits) →
//! `finish` (continuation sent, end stored) → `acks`. What stands behind it, Redis or RabbitMQ,
//! is known to `transport` and `records` only.

mod acks;
mod arguments;
mod autoscale;
mod builder;
mod cancellation;
mod children;
mod chords;
mod command;
mod consumer;
mod context;
mod control;
mod dispatcher;
mod error;
mod events;
mod execute;
mod finish;
mod follow;
mod host;
mod late;
mod logs;
mod memory;
mod options;
mod parameters;
mod rate;
mod recent;
mod records;
mod registry;
mod request;
mod results;
mod retry;
mod revoked;
mod rich;
mod service;
mod settings;
mod shared;
mod signals;
mod storage;
mod transport;

pub use broker::QueueOrder;
pub use builder::{Builder, Stop, queue_names};
pub use cancellation::{Cancellation, Cause};
pub use celery::task::RetryPolicy;
pub use children::is_child;
pub use command::{Bounds, Command, Dashes};
pub use context::{Context, ContextError, DeliveryInfo, PROGRESS};
pub use error::{Failure, Retry, TaskError};
pub use logs::TaskLogs;
pub use options::TaskOptions;
pub use registry::Registry;
pub use settings::{Autoscale, Pool, UnknownTask};
pub use storage::Storage;
