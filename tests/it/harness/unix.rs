//! System calls that the standard library does not offer, each as a plain function.

#![expect(
    unsafe_code,
    reason = "signals, the parent-death signal, atexit, a thread's clock and terminals exist as system calls only"
)]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Sends `signal` to the process `id`, or to a whole group when `id` is negative; nothing happens when it is gone.
pub fn kill(id: i32, signal: i32) {
    // SAFETY: a system call that takes two numbers.
    unsafe { libc::kill(id, signal) };
}

/// The kernel kills the child when the thread that starts it ends.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and touches only the new process.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Runs `end` when this process ends in an orderly way, also after a failed test.
pub fn at_exit(end: extern "C" fn()) {
    // SAFETY: a function pointer that lives as long as the program.
    unsafe { libc::atexit(end) };
}

/// How long the calling thread has worked.
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a system call that fills the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A pseudo-terminal: the user's side and the program's side. No other child inherits them: while a child held the program's side, the
/// user's side would not end.
pub fn terminal(rows: u16, columns: u16) -> (File, File) {
    let near = File::options().read(true).write(true).open("/dev/ptmx").expect("there are terminals");
    let locked: libc::c_int = 0;
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the calls read what the pointers point to.
    let far = unsafe {
        libc::ioctl(near.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked);
        libc::ioctl(near.as_raw_fd(), libc::TIOCSWINSZ, &raw const size);
        libc::ioctl(near.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC)
    };
    assert!(far >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a descriptor that was just made, and nobody else's.
    (near, unsafe { File::from_raw_fd(far) })
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
