//! Typed answers: a handler's return type determines status, body and headers, and the contract is generated from it.
//!
//! Successes are [`Typed`] (with the names `Answer`, `Page`, `Tagged`, `Created`, `Accepted` for the usual kinds), [`NoContent`],
//! [`Either`] of two of them, or [`Described`] where the operation's attribute lists its responses itself (streams, pages, texts).
//! Refusals are [`Refused`]: a problem, with the error types that can cause it. A handler whose type does not implement
//! `utoipa::IntoResponses` does not compile.
//!
//! A new error type needs a line in each of the two lists of `refusals.rs` and its `From` in `problem.rs`.

mod kinds;
mod refusals;
mod typed;

pub use kinds::{Accepted, Answer, Created, IsAccepted, Kind, Page, Pending, Started, Tagged};
pub use refusals::{Body, OfResult, OfTask, Query, Refusals, Refused};
pub use typed::{Described, Either, Lends, NoContent, Typed, Unchanged, components, text};
