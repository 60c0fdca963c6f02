//! Extractors: parse requests into typed values, and turn every mistake into a problem that names it.

mod accept;
mod body;
mod body_filter;
mod caller;
mod conditional;
mod empty;
mod form;
mod id;
mod idempotency;
mod last_event;
mod lines;
mod packed;
mod prefer;
mod query;
mod questions;
mod trace;
mod wishes;

pub use accept::wants_json;
pub use body::{JsonText, json_text};
pub use body_filter::body_filter;
pub use caller::Caller;
pub use conditional::{Demand, IfNoneMatch};
pub use empty::{NoBody, without_body};
pub use form::{AnyJson, Urlencoded};
pub use id::{IdPath, PathValues};
pub use idempotency::{Repeatable, fingerprint};
pub use last_event::LastEventId;
pub use lines::{CHUNK_ITEMS, Item, Lines};
pub use packed::KNOWN_ENCODINGS;
pub use prefer::{Prefer, wanted as wanted_wait};
pub use query::{
    ListQuery, Parameters, count_query, dead_letter_query, delivery_query, feed_filter, list_query, messages_query,
    name_page_query, page_query,
};
pub use questions::{inspect_query, metrics_query, queue_history_query, stats_query, worker_history_query};
pub use trace::Traceparent;
pub use wishes::{path_value, wishes};
