//! Query parameters: what each operation knows, and everything that is wrong with what was given.

mod checked;
mod filter;
mod pages;
mod parameters;
mod tasks;

pub(super) use checked::Checked;
pub use pages::{count_query, delivery_query, messages_query, name_page_query, page_query};
pub use parameters::Parameters;
pub use tasks::{ListQuery, dead_letter_query, feed_filter, list_query};
