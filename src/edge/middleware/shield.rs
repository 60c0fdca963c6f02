//! Security headers of every answer: which scripts and styles may run, and that no other page may frame it.
//!
//! A route that sets them itself (the dashboard) keeps its own.

use axum::http::{HeaderMap, HeaderValue, header};

/// The policy of answers for programs: nothing may run.
const NOTHING: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Swagger UI needs inline styles and data URLs; its scripts are files of this gateway.
const SWAGGER: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'";
/// The pages that explain problems have an inline style and no script.
const PROBLEMS: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the missing headers to the answer of a path.
pub fn cover(path: &str, headers: &mut HeaderMap) {
    let policy = match path {
        path if path.starts_with("/swagger-ui") || path.starts_with("/docs") => SWAGGER,
        path if path.starts_with("/problems") => PROBLEMS,
        _ => NOTHING,
    };
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(policy));
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(header::X_FRAME_OPTIONS).or_insert(HeaderValue::from_static("DENY"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_policy_and_a_routes_own_stays() {
        for path in ["/swagger-ui/", "/problems/x", "/v1/tasks", "/nothing"] {
            let mut headers = HeaderMap::new();
            cover(path, &mut headers);
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("script-src 'unsafe"), "{path}");
        }
        let mut own = HeaderMap::from_iter([(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("mine"))]);
        cover("/", &mut own);
        assert_eq!(own[header::CONTENT_SECURITY_POLICY], "mine");
    }
}
