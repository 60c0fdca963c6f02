//! Starts the peer of `benches/peer/`: uvicorn with two workers.

use std::process::Command;
use std::time::Duration;

use super::harness::process::Process;
use super::harness::{Redis, celery, gateway, ports, postgres::Cluster, wait};

pub struct Peer {
    pub base: String,
    _process: Process,
}

impl Peer {
    /// `None`, with a word about it, where its Python environment is missing.
    pub fn start(redis: &Redis, cluster: &Cluster, durable: bool) -> Option<Self> {
        let python = celery::root().join(".venv/bench/bin/python");
        if !python.exists() {
            eprintln!("no peer: {} is missing, `make bench` makes it", python.display());
            return None;
        }
        let port = ports::free();
        let mut command = Command::new(python);
        command.args(["-m", "uvicorn", "app:app", "--workers", "2", "--no-access-log", "--log-level", "warning"]);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.current_dir(celery::root().join("benches/peer"));
        command.env("CELERY_BROKER_URL", redis.url(0)).env("CELERY_RESULT_BACKEND", redis.url(1));
        command.env("DATABASE_URL", cluster.empty_database()).env("DURABLE", if durable { "1" } else { "0" });
        let process = Process::start("peer", command);
        wait::blocking(Duration::from_secs(30), "the peer answers", || {
            gateway::probe(port, "/docs").filter(|status| *status == 200)
        });
        Some(Self { base: format!("http://127.0.0.1:{port}"), _process: process })
    }
}
