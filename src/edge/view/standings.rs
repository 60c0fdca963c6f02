//! How queues and workers stood over time, as the API shows it.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::usecase::standings::{QueuePoint, Series, WorkerPoint};
use runtime::clock::Time;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueueHistoryPoint)]
pub struct QueuePointView {
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// Messages in the broker, on average; null where nobody looked.
    pub waiting: Option<f64>,
    /// Age of the oldest of them, on average; null where it is not known.
    pub oldest_seconds: Option<f64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueueHistoryOfOne)]
pub struct QueueSeriesView {
    pub queue: String,
    pub points: Vec<QueuePointView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueueHistory)]
pub struct QueueHistoryView {
    /// Seconds that one point stands for.
    pub step: u64,
    /// Those with most messages first, at most 50.
    pub queues: Vec<QueueSeriesView>,
}

impl QueueHistoryView {
    pub fn of(step: Duration, queues: Vec<Series<QueuePoint>>) -> Self {
        let point = |(at, point): (Time, QueuePoint)| QueuePointView {
            at,
            waiting: point.waiting,
            oldest_seconds: point.oldest_secs,
        };
        let series = |(queue, points): Series<QueuePoint>| QueueSeriesView {
            queue,
            points: points.into_iter().map(point).collect(),
        };
        Self { step: step.as_secs(), queues: queues.into_iter().map(series).collect() }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkerHistoryPoint)]
pub struct WorkerPointView {
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// Busy slots, on average; null where the worker was away or does not tell.
    pub active: Option<f64>,
    /// All its slots, on average.
    pub slots: Option<f64>,
    /// As `memory_bytes` of a worker, on average.
    pub memory_bytes: Option<f64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkerHistoryOfOne)]
pub struct WorkerSeriesView {
    #[schema(example = "celery@host")]
    pub hostname: String,
    pub points: Vec<WorkerPointView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkerHistory)]
pub struct WorkerHistoryView {
    /// Seconds that one point stands for.
    pub step: u64,
    /// By name, at most 50.
    pub workers: Vec<WorkerSeriesView>,
}

impl WorkerHistoryView {
    pub fn of(step: Duration, workers: Vec<Series<WorkerPoint>>) -> Self {
        let point = |(at, point): (Time, WorkerPoint)| WorkerPointView {
            at,
            active: point.active,
            slots: point.slots,
            memory_bytes: point.memory_bytes,
        };
        let series = |(hostname, points): Series<WorkerPoint>| WorkerSeriesView {
            hostname,
            points: points.into_iter().map(point).collect(),
        };
        Self { step: step.as_secs(), workers: workers.into_iter().map(series).collect() }
    }
}
