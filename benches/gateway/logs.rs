//! How long it takes until a line that a command writes is with a reader of the task's log, on an idle system.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use toml::Table;

use super::harness::{Gateway, ports};
use super::{AFTER_START, Bench};

const LINES: usize = 1_000;
/// Each line is the time at which it is written, in nanoseconds.
const PROGRAM: &str = "import sys, time\nfor n in range(1000):\n    print(time.time_ns(), file=sys.stderr, flush=True)\n    time.sleep(0.005)";
const CONFIG: &str = r#"
log.filter = "warn"
[[tasks]]
name = "bench.lines"
command = ["python3", "-c"]
args = ["{program}"]
[tasks.body]
type = "object"
properties.program = { type = "string" }
"#;
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("lines of a task's log in dev, on an idle system");
    let port = ports::free();
    let (config, listen): (Table, _) = (CONFIG.parse().expect("TOML"), format!("127.0.0.1:{port}"));
    let mut gateway = Gateway::start(&["dev"], port, Some(&config), &[("TASKGATE_HTTP__LISTEN", &listen)]);
    gateway.wait_until_ready();
    tokio::time::sleep(AFTER_START).await;
    let http = gateway.http();
    let call = json!({"task": "bench.lines", "args": [PROGRAM]});
    let accepted = http.post_once("/v1/tasks", &call).await.expect(202);
    let path = format!("/v1/tasks/{}/logs", accepted["task_id"].as_str().expect("an id"));
    let mut stream = http.events(&path, &[]).await;
    let mut late = Vec::with_capacity(LINES);
    let (mut before, mut is_ordered) = (0, true);
    while late.len() < LINES {
        let event = stream.next_within(PATIENCE).await.expect("all lines come");
        let line = event.json();
        let Some(written) = line["text"].as_str().and_then(|text| text.parse::<u128>().ok()) else { continue };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        is_ordered &= written > before;
        before = written;
        late.push(now.saturating_sub(written) as f64 / 1e6);
    }
    late.sort_by(f64::total_cmp);
    let part = |percent: usize| late[(LINES * percent / 100).min(LINES - 1)];
    let order = if is_ordered { "in order" } else { "OUT OF ORDER" };
    bench.table.note(format!(
        "a line of a command until a reader has it: {LINES} lines {order}, p50 {:.0} ms, p99 {:.0} ms",
        part(50),
        part(99)
    ));
}
