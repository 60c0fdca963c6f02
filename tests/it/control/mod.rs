//! Revoke, retry, queues, workers: what the gateway says to real workers, and what they say back.

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
