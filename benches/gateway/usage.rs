//! Processor time and resident memory of a server's processes, including children, as the kernel counts them.

use std::collections::HashMap;

use super::harness::unix;

/// The kernel's unit of processor time in `/proc/<pid>/stat`: 100 a second on every Linux that runs these benches.
const TICKS: f64 = 100.0;

/// A server that may be several processes.
#[derive(Clone, Default)]
pub struct Servers(Vec<i32>);

impl Servers {
    pub fn of(pids: &[i32]) -> Self {
        Self(pids.to_vec())
    }

    /// User and system time of all processes and their children so far.
    pub fn cpu_seconds(&self) -> f64 {
        self.family().into_iter().filter_map(ticks).sum::<f64>() / TICKS
    }

    pub fn resident_mib(&self) -> f64 {
        self.family().into_iter().map(resident_mib).sum()
    }

    /// Sends a signal to all processes, also to children that lead their own process group, as PostgreSQL's do.
    pub fn signal(&self, signal: i32) {
        self.family().into_iter().for_each(|pid| unix::kill(pid, signal));
    }

    fn family(&self) -> Vec<i32> {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for pid in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = pid.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut family = self.0.clone();
        let mut next = 0;
        while let Some(pid) = family.get(next) {
            family.extend(children.remove(pid).unwrap_or_default());
            next += 1;
        }
        family
    }
}

/// The fields of `/proc/<pid>/stat` after the name, which may contain anything.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

fn ticks(pid: i32) -> Option<f64> {
    let fields = stat(pid)?;
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

/// Resident memory of one process.
pub fn resident_mib(pid: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
