//! Signals in and out: TERM and INT stop the worker warm, a second one or QUIT cold; what it started gets the ones it is told.

use std::convert::Infallible;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::builder::Stop;

/// Sends a signal to a process and everything it started in its group. One that has ended already is no error.
pub(super) fn signal_group(leader: Option<u32>, signal: i32) {
    let Some(group) = leader.and_then(|leader| i32::try_from(leader).ok()).filter(|group| *group > 1) else { return };
    #[expect(
        unsafe_code,
        reason = "kill(2) takes two numbers; the group is one that this process made and still waits for"
    )]
    // SAFETY: no memory is involved.
    let _ = unsafe { libc::kill(-group, signal) };
}

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
