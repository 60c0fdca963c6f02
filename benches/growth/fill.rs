//! Writes a history of finished tasks, with SQL inside PostgreSQL: one task per second, with 20 names and 5 queues, a fifth of them labelled,
//! a fiftieth failed. Each task's history is derived from its columns, as that of ordinary tasks.

use super::harness::postgres;

/// Tasks in one statement.
const CHUNK: u64 = 250_000;

/// Fills the ledger from `from` tasks to `to`. Older tasks stay when the history grows; new ones follow in time.
pub fn up_to(database: &str, from: u64, to: u64) {
    postgres::query(database, &functions());
    let mut first = from;
    while first < to {
        let last = (first + CHUNK).min(to);
        for statement in STATEMENTS {
            let sql = statement.replace("$first", &first.to_string()).replace("$last", &(last - 1).to_string());
            postgres::query(database, &sql);
        }
        first = last;
    }
    postgres::query(database, "analyze");
}

/// The time of the first task in seconds since 1970: long enough ago for ten million seconds.
const BEGIN: u64 = 1_780_000_000;

/// When the task with this number was submitted, in the form of a filter.
pub fn time(n: u64) -> String {
    jiff::Timestamp::from_second(i64::try_from(BEGIN + n).expect("a time")).expect("a time").to_string()
}

/// The feed position before the events of the task with this number: below all positions that the gateway assigns.
pub fn feed(n: u64) -> u64 {
    n * 5
}

/// A UUIDv7 with the task's time; the SQL below computes the same.
pub fn id(n: u64) -> String {
    let millis = (BEGIN + n) * 1_000;
    format!("{:08x}-{:04x}-7000-8000-{n:012x}", millis >> 16, millis & 0xffff)
}

pub fn name(n: u64) -> String {
    format!("tasks.kind_{}", n % 20)
}

fn functions() -> String {
    format!(
        "create or replace function pg_temp_id(n bigint) returns uuid language sql immutable as $$ \
         select (lpad(to_hex((({BEGIN} + n) * 1000) >> 16), 8, '0') || '-' || lpad(to_hex((({BEGIN} + n) * 1000) & 65535), 4, '0') \
         || '-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid $$; \
         create or replace function pg_temp_at(n bigint) returns bigint language sql immutable as $$ select ({BEGIN} + n) * 1000000 $$; \
         create or replace function pg_temp_no(n bigint) returns bigint language sql immutable as $$ \
         select ((({BEGIN} + n) / 86400) << 32) + n + 1 $$; \
         create or replace function pg_temp_event(n bigint, s integer) returns bytea language sql immutable as $$ \
         select int4send(s) || int2send(1::int2) || int2send(0::int2) \
         || set_byte('\\x00', 0, case when s < 5 then (array[0, 3, 4, 5])[s] when n % 50 = 0 then 8 else 7 end) \
         || set_byte('\\x00', 0, case when s > 2 then 4 else 0 end) || int8send(pg_temp_at(n) + s * 1000) \
         || case when s > 2 then '\\x0f'::bytea || convert_to('celery@worker-' || n % 8, 'UTF8') else '' end $$; \
         insert into taskgate.kind (name, queue) select 'tasks.kind_' || k, 'queue_' || k % 5 from generate_series(0, 19) k on conflict do nothing; \
         select taskgate.make_partitions(month::date - date '1970-01-01', (month + interval '1 month')::date - date '1970-01-01', \
         to_char(month, 'YYYYMM')) from generate_series(date_trunc('month', to_timestamp({BEGIN}) at time zone 'UTC'), \
         now() at time zone 'UTC', interval '1 month') month"
    )
}

const STATEMENTS: [&str; 4] = [
    "insert into taskgate.task (task_no, submitted_at, id, kind_no, priority, ignore_result, adopted, labels, headers, body)
     select pg_temp_no(n), pg_temp_at(n), pg_temp_id(n), k.kind_no, 0, false, false,
        case when n % 5 = 0 then '{\"customer\": \"' || n / 5 % 1000 || '\"}' end,
        chr(7) || chr(2) || '\", \"id\": \"' || chr(1) || chr(3) || chr(1) || chr(5) || '(1, 2)' || chr(8) || '{}' || chr(11)
            || 'taskgate@gateway' || chr(6) || chr(4),
        '[[1, ' || n || '], {}, {\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}]'
     from generate_series($first::bigint, $last::bigint) n join taskgate.kind k
        on k.name = 'tasks.kind_' || n % 20 and k.queue = 'queue_' || n % 5",
    "insert into taskgate.ended (task_no, queued_at, received_at, started_at, finished_at, runtime, seq, delivery, retries, corrected, dead,
        phase, worker, result, failure_type, failure_message, traceback)
     select pg_temp_no(n), pg_temp_at(n) + 2000, pg_temp_at(n) + 4000, pg_temp_at(n) + 5000, pg_temp_at(n) + 90000, 0.085, 5, 1, 0,
        false, n % 50 = 0, case when n % 50 = 0 then 'failed' else 'succeeded' end, 'celery@worker-' || n % 8,
        case when n % 50 <> 0 then '{\"total_items\": ' || n % 97 || ', \"saved_items\": ' || n % 13 || '}' end,
        case when n % 50 = 0 then 'ConnectionError' end,
        case when n % 50 = 0 then 'host ' || n / 50 % 100 || ' is away' end,
        case when n % 50 = 0 then repeat('  File \"/app/tasks.py\", line 42, in crawl' || chr(10), 8) end
     from generate_series($first::bigint, $last::bigint) n",
    "insert into taskgate.feed (pos, at, events)
     select n * 5 + 1, pg_temp_at(n) + 90000, string_agg(int8send(pg_temp_no(n)) || pg_temp_event(n, s), '' order by s)
     from generate_series($first::bigint, $last::bigint) n, generate_series(1, 5) s group by n",
    "insert into taskgate.label (key, value, task_no)
     select 'customer', (n / 5 % 1000)::text, pg_temp_no(n) from generate_series($first::bigint, $last::bigint) n where n % 5 = 0",
];
