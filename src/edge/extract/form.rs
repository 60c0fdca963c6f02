//! Bodies of Flower's scripts: a form, or JSON with any content type.

use axum::extract::{FromRequest, Request};
use axum::http::header;

use super::body::{checked, read, too_large};
use super::query::Parameters;
use crate::edge::problem::Problem;
use crate::edge::slugs;
use crate::edge::state::Edge;
use runtime::heavy;

/// Maximum size of a form, in bytes: it has a handful of options.
const MAX_FORM: usize = 64 << 10;

/// The pairs of a form; empty for a body of another type.
pub struct Urlencoded(pub Vec<(String, String)>);

impl FromRequest<Edge> for Urlencoded {
    type Rejection = Problem;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Problem> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/x-www-form-urlencoded") {
            return Ok(Self(Vec::new()));
        }
        let text = whole(request, edge).await?;
        if text.len() > MAX_FORM {
            return Err(too_large(MAX_FORM));
        }
        let text = String::from_utf8(text)
            .map_err(|_| Problem::new(&slugs::INVALID_REQUEST).detail("the form is not UTF-8"))?;
        Ok(Self(Parameters::read(&text.replace('+', " "))?.into_pairs()))
    }
}

/// A JSON text, or an empty body.
pub struct AnyJson(pub String);

impl FromRequest<Edge> for AnyJson {
    type Rejection = Problem;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Problem> {
        let bytes = whole(request, edge).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(String::new()));
        }
        let (depth, width) = (edge.limits.depth, edge.limits.width);
        heavy::run(bytes.len(), move || checked(bytes, depth, width)).await.map(Self)
    }
}

async fn whole(request: Request, edge: &Edge) -> Result<Vec<u8>, Problem> {
    let (head, body) = request.into_parts();
    let reading = read(body, &head.headers, edge);
    match tokio::time::timeout(edge.http.request_timeout, reading).await {
        Ok(bytes) => bytes,
        Err(_) => Err(Problem::new(&slugs::REQUEST_TIMEOUT)),
    }
}
