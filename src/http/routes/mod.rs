//! Handlers: body in, use case, view out. They translate and do not decide.

pub mod canvas;
pub mod catalog;
pub mod docs;
pub mod events;
pub mod feed;
pub mod health;
pub mod metrics;
pub mod problems;
pub mod result;
pub mod sample_site;
pub mod submit;
pub mod tasks;

mod submission;
