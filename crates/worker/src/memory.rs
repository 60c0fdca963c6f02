//! Reads the resident memory of a process from `/proc`.

/// The peak of resident memory in KiB; 0 where the system does not report it.
pub(super) fn peak_kib(pid: u32) -> u64 {
    told(pid, "VmHWM:")
}

/// What is resident now, in KiB, of a process and its children.
pub(super) fn family_kib(pid: u32) -> u64 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    std::iter::once(pid).chain(pids).map(|pid| told(pid, "VmRSS:")).sum()
}

fn told(pid: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_nobody_has_none() {
        assert!(peak_kib(std::process::id()) > 100);
        assert_eq!(peak_kib(u32::MAX), 0);
        assert!(family_kib(std::process::id()) > 100);
    }
}
