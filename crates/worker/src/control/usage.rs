//! The resources that this process has used, from `/proc`: Celery's `rusage` without its unused fields.

use serde_json::{Value, json};

use super::super::memory::peak_kib;

/// Linux counts processor time for `/proc` in hundredths of a second on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn rusage() -> Value {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command's name is in parentheses and may contain blanks; the fields after it do not.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "ticks of one process fit 53 bits")]
    let seconds = |index: usize| number(index) as f64 / TICKS_PER_SECOND;
    json!({
        "utime": seconds(11), "stime": seconds(12), "maxrss": peak_kib(std::process::id()),
        "ixrss": 0, "idrss": 0, "isrss": 0, "minflt": number(7), "majflt": number(9), "nswap": 0, "inblock": 0,
        "oublock": 0, "msgsnd": 0, "msgrcv": 0, "nsignals": 0, "nvcsw": 0, "nivcsw": 0,
    })
}
