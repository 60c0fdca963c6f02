//! taskgate: the HTTP front door of a Celery fleet, and the queue that can answer for every task.
//!
//! Commands flow down, facts flow up, and no module sits on both paths:
//!
//! ```text
//! down  edge, beat → usecase → ledger: one commit → relay → broker → Celery or our worker
//! up    result backend, worker events → recorder → ledger: ordered feed → SSE, API, dashboard
//! ```
//!
//! Beside it stand the crates: `celery` (vocabulary and wire), `broker`, `ledger`, `schedule`, `worker`, `resp`, `runtime`.
//! The modules in reading order, one line each:

// Futures of handlers hold those of the Redis client: the check that they are Send goes deeper than the default.
#![recursion_limit = "256"]

/// The composition root: builds a process from a configuration.
pub mod app;
/// What the tasks are called, what they take, where they go.
pub mod catalog;
/// What of a deployment does not fit together.
pub mod check;
/// The command line.
pub mod cli;
/// What the operator wrote: file and environment, checked in pairs.
pub mod config;
/// All roles in one process.
#[cfg(feature = "dev")]
pub mod dev;
/// HTTP: router, routes, problems, OpenAPI, SSE, dashboard.
pub mod edge;
/// Every decoder of what strangers send, for the fuzzer.
#[cfg(feature = "dev")]
pub mod fuzz_entry;
/// Who may call, and how often.
pub mod guard;
/// In front of the ledger: group commit, batched reads, the hub of live events.
pub mod live;
/// Two stores, one truth: relay, recorder, sweeper, canvases, expiry, retention.
pub mod reconcile;
/// What submits by itself: beat, expander, retrier.
pub mod roles;
/// The sample tasks, the same as those of the sample Celery application.
#[cfg(feature = "worker")]
pub mod samples;
/// Log output of this process.
pub mod telemetry;
/// What tells others: webhooks, traces, statistics, incidents, health.
pub mod tell;
/// What a client can ask for, one file each.
pub mod usecase;
