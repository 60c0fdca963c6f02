//! Handlers: turn a body into a use case, and its result into a view. They translate and do not decide.

pub mod audit;
pub mod batch;
pub mod bulk;
pub mod canvas;
pub mod capabilities;
pub mod catalog;
pub mod control;
#[cfg(feature = "dashboard")]
pub mod dashboard;
pub mod dead_letters;
pub mod docs;
pub mod events;
pub mod feed;
pub mod health;
pub mod hooks;
pub mod incidents;
pub mod insight;
pub mod learned;
pub mod limits;
pub mod logs;
pub mod metrics;
pub mod problems;
pub mod queues;
pub mod result;
pub mod schedules;
pub mod session;
pub mod stats;
pub mod submit;
pub mod tasks;
pub mod tickets;
pub mod tokens;
pub mod upload;
pub mod waits;
pub mod webhooks;
pub mod workers;

mod submission;
