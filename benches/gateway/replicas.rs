//! How much faster several gateways in front of one PostgreSQL and one Redis are, and the processor time of each of the three for a thousand
//! submissions, from which the rate on more cores can be computed.

use std::time::Duration;

use futures_util::future::join_all;

use super::harness::{Gateway, postgres};
use super::load::{self, Load, Rate, Target};
use super::usage::Servers;
use super::{Bench, SETTINGS, SPAN};

const SUBMIT: &str = r#"{"task": "demo.add", "args": [2, 3], "queue": "bench"}"#;
/// Connections to all gateways together.
const CONNECTIONS: usize = 256;

pub async fn measure(bench: &mut Bench) {
    bench.table.heading(&format!(
        "Submit through several gateways, {CONNECTIONS} connections in all, one PostgreSQL, one Redis"
    ));
    for count in [1, 2, 4] {
        bench.renew();
        let more: Vec<Gateway> = (1..count).map(|_| another(bench)).collect();
        let gateways: Vec<&Gateway> = std::iter::once(&bench.gateway).chain(&more).collect();
        let pids: Vec<i32> = gateways.iter().map(|gateway| gateway.id()).collect();
        let (database, redis) = (Servers::of(&[bench.cluster.id()]), Servers::of(&[bench.redis.id()]));
        let before = (database.cpu_seconds(), redis.cpu_seconds());
        let rate = together(&gateways, &Servers::of(&pids)).await;
        let answered = rate.per_second * (SPAN + SPAN / 5).as_secs_f64() / 1_000.0;
        let taken = (database.cpu_seconds() - before.0, redis.cpu_seconds() - before.1);
        bench.table.row(&format!("taskgate: {count} gateways"), &rate, &[]);
        bench.table.note(format!(
            "    for 1,000: gateways {:.3} CPU-s, PostgreSQL {:.3} CPU-s, Redis {:.3} CPU-s",
            rate.cpu_seconds_per_thousand,
            taken.0 / answered,
            taken.1 / answered
        ));
    }
    let size = "select (select sum(pg_total_relation_size(relid)) from pg_partition_tree('taskgate.task')) / greatest(count(*), 1) \
                from taskgate.task";
    bench.table.note(format!("a task's row with its indexes: {} bytes", postgres::query(&bench.database, size)));
}

fn another(bench: &Bench) -> Gateway {
    Gateway::serve(&bench.database, &bench.redis.url(0), &bench.redis.url(1), SETTINGS)
}

/// Spreads the load over all gateways, as a load balancer would. Percentiles are the worst of the gateways'.
async fn together(gateways: &[&Gateway], servers: &Servers) -> Rate {
    let one = |gateway: &&Gateway| {
        Load::post(&Target::of(&gateway.http().base), "/v1/tasks", SUBMIT, CONNECTIONS / gateways.len())
    };
    let loads: Vec<Load> = gateways.iter().map(one).collect();
    let before = servers.cpu_seconds();
    let rates = join_all(loads.iter().map(|load| load::run(load, SPAN, servers))).await;
    let per_second: f64 = rates.iter().map(|rate| rate.per_second).sum();
    let worst = |of: fn(&Rate) -> Duration| rates.iter().map(of).max().unwrap_or_default();
    Rate {
        per_second,
        p50: worst(|rate| rate.p50),
        p99: worst(|rate| rate.p99),
        answers: rates.iter().map(|rate| rate.answers).sum(),
        refused: rates.iter().map(|rate| rate.refused).sum(),
        cpu_seconds_per_thousand: (servers.cpu_seconds() - before) * 1_000.0
            / (per_second * (SPAN + SPAN / 5).as_secs_f64()).max(1.0),
        resident_mib: servers.resident_mib(),
    }
}
