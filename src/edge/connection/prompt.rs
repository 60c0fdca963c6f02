//! A deadline until a connection's HTTP version is known: before that, neither hyper's HTTP/1 nor its HTTP/2 has a timeout, and a
//! peer that is silent after the TLS handshake, or sends only a part of HTTP/2's preface, would hold a connection for ever.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A connection that begins with anything else speaks HTTP/1, whose head has a timeout of its own.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose reads fail when the HTTP version is not known in time.
pub struct Prompt<S> {
    stream: S,
    /// How much of the preface was received, and the deadline for the rest, until the version is known.
    preface: usize,
    open_until: Option<Pin<Box<Sleep>>>,
}

impl<S> Prompt<S> {
    pub fn new(stream: S, limit: Duration) -> Self {
        Self { stream, preface: 0, open_until: Some(Box::pin(tokio::time::sleep(limit))) }
    }

    fn read(&mut self, bytes: &[u8]) {
        let rest = &PREFACE[self.preface..];
        if rest.len() > bytes.len() && rest.starts_with(bytes) {
            self.preface += bytes.len();
        } else {
            self.open_until = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some(open_until) = &mut self.open_until else { return read };
        match read {
            Poll::Pending => open_until.as_mut().poll(cx).map(|()| Err(ErrorKind::TimedOut.into())),
            Poll::Ready(outcome) => {
                self.read(&buffer.filled()[before..]);
                Poll::Ready(outcome)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Reads after these bytes and after the deadline.
    async fn after(said: &[u8]) -> io::Result<u8> {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let mut connection = Prompt::new(near, LIMIT);
        let talk = async {
            for byte in said {
                far.write_u8(*byte).await.unwrap();
                tokio::time::sleep(LIMIT / 1_000).await;
            }
            tokio::time::sleep(LIMIT * 10).await;
            far.write_u8(b'!').await
        };
        let listen = async {
            let mut bytes = vec![0; said.len()];
            connection.read_exact(&mut bytes).await?;
            connection.read_u8().await
        };
        let (_, heard) = tokio::join!(talk, listen);
        heard
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_say_which_http_is_cut() {
        for said in [&b""[..], b"P", &PREFACE[..23]] {
            assert_eq!(after(said).await.unwrap_err().kind(), ErrorKind::TimedOut, "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_said_it_has_all_the_time() {
        for said in [&b"G"[..], b"PRE", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            assert_eq!(after(said).await.unwrap(), b'!', "{said:?}");
        }
    }
}
