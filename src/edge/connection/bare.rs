//! hyper answers what it cannot read as HTTP with a status and nothing else. Here such an answer gets its document.
//!
//! The edge itself never refuses with an empty body, so a head that refuses and announces none is hyper's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::edge::problem::Problem;
use crate::edge::slugs::{self, Slug};

/// hyper's refusal, up to its status.
const REFUSAL: &[u8] = b"HTTP/1.1 4";
const EMPTY: &[u8] = b"content-length: 0\r\n";

/// A connection whose bare refusals are replaced.
pub struct Documented<S> {
    stream: S,
    /// What is written instead, how far, and how many bytes of the caller it stands for.
    instead: Option<(Vec<u8>, usize, usize)>,
}

impl<S> Documented<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, instead: None }
    }
}

impl<S: AsyncWrite + Unpin> Documented<S> {
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while let Some((bytes, written, stands_for)) = &mut self.instead {
            if *written == bytes.len() {
                let done = *stands_for;
                self.instead = None;
                return Poll::Ready(Ok(done));
            }
            *written += ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[*written..]))?;
        }
        Poll::Ready(Ok(0))
    }

    /// Whether these bytes are such a refusal; it is prepared then.
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        if self.instead.is_none() {
            let Some(slug) = bare(bytes) else { return false };
            self.instead = Some((document(slug), 0, bytes.len()));
        }
        true
    }
}

fn bare(bytes: &[u8]) -> Option<&'static Slug> {
    if !bytes.starts_with(REFUSAL)
        || !bytes.ends_with(b"\r\n\r\n")
        || !bytes.windows(EMPTY.len()).any(|part| part == EMPTY)
    {
        return None;
    }
    match StatusCode::from_bytes(bytes.get(9..12)?).ok()? {
        StatusCode::BAD_REQUEST => Some(&slugs::MALFORMED_REQUEST),
        StatusCode::URI_TOO_LONG => Some(&slugs::URI_TOO_LONG),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Some(&slugs::HEADERS_TOO_LARGE),
        _ => None,
    }
}

fn document(slug: &'static Slug) -> Vec<u8> {
    let body = Problem::new(slug).document();
    format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\ncontent-length: {}\r\n\r\n{body}",
        slug.status,
        body.len()
    )
    .into_bytes()
}

impl<S: AsyncRead + Unpin> AsyncRead for Documented<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Documented<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replaces(bytes) {
            return self.poll_instead(cx);
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if parts.first().is_some_and(|first| self.replaces(first)) {
            return self.poll_instead(cx);
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn written(bytes: &[u8]) -> String {
        let (near, mut far) = tokio::io::duplex(16 << 10);
        let mut connection = Documented::new(near);
        connection.write_all(bytes).await.unwrap();
        connection.shutdown().await.unwrap();
        drop(connection);
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut far, &mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_refusal_without_a_document_gets_one() {
        let text =
            written(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                .await;
        assert!(text.starts_with("HTTP/1.1 431 ") && text.contains("application/problem+json"), "{text}");
        assert!(text.ends_with('}') && text.contains("/problems/headers-too-large"), "{text}");
    }

    #[tokio::test]
    async fn everything_else_goes_through_as_it_is() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n",
        ] {
            assert_eq!(written(text.as_bytes()).await, text);
        }
    }
}
