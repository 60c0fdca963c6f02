//! Accepts connections, with TLS or plain, and speaks HTTP/1.1 and HTTP/2 on them.
//!
//! A connection that sends its head too slowly is cut, one too many is told so; an end waits for answers in progress, streams end
//! by themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
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

use super::connection::{Documented, Tls, last_words};
use super::middleware::forwarded::Peer;
use super::problem::Problem;
use super::slugs;
use crate::config;

/// When accepting fails (out of file descriptors), others shall end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Answers in progress at shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// For the few bytes that a connection too many gets.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Connections that are being told so; beyond these they are cut.
const MOST_REFUSED: usize = 100;

/// How connections are served.
pub struct Server {
    builder: Builder<TokioExecutor>,
    tls: Option<Tls>,
    handshake: Duration,
    max_connections: usize,
}

impl Server {
    /// # Errors
    /// When the certificate cannot be used.
    pub fn new(http: &config::Http) -> anyhow::Result<Self> {
        Ok(Self {
            builder: builder(http.header_timeout, http.max_header),
            tls: http.tls.as_ref().map(Tls::open).transpose()?,
            handshake: http.header_timeout,
            max_connections: http.max_connections.min(Semaphore::MAX_PERMITS),
        })
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
                connections.spawn(async move {
                    connection(&server, router, watcher, stream, address).await;
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

/// One too many: told so before anything of it is read.
async fn refuse(mut stream: TcpStream) {
    let problem = Problem::new(&slugs::TOO_MANY_CONNECTIONS).retry_after(Duration::from_secs(1));
    if stream.write_all(&last_words(problem).await).await.is_ok() {
        let _ = stream.shutdown().await;
        // What the client sends meanwhile is read away: closing over it would reset the connection and lose the answer.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
}

async fn connection(server: &Server, router: Router, watcher: Watcher, stream: TcpStream, address: SocketAddr) {
    let peer = Peer { address, is_tls: server.tls.is_some() };
    let Some(tls) = &server.tls else {
        return speak(server, router, watcher, Documented::new(stream), peer).await;
    };
    match tokio::time::timeout(server.handshake, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => speak(server, router, watcher, Documented::new(stream), peer).await,
        Ok(Err(error)) => debug!(%error, %address, "a TLS handshake failed"),
        Err(_) => debug!(%address, "a TLS handshake took too long"),
    }
}

async fn speak<S>(server: &Server, router: Router, watcher: Watcher, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = Attached { inner: TowerToHyperService::new(router), peer };
    let connection = server.builder.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "a connection ended with an error");
    }
}

/// Tells each request who is at the other end of its connection.
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
    let max_header = u32::try_from(max_header).unwrap_or(u32::MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1_000).max_header_list_size(max_header);
    builder
}
