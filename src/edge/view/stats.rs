//! Statistics over time as the API shows them.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::usecase::stats::{FailureGroup, Flow, Histogram, Latency};
use runtime::clock::Time;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ThroughputPoint)]
pub struct FlowView {
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    pub accepted: i64,
    pub received: i64,
    pub started: i64,
    pub retried: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub revoked: i64,
    pub expired: i64,
    pub skipped: i64,
    pub lost: i64,
    pub ignored: i64,
}

impl FlowView {
    pub fn of((at, flow): &(Time, Flow)) -> Self {
        Self {
            at: *at,
            accepted: flow.count("accepted"),
            received: flow.count("received"),
            started: flow.count("started"),
            retried: flow.count("retried"),
            succeeded: flow.count("succeeded"),
            failed: flow.count("failed"),
            revoked: flow.count("revoked"),
            expired: flow.count("expired"),
            skipped: flow.count("skipped"),
            lost: flow.count("lost"),
            ignored: flow.count("ignored"),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Throughput)]
pub struct ThroughputView {
    /// Seconds that one point stands for.
    pub step: u64,
    pub points: Vec<FlowView>,
}

impl ThroughputView {
    pub fn of(step: Duration, points: &[(Time, Flow)]) -> Self {
        Self { step: step.as_secs(), points: points.iter().map(FlowView::of).collect() }
    }
}

/// Percentiles in seconds, as exact as the histogram's buckets allow (bounds at 1, 2 and 5 times powers of ten).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Percentiles)]
pub struct PercentilesView {
    pub count: i64,
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
}

impl PercentilesView {
    fn of(histogram: &Histogram) -> Self {
        Self {
            count: histogram.count(),
            p50: histogram.percentile(0.5),
            p95: histogram.percentile(0.95),
            p99: histogram.percentile(0.99),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LatencyPoint)]
pub struct LatencyPointView {
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// From the time when it could run until it started.
    pub wait: PercentilesView,
    /// From its start to its end.
    pub run: PercentilesView,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskLatency)]
pub struct TaskLatencyView {
    pub task: String,
    pub wait: PercentilesView,
    pub run: PercentilesView,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Latency)]
pub struct LatencyView {
    /// Seconds that one point stands for.
    pub step: u64,
    pub points: Vec<LatencyPointView>,
    /// Over the whole period, by task.
    pub tasks: Vec<TaskLatencyView>,
}

impl LatencyView {
    pub fn of(step: Duration, points: &[(Time, Latency)], tasks: &[(String, Latency)]) -> Self {
        let point = |(at, latency): &(Time, Latency)| LatencyPointView {
            at: *at,
            wait: PercentilesView::of(&latency.wait),
            run: PercentilesView::of(&latency.run),
        };
        let task = |(name, latency): &(String, Latency)| TaskLatencyView {
            task: name.clone(),
            wait: PercentilesView::of(&latency.wait),
            run: PercentilesView::of(&latency.run),
        };
        Self {
            step: step.as_secs(),
            points: points.iter().map(point).collect(),
            tasks: tasks.iter().map(task).collect(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ErrorCount)]
pub struct CountView {
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    pub count: i64,
}

/// Failures with the same task, error type and innermost frame.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ErrorGroup)]
pub struct FailureGroupView {
    pub fingerprint: String,
    #[schema(example = "tasks.add")]
    pub task: String,
    #[serde(rename = "type")]
    #[schema(example = "ValueError")]
    pub kind: String,
    /// The innermost frame, without its line; null without a traceback.
    #[schema(example = "app/tasks.py in crawl")]
    pub frame: Option<String>,
    /// The message of the newest failure.
    pub message: String,
    /// Failures in the requested period.
    pub count: i64,
    #[schema(value_type = String, format = DateTime)]
    pub first_at: Time,
    #[schema(value_type = String, format = DateTime)]
    pub last_at: Time,
    pub last_task_id: String,
    pub trend: Vec<CountView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ErrorStats)]
pub struct FailuresView {
    /// Seconds that one point of a trend stands for.
    pub step: u64,
    /// Most first.
    pub groups: Vec<FailureGroupView>,
}

impl FailuresView {
    pub fn of(step: Duration, groups: Vec<FailureGroup>) -> Self {
        let group = |FailureGroup { kind, count, trend }: FailureGroup| FailureGroupView {
            fingerprint: kind.fingerprint,
            task: kind.name,
            kind: kind.kind,
            frame: kind.frame,
            message: kind.message,
            count,
            first_at: kind.first_at,
            last_at: kind.last_at,
            last_task_id: kind.last_task_id,
            trend: trend.into_iter().map(|(at, count)| CountView { at, count }).collect(),
        };
        Self { step: step.as_secs(), groups: groups.into_iter().map(group).collect() }
    }
}
/// Tasks by phase.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Outcomes)]
pub struct OutcomesView {
    #[schema(value_type = Object, example = json!({"failed": 12, "succeeded": 4000}))]
    pub by_phase: std::collections::BTreeMap<&'static str, i64>,
    /// There are more tasks than were counted.
    pub more: bool,
}
