//! Measures promised durations on a machine that may be busy.
//!
//! What takes two seconds on an idle machine takes twenty when ten processes compete for each core; a limit in wall-clock time would
//! then measure the other processes. This clock repeatedly sleeps and works a little, and counts how long that takes on an idle
//! machine. Without other load both clocks show the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::unix;

const SLEEP: Duration = Duration::from_millis(5);
const WORK: Duration = Duration::from_millis(1);

pub struct Stopwatch {
    began: Instant,
    ticks: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Stopwatch {
    pub fn start() -> Self {
        let (ticks, stop) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let (counted, stopped) = (Arc::clone(&ticks), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(SLEEP);
                let until = unix::thread_time() + WORK;
                while unix::thread_time() < until {}
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { began: Instant::now(), ticks, stop }
    }

    /// How long it would have taken on an idle machine, at most.
    pub fn elapsed(&self) -> Duration {
        let ticked = (SLEEP + WORK) * (self.ticks.load(Ordering::Relaxed) + 1);
        ticked.min(self.began.elapsed())
    }

    /// How many times slower than an idle machine this one has been: 1 or more.
    pub fn slowness(&self) -> f64 {
        self.began.elapsed().as_secs_f64() / self.elapsed().as_secs_f64()
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn it_is_never_ahead_of_the_wall() {
    let (watch, wall) = (Stopwatch::start(), Instant::now());
    super::wait::blocking(super::wait::DEADLINE, "it ticks", || {
        (watch.elapsed() > Duration::from_millis(50)).then_some(())
    });
    assert!(watch.elapsed() <= wall.elapsed());
}
