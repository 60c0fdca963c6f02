//! Starts the peers: the application of `benches/peer/` under uvicorn with two processes, and Flower with its API.

use std::process::Command;
use std::time::Duration;

use super::harness::process::Process;
use super::harness::{Redis, celery, gateway, ports, postgres::Cluster, wait};
use super::usage::Servers;

pub struct Peer {
    pub base: String,
    process: Process,
}

impl Peer {
    /// The FastAPI peer. No worker runs the tasks that are submitted to it.
    pub fn fastapi(redis: &Redis, cluster: &Cluster, durable: bool) -> Option<Self> {
        Self::fastapi_to("bench", redis, cluster, durable)
    }

    pub fn fastapi_to(queue: &str, redis: &Redis, cluster: &Cluster, durable: bool) -> Option<Self> {
        let port = ports::free();
        let mut command = python(redis)?;
        serve(&mut command, port, cluster, durable, queue);
        Some(Self::start(port, "/docs", command))
    }

    /// The FastAPI peer with RabbitMQ as the broker and `rpc://` as the result backend.
    pub fn fastapi_on_rabbitmq(url: &str, cluster: &Cluster, durable: bool) -> Option<Self> {
        let port = ports::free();
        let mut command = python_at(url, "rpc://")?;
        serve(&mut command, port, cluster, durable, "bench");
        Some(Self::start(port, "/docs", command))
    }

    pub fn flower(redis: &Redis) -> Option<Self> {
        let port = ports::free();
        let mut command = python(redis)?;
        command.args(["-m", "celery", "-A", "app:celery", "flower", "--address=127.0.0.1", "--logging=error"]);
        command.arg(format!("--port={port}")).env("FLOWER_UNAUTHENTICATED_API", "true");
        // The peer's application uses its database only if it is durable.
        command.env("DURABLE", "0");
        Some(Self::start(port, "/healthcheck", command))
    }

    fn start(port: u16, probe: &str, command: Command) -> Self {
        let process = Process::start("peer", command);
        wait::blocking(Duration::from_secs(30), "the peer answers", || {
            gateway::probe(port, probe).filter(|status| *status == 200)
        });
        Self { base: format!("http://127.0.0.1:{port}"), process }
    }

    pub fn servers(&self) -> Servers {
        Servers::of(&[self.process.id()])
    }
}

fn serve(command: &mut Command, port: u16, cluster: &Cluster, durable: bool, queue: &str) {
    command.args(["-m", "uvicorn", "app:app", "--workers", "2", "--no-access-log", "--log-level", "warning"]);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.env("DATABASE_URL", cluster.empty_database()).env("DURABLE", if durable { "1" } else { "0" });
    command.env("QUEUE", queue);
}

fn python(redis: &Redis) -> Option<Command> {
    python_at(&redis.url(0), &redis.url(1))
}

/// `None` if the Python environment is missing, and a message on standard error.
fn python_at(broker: &str, backend: &str) -> Option<Command> {
    let python = celery::root().join(".venv/bench/bin/python");
    if !python.exists() {
        eprintln!("no peer: {} is missing; `make bench` creates it", python.display());
        return None;
    }
    let mut command = Command::new(python);
    command.current_dir(celery::root().join("benches/peer"));
    command.env("CELERY_BROKER_URL", broker).env("CELERY_RESULT_BACKEND", backend);
    Some(command)
}
