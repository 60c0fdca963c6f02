//! The filter of a list as a member of a request body.

use axum::http::Uri;

use super::feed_filter;
use celery::task::invalid::Problems;
use celery::task::json::{self, Fields};
use ledger::Filter;

/// Reads the parameters of `GET /v1/tasks` from an object: its values are written into a query, which the same reader parses.
pub fn body_filter(problems: &mut Problems, fields: &Fields<'_>) -> Filter {
    let mut query = Vec::new();
    for (name, value) in fields.iter() {
        let values = json::elements(value).unwrap_or_else(|| vec![value]);
        for value in values {
            match json::text(value) {
                Some(text) => query.push(format!("{}={}", encoded(name), encoded(&text))),
                None => problems.add_at(name, "must be a text or a list of texts"),
            }
        }
    }
    let uri: Result<Uri, _> = format!("/?{}", query.join("&")).parse();
    let Ok(uri) = uri else {
        problems.add("is too long");
        return Filter::default();
    };
    feed_filter(&uri).unwrap_or_else(|problem| {
        for place in problem.places() {
            problems.add_at(&place.pointer, place.detail.clone());
        }
        Filter::default()
    })
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
