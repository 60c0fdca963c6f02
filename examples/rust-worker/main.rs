//! A complete worker: two typed tasks, one of them with progress, retries and a soft time limit.
//!
//! ```sh
//! CELERY_BROKER_URL=redis://127.0.0.1:6379/0 CELERY_RESULT_BACKEND=redis://127.0.0.1:6379/1 cargo run --example rust-worker
//! ```
//!
//! Any Celery client can call it: `app.send_task("tasks.add", (2, 3)).get()`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use taskgate_worker::{Builder, Context, PROGRESS, Registry, RetryPolicy, TaskError};

#[derive(Deserialize)]
struct Add {
    x: f64,
    #[serde(default)]
    y: f64,
}

async fn add(_context: Context, add: Add) -> Result<f64, TaskError> {
    Ok(add.x + add.y)
}

#[derive(Serialize)]
struct Report {
    pages: u32,
}

async fn crawl(context: Context, (pages,): (u32,)) -> Result<Report, TaskError> {
    for page in 1..=pages {
        if context.cancellation().is_cancelled() {
            return Err(TaskError::soft_time_limit());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        context.update_state(PROGRESS, json!({"progress": page, "total": pages})).await?;
    }
    Ok(Report { pages })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt::init();
    let url = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let broker = url("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0");
    let backend = url("CELERY_RESULT_BACKEND", "redis://127.0.0.1:6379/1");

    let mut tasks = Registry::new();
    tasks.task("tasks.add", add);
    tasks.task("tasks.crawl", crawl).soft_time_limit(Duration::from_secs(60)).retry_failures(RetryPolicy::default());

    Builder::connect(&broker, &backend)?.registry(tasks).concurrency(4).task_events(true).run_until_signalled().await;
    Ok(())
}
