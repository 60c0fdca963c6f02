//! The edge: turns HTTP requests into use cases, and their results into views. The only module that knows axum, status codes and
//! OpenAPI.
//!
//! Invariants: every refusal is an RFC 9457 problem of [`slugs`]; every route has an operation in the contract; a handler
//! translates and does not decide; all work for a request is bounded in time and memory.

pub mod access;
mod answer;
mod base;
mod causes;
mod connection;
mod contract;
mod cursor;
#[cfg(feature = "dev")]
mod decoders;
mod extract;
mod fleet;
mod flower;
mod links;
mod login;
mod mcp;
mod middleware;
pub mod openapi;
pub mod problem;
pub mod router;
mod routes;
mod schedule_schema;
pub mod server;
mod session;
mod signature_schema;
pub mod slugs;
mod spool;
mod sse;
pub mod state;
pub mod view;
mod webhook_schema;

#[cfg(test)]
mod tests;

pub use axum::Router;
#[cfg(feature = "dev")]
pub(crate) use decoders::{checked_json, read_cursors, read_queries};
pub use router::router;
pub use server::{Server, serve};
pub use state::{Behind, Edge};
