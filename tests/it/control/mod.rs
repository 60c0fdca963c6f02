//! Revoke, retry, queues, workers: requests to real workers, and their answers.

mod canvas;
mod deployments;
mod exchanges;
mod expiry;
mod fan_out;
mod forms;
mod inspect;
mod queues;
mod retry;
mod revoke;
pub mod sentinel;
mod threads;
mod together;
