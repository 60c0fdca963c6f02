//! Watches in `/proc` how much memory and how many processes a command uses, including those it started.
//!
//! Its processes are found by process group and by parent, so a child that leaves the group is still counted as long as its parent
//! lives. Between two checks a command may exceed its bounds; the next check ends it.

use std::collections::HashSet;
use std::time::Duration;

use super::confine::Bounds;
use crate::signals::signal_group;

/// The time between two checks.
const PERIOD: Duration = Duration::from_millis(50);

/// The bound that a command exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooMuch {
    Memory { bytes: u64 },
    Processes { count: u32 },
    Output { bytes: u64 },
}

impl TooMuch {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Memory { .. } => "MemoryLimitExceeded",
            Self::Processes { .. } => "ProcessLimitExceeded",
            Self::Output { .. } => "OutputLimitExceeded",
        }
    }

    pub fn told(self) -> String {
        match self {
            Self::Memory { bytes } => format!("the command took more than {bytes} bytes of memory"),
            Self::Processes { count } => format!("the command ran more than {count} processes"),
            Self::Output { bytes } => format!("the command wrote more than {bytes} bytes of output"),
        }
    }
}

/// A process as `/proc/…/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    pid: u32,
    parent: u32,
    group: u32,
    resident_pages: u64,
}

/// Completes when the command exceeds a bound; never otherwise.
pub(super) async fn watch(leader: Option<u32>, bounds: Bounds) -> TooMuch {
    let Some(leader) = leader else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PERIOD).await;
        let looked = tokio::task::spawn_blocking(move || look(leader)).await;
        let Ok((count, bytes)) = looked else { continue };
        if count > bounds.processes {
            return TooMuch::Processes { count: bounds.processes };
        }
        if bytes > bounds.memory {
            return TooMuch::Memory { bytes: bounds.memory };
        }
    }
}

/// Kills every process of the command, including those that left its group.
pub(super) fn kill_all(leader: Option<u32>) {
    signal_group(leader, libc::SIGKILL);
    let Some(leader) = leader else { return };
    for process in family(&all(), leader) {
        signal_group(Some(process.group).filter(|group| *group != own_group()), libc::SIGKILL);
    }
}

fn own_group() -> u32 {
    all().iter().find(|process| process.pid == std::process::id()).map_or(0, |process| process.group)
}

/// How many processes the command has, and their resident memory in bytes.
fn look(leader: u32) -> (u32, u64) {
    let family = family(&all(), leader);
    let pages: u64 = family.iter().map(|process| process.resident_pages).sum();
    (u32::try_from(family.len()).unwrap_or(u32::MAX), pages.saturating_mul(page_bytes()))
}

fn page_bytes() -> u64 {
    // SAFETY: sysconf(3) takes a number and returns one.
    #[expect(unsafe_code, reason = "the size of a page is told by a C call only")]
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4_096)
}

/// The processes of the leader's group, and all descendants of them.
fn family(all: &[Seen], leader: u32) -> Vec<Seen> {
    let is_first = |process: &&Seen| process.pid == leader || process.group == leader;
    let mut pids: HashSet<u32> = all.iter().filter(is_first).map(|process| process.pid).collect();
    loop {
        let before = pids.len();
        let children = all.iter().filter(|process| pids.contains(&process.parent)).map(|process| process.pid);
        pids.extend(children.collect::<Vec<_>>());
        if pids.len() == before {
            return all.iter().filter(|process| pids.contains(&process.pid)).copied().collect();
        }
    }
}

fn all() -> Vec<Seen> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stat = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        read(pid, &std::fs::read_to_string(entry.path().join("stat")).ok()?)
    };
    entries.filter_map(stat).collect()
}

/// Reads a line of `/proc/…/stat`. The name may contain anything, so the fields are counted from the last parenthesis.
fn read(pid: u32, stat: &str) -> Option<Seen> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // A zombie uses nothing.
    if *fields.first()? == "Z" {
        return None;
    }
    Some(Seen {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        resident_pages: fields.get(21)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_a_group_and_what_descends_from_it() {
        let seen = |pid, parent, group| Seen { pid, parent, group, resident_pages: 1 };
        let all =
            [seen(1, 0, 1), seen(10, 1, 10), seen(11, 10, 10), seen(12, 11, 12), seen(13, 12, 13), seen(20, 1, 20)];
        let pids: Vec<u32> = family(&all, 10).iter().map(|process| process.pid).collect();
        assert_eq!(pids, [10, 11, 12, 13]);
        assert!(family(&all, 99).is_empty());
    }

    #[test]
    fn this_process_is_seen_with_its_memory() {
        let (count, bytes) = look(std::process::id());
        assert!(count >= 1 && bytes > 100_000, "{count} {bytes}");
    }

    #[test]
    fn a_name_with_parentheses_hides_nothing() {
        let line = "7 (a) b (c)) S 3 4 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9 1000 42 18446744073709551615";
        assert_eq!(read(7, line), Some(Seen { pid: 7, parent: 3, group: 4, resident_pages: 42 }));
        assert_eq!(read(7, "7 (x) Z 3 4 5"), None);
    }
}
