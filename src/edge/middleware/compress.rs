//! Compresses large answers for clients that accept it. Other answers bypass the encoders: a body that may be encoded takes six
//! kilobytes, which would add up over ten thousand open streams.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use tower::{ServiceExt, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::Compression;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

/// Answers of at least this many bytes are compressed.
const WORTHWHILE: u64 = 1_024;

/// Compresses the answer if `accepted` (the request's `Accept-Encoding`) allows it.
pub async fn compressed(accepted: Option<HeaderValue>, response: Response) -> Response {
    if !worthwhile().should_compress(&response) {
        return response;
    }
    let mut asked = Request::new(Body::empty());
    asked.headers_mut().extend(accepted.map(|accepted| (header::ACCEPT_ENCODING, accepted)));
    let mut response = Some(response);
    let answer = service_fn(move |_: Request| {
        let response = response.take().expect("it is asked once");
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let encoder = Compression::new(answer).quality(CompressionLevel::Fastest).compress_when(worthwhile());
    let Ok(response) = encoder.oneshot(asked).await;
    response.map(Body::new)
}

/// Decides what to compress: not small answers, and not streams, because compression delays their events.
fn worthwhile() -> impl Predicate {
    SizeAbove::new(WORTHWHILE).and(NotForContentType::SSE).and(NotForContentType::IMAGES)
}
