//! Reads the resident memory of a process from `/proc`.

/// The peak of resident memory in KiB; 0 where the system does not report it.
pub(super) fn peak_kib(pid: u32) -> u64 {
    told(pid, "VmHWM:")
}

/// What is resident now, in KiB, of a process and its children.
pub(super) fn family_kib(pid: u32) -> u64 {
    std::iter::once(pid).chain(children(pid)).map(|pid| told(pid, "VmRSS:")).sum()
}

/// A child is listed with the thread that started it.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
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

    #[test]
    fn a_child_of_another_thread_is_one_of_the_family() {
        let start = || std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut child = std::thread::spawn(start).join().unwrap();
        let is_there = children(std::process::id()).contains(&child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_there);
    }
}
