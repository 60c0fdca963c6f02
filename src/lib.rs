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

// Handlers' futures contain those of the Redis client, so the Send check needs more than the default recursion limit.
#![recursion_limit = "256"]

/// The composition root: builds a process from a configuration.
pub mod app;
/// The declared tasks: names, parameters, endpoints, queues.
pub mod catalog;
/// `taskgate check`: finds what does not fit together in a deployment.
pub mod check;
/// The command line.
pub mod cli;
/// The configuration from file, environment and flags, and its checks.
pub mod config;
/// All roles in one process.
#[cfg(feature = "dev")]
pub mod dev;
/// HTTP: router, routes, problems, OpenAPI, SSE, dashboard.
pub mod edge;
/// Every decoder of untrusted input, for the fuzzer.
#[cfg(feature = "dev")]
pub mod fuzz_entry;
/// Tokens, logins and rate limits: who may call, and how often.
pub mod guard;
/// In front of the ledger (the history database): group commit, batched reads, the hub of live events.
pub mod live;
/// Keeps broker and ledger consistent: relay, recorder, sweeper, canvases, expiry, retention.
pub mod reconcile;
/// Services that submit tasks on their own: beat, expander, retrier.
pub mod roles;
/// The sample tasks, the same as those of the sample Celery application.
#[cfg(feature = "worker")]
pub mod samples;
/// Where the files of requests are kept.
pub mod stores;
/// Logs and metrics of this process.
pub mod telemetry;
/// Reports to the outside: webhooks, traces, statistics, incidents, health.
pub mod tell;
/// The use cases, one file each: what a client can ask for.
pub mod usecase;
