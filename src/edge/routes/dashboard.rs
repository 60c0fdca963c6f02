//! `/dashboard/`: the web dashboard, from files inside the binary.
//!
//! The files are static and use only the public API. The content security policy forbids inline and foreign scripts, and the pages
//! are written for that. File names do not change between releases, so browsers revalidate every time and mostly get 304.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;

const FRONT_PAGE: &str = "index.html";
const POLICY: &str =
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const GUARDS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-cache"),
];

/// Debug builds read the files from disk, so that a change shows at the next load.
#[derive(RustEmbed)]
#[folder = "dashboard/"]
struct Files;

/// `/dashboard/` and everything below it. The redirect from `/dashboard` is relative, so it works below any base path.
pub fn router() -> Router<Edge> {
    Router::new()
        .route("/dashboard", get(|| async { Redirect::permanent("dashboard/") }))
        .route("/dashboard/", get(|headers: HeaderMap| async move { file(FRONT_PAGE, &headers) }))
        .route(
            "/dashboard/{*path}",
            get(|Path(path): Path<String>, headers: HeaderMap| async move { file(&path, &headers) }),
        )
}

fn file(path: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Files::get(path) else { return Problem::new(&slugs::ROUTE_NOT_FOUND).into_response() };
    let tag = tag(&file);
    let mut response = if is_known(headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = mime_guess::from_path(path).first_or_octet_stream();
        let kind =
            if kind.type_() == mime_guess::mime::TEXT { format!("{kind}; charset=utf-8") } else { kind.to_string() };
        ([(header::CONTENT_TYPE, kind)], file.data).into_response()
    };
    let answered = response.headers_mut();
    answered.extend(GUARDS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answered.extend(HeaderValue::from_str(&tag).ok().map(|tag| (header::ETAG, tag)));
    response
}

/// The entity tag, a hash of the content, so that all replicas of a release agree.
fn tag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let digits: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).any(|known| known.trim().trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_page_is_there_and_nothing_else_may_run() {
        let response = file(FRONT_PAGE, &HeaderMap::new());
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
        assert!(
            response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'self';")
        );
        let page = String::from_utf8(Files::get(FRONT_PAGE).unwrap().data.into_owned()).unwrap();
        assert!(!page.contains("<style") && !page.contains("style=") && !page.contains("://"), "{page}");
    }

    #[test]
    fn a_known_file_is_not_sent_again() {
        let first = file("app/main.js", &HeaderMap::new());
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        let second = file("app/main.js", &headers);
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(second.headers()[header::ETAG], first.headers()[header::ETAG]);
    }

    #[test]
    fn only_files_of_the_dashboard_are_served() {
        for path in ["nothing.js", "../Cargo.toml"] {
            assert_eq!(file(path, &HeaderMap::new()).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
