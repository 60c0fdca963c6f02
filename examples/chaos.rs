//! Breaks processes and connections for a while, then audits every task: `cargo run --example chaos -- --minutes 10 [--seed 7] [--rabbitmq]`.
//!
//! Needs what the tests need (`make setup`): redis-server, PostgreSQL, Celery. The last line has the figures; it ends with an error
//! if a promise was broken.

#![expect(clippy::disallowed_methods, reason = "a testing program with its own runtime, clock and threads")]

#[path = "../tests/it/chaos/mod.rs"]
mod chaos;
#[path = "../tests/it/harness/mod.rs"]
mod harness;

use std::process::Command;
use std::time::Duration;

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// How long faults are injected; the audit follows.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// The same seed gives the same plan of faults.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    #[arg(long, default_value_t = 3)]
    gateways: usize,
    /// Celery workers: the newest version, the older one, and the newest with gevent by turns.
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Clients that submit.
    #[arg(long, default_value_t = 6)]
    clients: usize,
    /// Uses RabbitMQ as the broker, which is broken instead of Redis.
    #[arg(long)]
    rabbitmq: bool,
    /// Uses the programs beside this one as they are: a copy of `target/debug` is not changed by later builds.
    #[arg(long)]
    no_build: bool,
}

fn main() {
    let said = Arguments::parse();
    if !said.no_build {
        build();
    }
    let plan = chaos::Plan {
        seed: said.seed,
        span: Duration::from_secs_f64(said.minutes * 60.0),
        gateways: said.gateways.max(1),
        workers: said.workers.max(1),
        clients: said.clients.max(1),
        broker: if said.rabbitmq { chaos::Broker::RabbitMq } else { chaos::Broker::Redis },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    println!("{}", runtime.block_on(chaos::run(plan)));
}

/// Builds the programs that the run starts, because cargo builds only the example itself.
fn build() {
    let release = if cfg!(debug_assertions) { None } else { Some("--release") };
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--locked", "--bin", "taskgate", "--example", "demo-worker"]).args(release);
    let done = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo starts");
    assert!(done.success(), "taskgate and demo-worker can be built");
}
