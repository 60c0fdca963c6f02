//! The faults of a run, and how each is repaired.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::world::{Down, World};
use super::{Broker, Plan};
use crate::harness::rabbit::Rabbit;
use crate::harness::unix;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    KillGateway(usize),
    StopGateway(usize),
    KillCelery(usize),
    StopCelery(usize),
    KillRust,
    EmptyRedis,
    /// It restarts empty.
    KillRedis,
    StopRedis,
    FillRedis,
    StopPostgres,
    /// SIGKILL; it comes back with its data.
    KillRabbit,
    StopRabbit,
    /// All connections, those of workers too.
    CutConnections,
    /// Its memory alarm.
    FillRabbit,
}

/// How many kinds of faults a run has.
const KINDS: u8 = 10;

impl Fault {
    /// One of each kind, in an order of the seed.
    pub fn each(rng: &mut StdRng, plan: Plan) -> Vec<Self> {
        let mut all: Vec<Self> = (0..KINDS).map(|kind| Self::of(kind, rng, plan)).collect();
        all.shuffle(rng);
        all
    }

    /// One fault, or two of different peers.
    pub fn choose(rng: &mut StdRng, plan: Plan) -> Vec<Self> {
        let [first, second] = std::array::from_fn(|_| Self::of(rng.random_range(0..KINDS), rng, plan));
        if rng.random_bool(0.3) && first.peer() != second.peer() { vec![first, second] } else { vec![first] }
    }

    fn of(kind: u8, rng: &mut StdRng, plan: Plan) -> Self {
        let gateway = rng.random_range(0..plan.gateways);
        let worker = rng.random_range(0..plan.workers);
        match kind {
            0 => Self::KillGateway(gateway),
            1 => Self::StopGateway(gateway),
            2 => Self::KillCelery(worker),
            3 => Self::StopCelery(worker),
            4 => Self::KillRust,
            5 if plan.broker == Broker::RabbitMq => Self::KillRabbit,
            6 if plan.broker == Broker::RabbitMq => Self::StopRabbit,
            7 if plan.broker == Broker::RabbitMq => Self::CutConnections,
            8 if plan.broker == Broker::RabbitMq => Self::FillRabbit,
            5 => Self::EmptyRedis,
            6 => Self::KillRedis,
            7 => Self::StopRedis,
            8 => Self::FillRedis,
            _ => Self::StopPostgres,
        }
    }

    fn peer(self) -> (u8, usize) {
        match self {
            Self::KillGateway(index) | Self::StopGateway(index) => (0, index),
            Self::KillCelery(index) | Self::StopCelery(index) => (1, index),
            Self::KillRust => (2, 0),
            Self::EmptyRedis | Self::KillRedis | Self::StopRedis | Self::FillRedis => (3, 0),
            Self::StopPostgres => (4, 0),
            Self::KillRabbit | Self::StopRabbit | Self::CutConnections | Self::FillRabbit => (5, 0),
        }
    }

    pub fn begin(self, world: &mut World) {
        let World { gateways, celery, rust, redis, rabbit, cluster, down, .. } = world;
        match self {
            Self::KillGateway(index) => {
                gateways[index].kill();
                down.gateways.push(index);
            }
            Self::StopGateway(index) => {
                unix::kill(gateways[index].id(), libc::SIGSTOP);
                down.stopped_gateways.push(index);
            }
            Self::KillCelery(index) => {
                celery[index].kill();
                down.celery.push(index);
            }
            Self::StopCelery(index) => {
                celery[index].pause();
                down.stopped_celery.push(index);
            }
            Self::KillRust => {
                rust.kill();
                down.rust = true;
            }
            Self::EmptyRedis => {
                redis.command::<String>(0, &["FLUSHALL"]);
            }
            Self::KillRedis => {
                redis.kill();
                down.redis = true;
            }
            Self::StopRedis => {
                redis.pause();
                down.stopped_redis = true;
            }
            Self::FillRedis => {
                redis.command::<String>(0, &["CONFIG", "SET", "maxmemory", "1"]);
                down.full_redis = true;
            }
            Self::StopPostgres => {
                cluster.stop();
                down.postgres = true;
            }
            Self::KillRabbit => {
                of(rabbit).node_mut().kill();
                down.rabbit = true;
            }
            Self::StopRabbit => {
                of(rabbit).node().pause();
                down.stopped_rabbit = true;
            }
            Self::CutConnections => of(rabbit).cut_connections(""),
            Self::FillRabbit => {
                of(rabbit).node().control(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
                down.full_rabbit = true;
            }
        }
    }
}

fn of(rabbit: &mut Option<Rabbit>) -> &mut Rabbit {
    rabbit.as_mut().expect("the plan names RabbitMQ")
}

/// Restarts everything, in the order of dependencies.
pub fn heal(world: &mut World) {
    let down = std::mem::take(&mut world.down);
    let Down {
        gateways,
        stopped_gateways,
        celery,
        stopped_celery,
        rust,
        redis,
        stopped_redis,
        full_redis,
        rabbit,
        stopped_rabbit,
        full_rabbit,
        postgres,
    } = down;
    if postgres {
        world.cluster.restart();
    }
    if redis {
        world.redis.restart();
    }
    if stopped_redis {
        world.redis.resume();
    }
    if full_redis {
        world.redis.command::<String>(0, &["CONFIG", "SET", "maxmemory", "0"]);
    }
    if rabbit {
        of(&mut world.rabbit).node_mut().restart();
    }
    if stopped_rabbit {
        of(&mut world.rabbit).node().resume();
    }
    if full_rabbit {
        of(&mut world.rabbit).node().control(&["set_vm_memory_high_watermark", "0.4"]);
    }
    for index in stopped_gateways {
        unix::kill(world.gateways[index].id(), libc::SIGCONT);
    }
    for index in gateways {
        world.gateways[index].restart();
    }
    for index in stopped_celery {
        world.celery[index].resume();
    }
    for index in celery {
        world.celery[index].relaunch();
    }
    if rust {
        world.restart_rust();
    }
    world.supervise();
}
