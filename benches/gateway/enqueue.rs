//! How long it takes from the commit of a call of `taskgate.enqueue` until the task is in Redis, on an idle system.

use std::time::Duration;

use super::harness::{Gateway, postgres, wait};
use super::{Bench, SETTINGS};

const CALLS: usize = 200;
/// Calls, each in its own transaction. The clock is read before the commit, so the commit's time is included.
const ORDER: &str = "do $$ begin for n in 1..200 loop \
    insert into public.orders select taskgate.enqueue('demo.add', '[1, 2]', options => '{\"queue\": \"bench\"}'), \
    (extract(epoch from clock_timestamp()) * 1000000)::bigint; commit; perform pg_sleep(0.02); end loop; end $$";
const LATE: &str = "select f.queued_at - o.at as late from public.orders o join taskgate.task t on t.id = o.task_id::uuid \
    join taskgate.flight f on f.task_no = t.task_no where f.queued_at is not null";

pub async fn measure(bench: &mut Bench) {
    bench.renew();
    bench.table.heading("a call of taskgate.enqueue, on an idle system");
    bench.gateway = Gateway::serve(&bench.database, &bench.redis.url(0), &bench.redis.url(1), SETTINGS);
    postgres::query(&bench.database, "create table public.orders (task_id text, at bigint)");
    postgres::query(&bench.database, ORDER);
    let question = format!(
        "select count(late), coalesce(percentile_disc(0.5) within group (order by late), 0), \
         coalesce(percentile_disc(0.99) within group (order by late), 0) from ({LATE}) l"
    );
    let told = wait::within(Duration::from_secs(60), "all are in Redis", async || {
        let told = postgres::query(&bench.database, &question);
        told.starts_with(&format!("{CALLS}|")).then_some(told)
    })
    .await;
    let millis: Vec<f64> =
        told.split('|').skip(1).map(|text| text.parse::<f64>().expect("a number") / 1_000.0).collect();
    bench.table.note(format!("commit to queued: {CALLS} calls, p50 {:.1} ms, p99 {:.1} ms", millis[0], millis[1]));
}
