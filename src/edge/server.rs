//! Accepts connections, with TLS or plain, and speaks HTTP/1.1 and HTTP/2 on them.
//!
//! A connection that sends its head too slowly or is dead is cut, and one above the limit gets an answer that says so. At shutdown, answers
//! in progress are finished; streams end by themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::connection::{Prompt, Tls, last_words};
use super::middleware::forwarded::Peer;
use super::problem::Problem;
use super::slugs;
use crate::config;

/// The first bytes of an HTTP/2 connection; no method of HTTP/1.1 begins like this.
const HTTP2: &[u8] = b"PRI";
/// Pause after a failed accept (out of file descriptors), so that other connections can end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a shutdown waits for answers in progress.
const GRACE: Duration = Duration::from_secs(5);
/// Timeout for the answer to a connection above the limit.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How many connections may be refused with an answer at the same time; further ones are cut.
const MOST_REFUSED: usize = 100;
/// Maximum number of concurrent requests on an HTTP/2 connection.
const MOST_REQUESTS: u32 = 1_000;
/// A head that exceeds the limit is refused by the guard with a document; one that exceeds it by more than this, by hyper without one.
const ROOM_FOR_A_REFUSAL: u32 = 64 << 10;
/// How often a silent HTTP/2 connection is pinged; without an answer it is cut.
const PING_PERIOD: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How connections are served.
pub struct Server {
    http1: Builder<TokioExecutor>,
    http2: Builder<TokioExecutor>,
    either: Builder<TokioExecutor>,
    tls: Option<Tls>,
    handshake: Duration,
    max_connections: usize,
}

impl Server {
    /// # Errors
    /// When the certificate cannot be used.
    pub fn new(http: &config::Http) -> anyhow::Result<Self> {
        let builder = || builder(http.header_timeout, http.max_header);
        Ok(Self {
            http1: builder().http1_only(),
            http2: builder().http2_only(),
            either: builder(),
            tls: http.tls.as_ref().map(Tls::open).transpose()?,
            handshake: http.header_timeout,
            max_connections: http.max_connections.min(Semaphore::MAX_PERMITS),
        })
    }

    /// Chooses the protocol by the first bytes of a plain connection. They are peeked at: the library would read them first, and each
    /// connection would then keep a second buffer.
    async fn begun(&self, stream: &TcpStream) -> std::io::Result<&Builder<TokioExecutor>> {
        let mut first = [0; HTTP2.len()];
        let seen = stream.peek(&mut first).await?;
        Ok(match seen {
            _ if !HTTP2.starts_with(&first[..seen]) => &self.http1,
            all if all == HTTP2.len() => &self.http2,
            _ => &self.either,
        })
    }

    /// Adds a deadline for the rest of the HTTP/2 preface, for which the library has none.
    fn prompt<S>(&self, stream: S) -> Prompt<S> {
        Prompt::new(stream, self.handshake)
    }

    /// The protocol that was negotiated in the TLS handshake.
    fn agreed(&self, protocol: Option<&[u8]>) -> &Builder<TokioExecutor> {
        match protocol {
            Some(b"h2") => &self.http2,
            Some(_) => &self.http1,
            None => &self.either,
        }
    }
}

/// Serves until `stop`, then until the answers in progress are sent.
pub async fn serve(listener: TcpListener, router: Router, server: Server, stop: CancellationToken) {
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    if let Ok(address) = listener.local_addr() {
        info!(%address, "listening on {scheme}://{address}");
    }
    let server = Arc::new(server);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    if let Some(tls) = server.tls.clone() {
        connections.spawn(tls.renew(stop.clone()));
    }
    let places = Arc::new(Semaphore::new(server.max_connections));
    let refusals = Arc::new(Semaphore::new(MOST_REFUSED));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, address)) => {
                let _ = stream.set_nodelay(true);
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    if let (Ok(turn), None) = (Arc::clone(&refusals).try_acquire_owned(), &server.tls) {
                        connections.spawn(async move {
                            let _ = tokio::time::timeout(LAST_WORDS, refuse(stream)).await;
                            drop(turn);
                        });
                    }
                    continue;
                };
                let (server, router, watcher) = (Arc::clone(&server), router.clone(), graceful.watcher());
                let stop = stop.clone();
                connections.spawn(async move {
                    connection(&server, router, watcher, stream, address, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        warn!("some answers were not finished in time");
    }
}

/// Answers a connection above the limit, before anything is read from it.
async fn refuse(mut stream: TcpStream) {
    let problem = Problem::new(&slugs::TOO_MANY_CONNECTIONS).retry_after(Duration::from_secs(1));
    if stream.write_all(&last_words(problem).await).await.is_ok() {
        let _ = stream.shutdown().await;
        // Read and drop what the client sends: closing with unread data would reset the connection and lose the answer.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
}

async fn connection(
    server: &Server,
    router: Router,
    watcher: Watcher,
    stream: TcpStream,
    address: SocketAddr,
    stop: CancellationToken,
) {
    let peer = Peer { address, is_tls: server.tls.is_some() };
    if let Some(tls) = &server.tls {
        // Boxed, so that plain connections do not need as much memory as TLS connections.
        return Box::pin(secured(server, tls, router, watcher, stream, peer)).await;
    }
    let begun = tokio::time::timeout(server.handshake, server.begun(&stream));
    // A stop need not wait for a connection that has not sent anything.
    let begun = tokio::select! { () = stop.cancelled() => return, begun = begun => begun };
    match begun {
        Ok(Ok(builder)) => speak(builder, router, watcher, server.prompt(stream), peer).await,
        Ok(Err(error)) => debug!(%error, %address, "a connection ended before it began"),
        Err(_) => debug!(%address, "a connection did not begin in time"),
    }
}

async fn secured(server: &Server, tls: &Tls, router: Router, watcher: Watcher, stream: TcpStream, peer: Peer) {
    let address = peer.address;
    match tokio::time::timeout(server.handshake, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => {
            let builder = server.agreed(stream.get_ref().1.alpn_protocol());
            speak(builder, router, watcher, server.prompt(stream), peer).await;
        }
        Ok(Err(error)) => debug!(%error, %address, "a TLS handshake failed"),
        Err(_) => debug!(%address, "a TLS handshake took too long"),
    }
}

fn speak<S>(
    builder: &Builder<TokioExecutor>,
    router: Router,
    watcher: Watcher,
    stream: S,
    peer: Peer,
) -> impl Future<Output = ()> + use<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = Attached { inner: TowerToHyperService::new(router), peer };
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    watcher.watch(connection).map(|outcome| {
        if let Err(error) = outcome {
            debug!(%error, "a connection ended with an error");
        }
    })
}

/// Adds the peer of the connection to each request.
struct Attached {
    inner: TowerToHyperService<Router>,
    peer: Peer,
}

impl Service<Request<Incoming>> for Attached {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.inner.call(request)
    }
}

fn builder(header_timeout: Duration, max_header: usize) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(max_header)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_REQUESTS)
        .max_header_list_size(u32::try_from(max_header).unwrap_or(u32::MAX).saturating_add(ROOM_FOR_A_REFUSAL))
        .keep_alive_interval(PING_PERIOD)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
