//! Connections below HTTP: TLS, the answer to a connection that is refused as a whole, and a deadline for silent peers.

mod prompt;
mod tls;

pub use prompt::Prompt;
pub use tls::Tls;

use axum::body::Body;
use axum::http::Response;
use http_body_util::BodyExt;

use super::problem::Problem;

/// A complete HTTP/1.1 answer that closes the connection, for a connection that is refused.
pub async fn last_words(problem: Problem) -> Vec<u8> {
    let (head, body): (_, Body) = Response::into_parts(problem.render(None));
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut text =
        format!("HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n", head.status, body.len()).into_bytes();
    for (name, value) in &head.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&body);
    text
}
