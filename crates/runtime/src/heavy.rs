//! Runs CPU-heavy work of a single request (parsing a large body, planning a large canvas) off the threads that answer requests: a
//! few threads of lower priority do it, one job after the other, and later jobs wait in a queue.
//!
//! Small work is done on the caller's thread, because handing it over would cost more. A job whose caller is gone before its turn is
//! skipped; a job that has begun is not interrupted.

use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, available_parallelism};

use tokio::sync::oneshot;

/// An input of this many bytes is parsed, checked and planned in clearly less than 5 ms.
pub const SMALL: usize = 64 << 10;
/// Nice value of these threads: beside the answering threads, they get a tenth of a contended processor.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// The queue needs no bound of its own: each caller waits for its one job.
static JOBS: LazyLock<Sender<Job>> = LazyLock::new(|| {
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    // Use half of the processors; the other half answers requests.
    let threads = (available_parallelism().map_or(1, usize::from) / 2).max(1);
    for n in 0..threads {
        let receiver = Arc::clone(&receiver);
        let thread = Builder::new().name(format!("heavy-{n}")).spawn(move || work_off(&receiver));
        thread.expect("a thread can be started at the first large request");
    }
    sender
});

fn work_off(jobs: &Mutex<Receiver<Job>>) {
    step_back();
    loop {
        let job = jobs.lock().expect("nothing panics under this lock").recv();
        let Ok(job) = job else { return };
        job();
    }
}

/// Lowers the priority of this thread only: on Linux a nice value belongs to a thread.
fn step_back() {
    #[expect(unsafe_code, reason = "setpriority(2) takes three numbers; there is no call of the standard library")]
    // SAFETY: no memory is involved.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Runs `work` on an input of `bytes` bytes.
///
/// # Panics
/// When `work` does.
pub async fn run<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= SMALL {
        return work();
    }
    let (done, answer) = oneshot::channel();
    let job = move || {
        if done.is_closed() {
            return;
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let _ = done.send(result);
    };
    JOBS.send(Box::new(job)).expect("the threads never end");
    match answer.await.expect("every job that is waited for is done") {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests have tasks of their own")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_large_leaves_the_thread_and_what_is_small_does_not() {
        let here = std::thread::current().id();
        assert_eq!(run(1, || std::thread::current().id()).await, here);
        let others: Vec<_> =
            (0..8_usize).map(|n| tokio::spawn(run(SMALL + 1, move || (n, std::thread::current().id())))).collect();
        for (n, other) in others.into_iter().enumerate() {
            let (result, thread) = other.await.unwrap();
            assert!(result == n && thread != here);
        }
    }

    #[tokio::test]
    async fn a_panic_is_its_callers() {
        let broken = tokio::spawn(run(SMALL + 1, || -> u8 { panic!("broken") }));
        assert!(broken.await.is_err_and(|error| error.is_panic()));
        assert_eq!(run(SMALL + 1, || 7).await, 7);
    }
}
