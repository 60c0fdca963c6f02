//! The three things that the standard library has no word for, each as a plain function.

#![expect(unsafe_code, reason = "signals, the parent-death signal and atexit exist as system calls only")]

use std::os::unix::process::CommandExt;
use std::process::Command;

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

/// Whether this process may do everything.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
