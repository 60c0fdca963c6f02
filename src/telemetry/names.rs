//! Every metric of a process, with its kind and its help: `# HELP` and `# TYPE` come from here, and counters exist from the start
//! with the value 0. The tests fail for a metric that is not listed.
//!
//! The fleet's figures (`celery_…`) are computed at each scrape, see `edge::fleet`.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};

/// Counters without labels begin at zero; those with labels begin with the labels given here.
const COUNTERS: &[(&str, &str)] = &[
    ("taskgate_http_requests_total", "Answered requests by method, route and status"),
    ("taskgate_tasks_published_total", "Messages put into the broker, directly after the commit or out of the outbox"),
    ("taskgate_worker_events_total", "Events heard from workers"),
    ("taskgate_recorder_events_total", "Changes of tasks that the recorder wrote into the ledger"),
    ("taskgate_records_unreadable_total", "Records in the result backend that could not be read"),
    ("taskgate_events_unreadable_total", "Messages on the event channel that could not be read"),
    ("taskgate_repairs_total", "Repairs, by kind"),
    ("taskgate_sweeper_looks_total", "Comparisons of the ledger with Redis and the workers"),
    (
        "taskgate_tasks_requeued_total",
        "Tasks that the sweeper queued again: nowhere in Redis, or put back from unacked",
    ),
    (
        "taskgate_fallback_polls_total",
        "Periodic passes that found something due without a wake-up: one was missed, or another replica died",
    ),
    ("taskgate_tasks_lost_total", "Tasks that were ended as lost"),
    ("taskgate_leases_renewed_total", "Leases of reserved messages that were renewed for live workers"),
    ("taskgate_duplicates_total", "Tasks that a worker took again after they had ended"),
    ("taskgate_redeliveries_total", "Messages that the broker delivered again by itself"),
    ("taskgate_steps_settled_total", "Canvas steps that were ended because a task before them failed"),
    ("taskgate_tasks_pruned_total", "Finished tasks that were removed after ledger.keep"),
    ("taskgate_schedule_runs_total", "Ticks of schedules by outcome"),
    ("taskgate_spans_exported_total", "Spans that the trace collector accepted"),
    ("taskgate_spans_dropped_total", "Spans that were dropped because the collector was unreachable for too long"),
    ("taskgate_tasks_retried_total", "Tasks that were submitted anew because their retry policy asks for it"),
    ("taskgate_messages_removed_total", "Messages that were taken out of their queue, by reason"),
    ("taskgate_task_log_events_dropped_total", "Events with log lines of tasks that could not be stored"),
    ("taskgate_inbox_calls_total", "Inbox calls that became tasks or dead letters"),
    ("taskgate_files_received_total", "Files of requests that were stored"),
    ("taskgate_files_removed_total", "Files that were removed from stores because no task needs them"),
    ("taskgate_fan_out_tasks_total", "Tasks that were written for fan-out calls"),
    ("taskgate_notifications_total", "Messages about incidents to `[[notify]]` and to webhooks, by outcome"),
    ("taskgate_webhook_tries_total", "Webhook delivery attempts, by outcome"),
    ("taskgate_worker_events_dropped_total", "Events that our own worker could not send in time"),
    ("taskgate_worker_messages_refused_total", "Messages that our own worker could not read"),
];

/// The labels with which labelled counters exist from the start.
const FROM_ZERO: &[(&str, &str, &[&str])] = &[
    ("taskgate_tasks_published_total", "way", &["direct", "outbox"]),
    ("taskgate_repairs_total", "kind", &REPAIRS),
    ("taskgate_fallback_polls_total", "service", &["relay"]),
    ("taskgate_tasks_requeued_total", "reason", &["absent", "restored"]),
];
const FROM_ZERO_BARE: &[&str] = &[
    "taskgate_files_received_total",
    "taskgate_files_removed_total",
    "taskgate_worker_events_total",
    "taskgate_recorder_events_total",
    "taskgate_records_unreadable_total",
    "taskgate_events_unreadable_total",
    "taskgate_tasks_lost_total",
    "taskgate_leases_renewed_total",
    "taskgate_duplicates_total",
    "taskgate_redeliveries_total",
    "taskgate_tasks_pruned_total",
    "taskgate_sweeper_looks_total",
];

/// The kinds of repair: a message that Redis lost is published again; a task runs again after its worker died; a message in `unacked`
/// goes back into its list; a task is given up, ends as ignored, waits for its replacement, or was delivered too often; too many tasks
/// would run again at once (`suspended`); a revoke is fulfilled; an old message that came back is removed; a chord's keys are written again.
pub const REPAIRS: [&str; 11] = [
    "requeued",
    "rerun",
    "restored",
    "lost",
    "ignored",
    "awaited",
    "poison",
    "suspended",
    "revoked",
    "removed",
    "chord_rebuilt",
];

const GAUGES: &[(&str, &str)] = &[
    ("taskgate_dependency_up", "1 while the ledger, or Redis (broker and result backend), takes writes"),
    (
        "taskgate_replica_lag_seconds",
        "How many seconds the ledger of a gateway with `--role read` lags behind the primary",
    ),
    ("taskgate_outbox_depth", "Accepted tasks that are due and not yet in the broker"),
    ("taskgate_outbox_age_seconds", "Age of the oldest task in the outbox, 0 when it is empty"),
    ("taskgate_recorder_active", "1 while this replica is the active recorder"),
    ("taskgate_sse_streams", "Open event streams of this process"),
    ("taskgate_pool_connections", "Connections of this process to the ledger's database, by pool and state"),
    ("taskgate_pool_connections_max", "The most that a pool may open"),
    ("taskgate_workers_online", "Workers that send heartbeats"),
    ("taskgate_incidents", "Open incidents by kind"),
];

const HISTOGRAMS: &[(&str, &str)] = &[
    ("taskgate_http_request_seconds", "Seconds from the head of a request to the head of its answer"),
    ("taskgate_submit_seconds", "Seconds from when a submission was read until it was committed"),
    ("taskgate_commit_seconds", "Seconds of one commit of submissions"),
    ("taskgate_commit_batch_submissions", "Submissions that shared one commit"),
    ("taskgate_publish_seconds", "Seconds of one pipelined publish"),
    ("taskgate_recorder_commit_seconds", "Seconds of one commit of the recorder"),
    (
        "taskgate_recorder_lag_seconds",
        "Seconds from an event in a worker until it was stored: the oldest event of each commit",
    ),
    ("taskgate_schedule_lateness_seconds", "Seconds by which a tick was fired late"),
    ("taskgate_inbox_seconds", "Seconds from when a call was written into an inbox until it became a task"),
    ("taskgate_webhook_seconds", "Seconds of one webhook delivery attempt"),
];

/// Describes every metric. Called once, after the metrics recorder is installed.
pub(super) fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(*name, *help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(*name, *help);
    }
    for (name, help) in HISTOGRAMS {
        let unit = if name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count };
        describe_histogram!(*name, unit, *help);
    }
    for name in FROM_ZERO_BARE {
        counter!(*name).increment(0);
    }
    for (name, label, values) in FROM_ZERO {
        for value in *values {
            counter!(*name, *label => *value).increment(0);
        }
    }
}
