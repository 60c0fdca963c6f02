//! Files that this process makes are its owner's alone.

/// From now on: no right for the group and for others, on files and directories. Called before anything is opened.
pub fn files() {
    #[expect(unsafe_code, reason = "umask(2) takes a number; there is no call of the standard library")]
    // SAFETY: no memory is involved.
    let _ = unsafe { libc::umask(0o077) };
}
