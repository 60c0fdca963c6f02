//! Waiting for facts. No test sleeps a fixed time in the hope that something has happened by then.

use std::time::{Duration, Instant};

/// How long a fact may take on a machine that is ten times slower because of what else it does; a healthy one takes a small part
/// of it, and nobody waits longer than the fact takes.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Asks until the answer is `Some`, at most [`DEADLINE`]; `what` names the fact in the failure.
pub async fn eventually<T>(what: &str, fact: impl AsyncFnMut() -> Option<T>) -> T {
    within(DEADLINE, what, fact).await
}

/// As [`eventually`], with another deadline.
pub async fn within<T>(deadline: Duration, what: &str, mut fact: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + deadline;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(value) = fact().await {
            return value;
        }
        assert!(Instant::now() < until, "not within {deadline:?}: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// The blocking form, for starting peers outside of any runtime.
pub fn blocking<T>(deadline: Duration, what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(value) = fact() {
            return value;
        }
        assert!(Instant::now() < until, "not within {deadline:?}: {what}");
        pause(Duration::from_millis(10));
    }
}

#[expect(clippy::disallowed_methods, reason = "peers are started outside of any runtime")]
fn pause(length: Duration) {
    std::thread::sleep(length);
}
