//! The edge's readers of untrusted text, for `crate::fuzz_entry`.

use axum::http::Uri;

use super::cursor;
use super::extract::{
    count_query, delivery_query, feed_filter, inspect_query, json_text, list_query, messages_query, name_page_query,
    page_query, stats_query,
};
use crate::config::Limits;
use runtime::clock::Time;

/// The text of a body, if it may be parsed: UTF-8, within depth and width limits, without lone surrogates.
pub fn checked_json(bytes: &[u8]) -> Option<String> {
    json_text(bytes.to_vec(), &Limits::default()).ok()
}

/// # Panics
/// When a cursor is accepted that was not written here.
pub fn read_cursors(text: &str) {
    if let Some(place) = cursor::read(text) {
        assert_eq!(cursor::write(place), text);
    }
    if let Some(name) = cursor::read_name(text) {
        assert_eq!(cursor::write_name(&name), text);
    }
}

/// Runs every reader of a query.
pub fn read_queries(text: &str) {
    let Ok(uri) = format!("/v1/tasks?{text}").parse::<Uri>() else { return };
    let _ = list_query(&uri);
    let _ = page_query(&uri);
    let _ = name_page_query(&uri);
    let _ = count_query(&uri, 10, 100);
    let _ = feed_filter(&uri);
    let _ = inspect_query(&uri, &["ids"]);
    let _ = stats_query(&uri, Time(1_800_000_000_000_000));
    let _ = delivery_query(&uri);
    let _ = messages_query(&uri);
}
