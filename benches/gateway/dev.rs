//! `taskgate dev`: one process with its own Redis, and SQLite as the ledger.

use super::harness::{Gateway, ports};
use super::load::{self, Load, Target};
use super::usage::Servers;
use super::{AFTER_START, Bench, SPAN};

const SUBMIT: &str = r#"{"task": "demo.add", "args": [2, 3], "queue": "bench"}"#;

pub async fn measure(bench: &mut Bench) {
    bench.table.heading("dev: SQLite and a Redis of its own, in one process");
    for connections in [32, 128] {
        let port = ports::free();
        let listen = format!("127.0.0.1:{port}");
        let settings = [
            ("TASKGATE_HTTP__LISTEN", listen.as_str()),
            ("TASKGATE_LOG__FILTER", "warn"),
            ("TASKGATE_HTTP__ACCESS_LOG", "false"),
        ];
        let mut gateway = Gateway::start(&["dev"], port, None, &settings);
        gateway.wait_until_ready();
        tokio::time::sleep(AFTER_START).await;
        let load = Load::post(&Target::of(&gateway.http().base), "/v1/tasks", SUBMIT, connections);
        let rate = load::run(&load, SPAN, &Servers::of(&[gateway.id()])).await;
        bench.table.row(&format!("dev: committed, then published, {connections} connections"), &rate, &[]);
    }
}
