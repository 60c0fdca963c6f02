//! Receives and sends signals: TERM and INT stop the worker warm, a second one or QUIT cold; its child processes are sent signals.

use std::convert::Infallible;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::builder::Stop;

/// The signals that are known by name.
const NAMES: [(&str, i32); 22] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("PROF", libc::SIGPROF),
    ("SYS", libc::SIGSYS),
];

/// `KILL` for 9.
pub(super) fn name_of(signal: i32) -> Option<&'static str> {
    NAMES.into_iter().find(|(_, number)| *number == signal).map(|(name, _)| name)
}

/// 9 for `SIGKILL`, `KILL` and `kill`.
pub(super) fn number_of(name: &str) -> Option<i32> {
    let upper = name.to_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.into_iter().find(|(known, _)| *known == short).map(|(_, number)| number)
}

/// Sends a signal to a process group. A group that has already ended is not an error.
pub(super) fn signal_group(leader: Option<u32>, signal: i32) {
    let Some(group) = leader.and_then(|leader| i32::try_from(leader).ok()).filter(|group| *group > 1) else { return };
    #[expect(
        unsafe_code,
        reason = "kill(2) takes two numbers; the group is one that this process made and still waits for"
    )]
    // SAFETY: no memory is involved.
    let _ = unsafe { libc::kill(-group, signal) };
}

/// Cancels `stop` on signals, for as long as it is polled. With `REMAP_SIGTERM=SIGQUIT` the first TERM stops cold.
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
