//! Session cookies: a logged-in browser holds a secret that scripts cannot read and that pages of other sites cannot use.
//!
//! A session is a token in the ledger that belongs to a person, so the rules of tokens apply: scopes, streams that end with it,
//! revocation at every replica within a second. Against cross-site requests, the cookie is `SameSite`, and a request that changes
//! something must also carry a CSRF token that only a page of this gateway can read.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::base;
use crate::edge::problem::Problem;
use crate::edge::slugs;

pub const SESSION: &str = "taskgate_session";
/// The cookie that a browser holds during a login at the provider.
pub const ATTEMPT: &str = "taskgate_login";
static CSRF: HeaderName = HeaderName::from_static("x-csrf-token");

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// `Set-Cookie` for this path and below; without a value it deletes the cookie. `Lax`, because the callback from a provider is a
/// navigation from another site.
pub fn set(name: &str, value: Option<&str>, seconds: u64, is_https: bool) -> HeaderValue {
    let (value, seconds) = value.map_or(("", 0), |value| (value, seconds));
    let path = base::path("/");
    let secure = if is_https { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).expect("names, digits and base64 are a header value")
}

/// The CSRF token for unsafe requests of this session.
pub fn csrf(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("csrf {secret}")))
}

/// # Errors
/// When a request of a session changes something but lacks the session's CSRF token.
pub fn check(method: &Method, headers: &HeaderMap, secret: &str) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let given = headers.get(&CSRF).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_right: bool = given.ct_eq(csrf(secret).as_bytes()).into();
    if is_right { Ok(()) } else { Err(Problem::new(&slugs::FORGED_REQUEST)) }
}

/// The path to return to after a login; never another site.
pub fn way_back(wanted: Option<&str>) -> String {
    let is_local = |path: &&str| {
        path.starts_with("/dashboard/")
            && path.len() < 500
            && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    base::path(wanted.filter(is_local).unwrap_or("/dashboard/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; taskgate_session=x"));
        headers.append(header::COOKIE, HeaderValue::from_static("taskgate_login=y"));
        assert_eq!((cookie(&headers, SESSION), cookie(&headers, ATTEMPT)), (Some("x"), Some("y")));
        assert_eq!(cookie(&headers, "b"), None);
    }

    #[test]
    fn a_cookie_is_out_of_reach_of_scripts_and_other_sites() {
        let text = set(SESSION, Some("x"), 60, true);
        let text = text.to_str().unwrap();
        assert!(["HttpOnly", "SameSite=Lax", "Secure", "Max-Age=60"].iter().all(|word| text.contains(word)), "{text}");
        assert!(set(SESSION, None, 60, false).to_str().unwrap().contains("Max-Age=0"));
    }

    #[test]
    fn what_changes_something_carries_the_word() {
        let mut headers = HeaderMap::new();
        assert!(check(&Method::GET, &headers, "s").is_ok());
        assert!(check(&Method::POST, &headers, "s").is_err());
        headers.insert(&CSRF, HeaderValue::from_str(&csrf("other")).unwrap());
        assert!(check(&Method::POST, &headers, "s").is_err());
        headers.insert(&CSRF, HeaderValue::from_str(&csrf("s")).unwrap());
        assert!(check(&Method::POST, &headers, "s").is_ok());
    }

    #[test]
    fn the_way_back_leads_nowhere_else() {
        assert_eq!(way_back(Some("/dashboard/?page=x#y")), "/dashboard/?page=x#y");
        for elsewhere in ["https://evil.example/", "//evil.example", "/dashboard/\\evil", "/v1/tasks", "/dashboardx"] {
            assert_eq!(way_back(Some(elsewhere)), "/dashboard/", "{elsewhere}");
        }
    }
}
