//! `If-None-Match` on a GET: a client that has the newest version gets 304. `If-Match` on an edit: a change to an old version is
//! refused.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use crate::usecase::schedules::Precondition;

/// The entity tags that the client has.
#[derive(Debug, Default)]
pub struct IfNoneMatch(Vec<String>);

impl IfNoneMatch {
    /// Weak comparison, as for every GET.
    pub fn has(&self, etag: &str) -> bool {
        let strong = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
        self.0.iter().any(|tag| tag == "*" || strong(tag) == strong(etag))
    }
}

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let values = parts.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        Ok(Self(values.flat_map(|value| value.split(',')).map(|tag| tag.trim().to_owned()).collect()))
    }
}

/// The precondition of an edit: `If-Match` with tags or `*`, or `If-None-Match: *`.
#[derive(Debug)]
pub struct Demand(pub Precondition);

impl<S: Sync> FromRequestParts<S> for Demand {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let said = |name: header::HeaderName| {
            let values = parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).map(|tag| tag.trim().to_owned()).collect::<Vec<String>>()
        };
        let (tags, absent) = (said(header::IF_MATCH), said(header::IF_NONE_MATCH));
        Ok(Self(match (tags.as_slice(), absent.as_slice()) {
            ([], [star]) if star == "*" => Precondition::Absent,
            ([], _) => Precondition::None,
            (tags, _) if tags.iter().any(|tag| tag == "*") => Precondition::Exists,
            // A weak tag never matches here.
            (tags, _) => Precondition::Tags(tags.to_vec()),
        }))
    }
}
