//! The signals that Celery's workers know: TERM and INT stop warm, a second one or QUIT stops cold.

use std::convert::Infallible;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::builder::Stop;

/// Turns signals into `stop` for as long as it is polled. With `REMAP_SIGTERM=SIGQUIT` the first TERM is cold.
pub(super) async fn listen(stop: Stop) -> Infallible {
    let handler = |kind| signal(kind).expect("a signal handler can be installed");
    let (mut term, mut int, mut quit) =
        (handler(SignalKind::terminate()), handler(SignalKind::interrupt()), handler(SignalKind::quit()));
    let remapped = std::env::var("REMAP_SIGTERM").is_ok_and(|signal| signal == "SIGQUIT");
    loop {
        let cold = tokio::select! {
            _ = term.recv() => remapped,
            _ = int.recv() => false,
            _ = quit.recv() => true,
        };
        if cold || stop.warm.is_cancelled() {
            warn!("stopping cold: running tasks are given up");
            stop.warm.cancel();
            stop.cold.cancel();
        } else {
            info!("stopping warm: running tasks are finished; send the signal again to stop cold");
            stop.warm.cancel();
        }
    }
}
