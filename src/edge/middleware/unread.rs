//! Handles requests that are answered before their body was read: the connection is closed after the answer (`Connection: close`), and
//! the rest of the body is read and dropped for a while, because a client that is cut off while it writes does not read the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};

use crate::edge::state::Edge;
use runtime::lifecycle::OnExit;

/// How long the rest of a body is read.
const DRAIN_TIME: Duration = Duration::from_secs(60);
/// How long to wait for the next part of it: a client that sends nothing can read the answer at once.
const PAUSE: Duration = Duration::from_secs(2);

/// Whether a body was left unread.
#[derive(Clone, Default)]
pub struct Left(Arc<AtomicBool>);

/// A body that is drained in the background when its reader drops it.
struct Watched {
    /// `None` once the body has ended, or is being drained.
    inner: Option<Body>,
    edge: Edge,
    left: Left,
    /// Whether the body was read at all: with `Expect: 100-continue` the client sends nothing before the first read.
    has_begun: bool,
    read: usize,
}

/// Watches the body of an HTTP/1 request; HTTP/2 ends a stream by itself.
pub fn watch(edge: &Edge, request: Request<Body>) -> (Request<Body>, Option<Left>) {
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return (request, None);
    }
    let left = Left::default();
    let has_begun = !request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let watched = Watched { inner: Some(body), edge: edge.clone(), left: left.clone(), has_begun, read: 0 };
    (Request::from_parts(head, Body::new(watched)), Some(left))
}

/// Adds `Connection: close` if a part of the body was left unread.
pub fn announce(left: Option<Left>, response: &mut Response<Body>) {
    if left.is_some_and(|left| left.0.load(Ordering::Acquire)) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.has_begun = true;
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.read += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => self.inner = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(body) = self.inner.take().filter(|body| !body.is_end_stream()) else { return };
        self.left.0.store(true, Ordering::Release);
        if self.has_begun {
            drain(body, &self.edge, self.read);
        }
    }
}

/// Drains the body in the background while the answer is sent.
fn drain(mut body: Body, edge: &Edge, read: usize) {
    let most = edge.limits.drain;
    edge.tasks.spawn("drain", OnExit::Nothing, move |stop| async move {
        let mut read = read;
        let rest = async {
            while let Ok(Some(Ok(frame))) = tokio::time::timeout(PAUSE, body.frame()).await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > most {
                    break;
                }
            }
        };
        tokio::select! { () = stop.cancelled() => {} _ = tokio::time::timeout(DRAIN_TIME, rest) => {} }
    });
}
