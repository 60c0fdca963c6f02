//! What was measured, as text.

use std::time::Duration;

use super::load::Rate;

#[derive(Default)]
pub struct Table {
    lines: Vec<String>,
}

impl Table {
    pub fn row(&mut self, name: &str, rate: &Rate, against: Option<&Rate>) {
        let ratio =
            against.map_or_else(String::new, |other| format!("{:6.1} ×", rate.per_second / other.per_second.max(1.0)));
        let refused = if rate.refused > 0 { format!("  ({} refused)", rate.refused) } else { String::new() };
        self.lines.push(format!(
            "{name:<66} {:>9.0}/s  p50 {:>7.2} ms  p99 {:>7.2} ms {ratio}{refused}",
            rate.per_second,
            millis(rate.p50),
            millis(rate.p99)
        ));
    }

    pub fn latency(&mut self, name: &str, mut samples: Vec<Duration>) {
        samples.sort_unstable();
        let at = |share: f64| samples.get((samples.len() as f64 * share) as usize).copied().unwrap_or_default();
        self.lines.push(format!(
            "{name:<66} {:>9} n  p50 {:>7.2} ms  p99 {:>7.2} ms",
            samples.len(),
            millis(at(0.5)),
            millis(at(0.99))
        ));
    }

    pub fn note(&mut self, text: String) {
        self.lines.push(text);
    }

    pub fn print(&self) {
        println!("\nEverything on this machine: load generator, Redis, PostgreSQL (fsync on), gateway, workers.\n");
        self.lines.iter().for_each(|line| println!("{line}"));
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}

/// Resident memory of a process.
pub fn resident_mib(pid: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
