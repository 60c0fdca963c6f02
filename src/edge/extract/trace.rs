//! `traceparent` (W3C Trace Context): passed on in the message. An invalid one is ignored, as the standard requires.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::HeaderName;
use axum::http::request::Parts;

use crate::tell::traces::SpanContext;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

#[derive(Debug, Default)]
pub struct Traceparent(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for Traceparent {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let given = parts.headers.get(&TRACEPARENT).and_then(|value| value.to_str().ok());
        Ok(Self(given.filter(|text| SpanContext::parse(text).is_some()).map(str::to_owned)))
    }
}
