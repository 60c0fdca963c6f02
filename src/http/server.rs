//! Accepts connections and speaks HTTP/1.1 and HTTP/2 on them.
//!
//! A connection that sends its head too slowly is cut; an end waits for answers in progress, streams end by themselves.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// When accepting fails (out of file descriptors), others shall end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Answers in progress at shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// A head of at most this many bytes is read.
const MAX_HEAD: usize = 64 << 10;

/// Serves until `stop`, then until the answers in progress are sent.
pub async fn serve(listener: TcpListener, router: Router, header_timeout: Duration, stop: CancellationToken) {
    if let Ok(address) = listener.local_addr() {
        info!(%address, "listening on http://{address}");
    }
    let builder = builder(header_timeout);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let service = TowerToHyperService::new(router.clone());
                let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
                let watched = graceful.watch(connection);
                connections.spawn(async move {
                    if let Err(error) = watched.await {
                        debug!(%error, "a connection ended with an error");
                    }
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

fn builder(header_timeout: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_HEAD)
        .keep_alive(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1_000).max_header_list_size(MAX_HEAD as u32);
    builder
}
