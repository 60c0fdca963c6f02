//! `Idempotency-Key`: makes it safe to repeat a POST.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, Method};
use sha2::{Digest, Sha256};

use crate::edge::problem::Problem;
use crate::edge::slugs;

static HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const MAX_CHARS: usize = 255;

/// The key, if the client sent one, with the rest of what identifies the request besides its body.
#[derive(Debug)]
pub struct Repeatable {
    pub key: Option<String>,
    pub method: Method,
    pub path: String,
}

impl<S: Sync> FromRequestParts<S> for Repeatable {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let key = parts.headers.get(&HEADER).map(|value| value.to_str().map(str::to_owned).unwrap_or_default());
        let is_valid = |key: &String| {
            (1..=MAX_CHARS).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        };
        if key.as_ref().is_some_and(|key| !is_valid(key)) {
            let detail = "must have 1 to 255 printable ASCII characters";
            return Err(Problem::new(&slugs::INVALID_HEADER)
                .detail(format!("Idempotency-Key {detail}"))
                .error("Idempotency-Key", detail));
        }
        Ok(Self { key, method: parts.method.clone(), path: parts.uri.path().to_owned() })
    }
}

/// Equal for equal requests: a hash of method, path and body.
pub fn fingerprint(method: &Method, path: &str, body: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(method.as_str());
    hash.update([0]);
    hash.update(path);
    hash.update([0]);
    hash.update(body);
    hash.finalize().to_vec()
}
