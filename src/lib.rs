//! taskgate: the HTTP front door of a Celery fleet, and the queue that can answer for every task.
//!
//! Commands flow down, facts flow up, and no module sits on both paths:
//!
//! ```text
//! down  http, beat → gateway → store: task and outbox row, one commit → relay → broker → Celery or our worker
//! up    result backend, worker events → recorder → store: ordered feed → SSE, API, dashboard
//! ```

pub mod app;
pub mod backend;
pub mod beat;
pub mod broker;
pub mod catalog;
pub mod celery;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crash_points;
pub mod decoders;
pub mod dev;
pub mod gateway;
pub mod http;
pub mod lifecycle;
pub mod resp;
pub mod services;
pub mod spelling;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod traces;
pub mod worker;
