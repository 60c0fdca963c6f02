//! Makes files that this process creates accessible to their owner only.

/// Removes all rights of group and others from files and directories created from now on. Called before anything is opened.
pub fn files() {
    #[expect(unsafe_code, reason = "umask(2) takes a number; there is no call of the standard library")]
    // SAFETY: no memory is involved.
    let _ = unsafe { libc::umask(0o077) };
}
