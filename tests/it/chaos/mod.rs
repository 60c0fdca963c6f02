//! Everything at once: several gateways, Celery and Rust workers under load, while gateways, workers, Redis and PostgreSQL are
//! killed, stopped, emptied and filled up by a seeded plan, and while some tasks end without a word, replace themselves, or kill their
//! workers; then an audit, by what the workers themselves wrote down. With RabbitMQ as the broker its node is killed, stopped, cut off and
//! short of memory instead of Redis, which then has the results only.
//!
//! `cargo run --example chaos -- --minutes 10` is the long form; a short one runs with the tests.

mod audit;
mod fault;
mod load;
mod reasons;
mod world;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use audit::Figures;
use fault::Fault;
use load::Load;
use world::World;

/// The settings of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub span: Duration,
    pub gateways: usize,
    /// Celery workers; there is one Rust worker besides.
    pub workers: usize,
    /// Number of clients that submit.
    pub clients: usize,
    pub broker: Broker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    Redis,
    RabbitMq,
}

/// Runs the load and the faults, each kind once and then any of them until the span is over, then the audit.
///
/// It always ends: the load waits while the workers are far behind, and the audit waits for a bounded time, after which it says what is
/// left.
///
/// # Panics
/// When a promise is broken; names the promise and the tasks.
pub async fn run(plan: Plan) -> Figures {
    let mut world = tokio::task::block_in_place(|| World::build(plan));
    world.wait_until_known().await;
    let load = Load::start(plan, &world);
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let began = Instant::now();
    let mut faults = 0;
    let mut first = Fault::each(&mut rng, plan).into_iter();
    loop {
        let chosen = match first.next() {
            Some(fault) => vec![fault],
            None if began.elapsed() < plan.span => Fault::choose(&mut rng, plan),
            None => break,
        };
        for chosen in chosen {
            eprintln!("{:6.1} s  {chosen:?}", began.elapsed().as_secs_f64());
            tokio::task::block_in_place(|| chosen.begin(&mut world));
            faults += 1;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..2_500))).await;
        tokio::task::block_in_place(|| fault::heal(&mut world));
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..2_500))).await;
    }
    let submitted = load.stop().await;
    eprintln!("{:6.1} s  the load is over, everything is healed", began.elapsed().as_secs_f64());
    audit::audit(&mut world, submitted, faults).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_nothing_is_lost_and_nothing_runs_twice_unseen() {
    let plan =
        Plan { seed: 20, span: Duration::from_secs(18), gateways: 2, workers: 1, clients: 2, broker: Broker::Redis };
    println!("{}", run(plan).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_beside_or_in_rabbitmq_nothing_is_lost() {
    let plan =
        Plan { seed: 20, span: Duration::from_secs(18), gateways: 2, workers: 1, clients: 2, broker: Broker::RabbitMq };
    println!("{}", run(plan).await);
}
