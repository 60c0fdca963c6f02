//! Starts the real peers: redis-server, PostgreSQL, Celery workers of two versions, and the `taskgate` binary itself.
//!
//! The suite is one process with threads (`cargo test`), not a process per test: a Celery worker takes more than a second to
//! boot, so tests share an environment where they can ([`Harness::shared`]) and start their own only to hurt it. PostgreSQL
//! is one cluster per run, with a database per gateway copied from a migrated template. `cargo nextest` works too, but then
//! every test starts everything, so `make test` uses it for nothing here.
//!
//! Nothing survives: what is started dies when its handle is dropped, when the test process ends (`atexit`), and when the
//! process is killed (`PR_SET_PDEATHSIG`). Logs of a failed test's peers are printed.

#![allow(dead_code, unused_imports, reason = "a toolbox: which tool is in use changes with the tests")]

pub mod celery;
pub mod environment;
pub mod gateway;
pub mod http;
pub mod latch;
pub mod nursery;
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod rabbit;
pub mod reader;
pub mod redis;
pub mod sse;
pub mod stopwatch;
pub mod terminal;
pub mod turns;
pub mod unix;
pub mod wait;

pub use celery::{Celery, CeleryOptions, Version};
pub use environment::Shared;
pub use gateway::Gateway;
pub use http::{Answer, Http};
pub use latch::Latch;
pub use pgbouncer::PgBouncer;
pub use rabbit::Rabbit;
pub use redis::{Redis, RedisOptions};
pub use stopwatch::Stopwatch;
pub use wait::eventually;
