//! Collects the results and prints them as a table.

use std::time::Duration;

use super::load::Rate;

#[derive(Default)]
pub struct Table {
    lines: Vec<String>,
}

impl Table {
    pub fn heading(&mut self, text: &str) {
        self.lines.push(format!("\n{text}"));
        eprintln!("measured so far: {} lines; next: {text}", self.lines.len());
    }

    /// Adds a rate and its ratio to each of the other rates.
    pub fn row(&mut self, name: &str, rate: &Rate, against: &[(&str, &Rate)]) {
        let mut line = format!("{name:<64} {:>9.0}/s", rate.per_second);
        if rate.p99 > Duration::ZERO {
            line += &format!("  p50 {:>7.2} ms  p99 {:>7.2} ms", millis(rate.p50), millis(rate.p99));
        }
        if rate.resident_mib > 0.0 {
            line += &format!("  {:>6.3} CPU-s/1000  {:>5.0} MiB", rate.cpu_seconds_per_thousand, rate.resident_mib);
        }
        // A peer that is missing has no rate.
        for (name, other) in against.iter().filter(|(_, other)| other.per_second > 0.0) {
            line += &format!("  {:.1} × {name}", rate.per_second / other.per_second);
        }
        if rate.refused > 0 {
            line += &format!("  ({} refused)", rate.refused);
        }
        self.lines.push(line);
    }

    pub fn latency(&mut self, name: &str, mut samples: Vec<Duration>) {
        samples.sort_unstable();
        let at = |share: f64| samples.get((samples.len() as f64 * share) as usize).copied().unwrap_or_default();
        self.lines.push(format!(
            "{name:<64} {:>9} n   p50 {:>7.2} ms  p99 {:>7.2} ms",
            samples.len(),
            millis(at(0.5)),
            millis(at(0.99))
        ));
    }

    pub fn note(&mut self, text: String) {
        eprintln!("{text}");
        self.lines.push(text);
    }

    pub fn print(&self) {
        println!("\nAll on this machine: load generator, Redis, PostgreSQL (fsync on), gateway, workers.");
        self.lines.iter().for_each(|line| println!("{line}"));
    }
}

pub fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}
