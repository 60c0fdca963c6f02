//! A history of finished tasks, written by PostgreSQL itself: one a second, the last one now, in 20 names and 5 queues, a fifth
//! labelled, a fiftieth failed.

use super::harness::postgres;

/// Tasks in one statement.
const CHUNK: u64 = 250_000;

/// Fills from `from` tasks to `to`. Older tasks are not moved when the history grows: time goes on from there.
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
    postgres::query(database, "select setval('taskgate.task_no', (select max(task_no) from taskgate.task))");
}

/// Seconds since 1970 of the first task: long enough ago for ten million seconds.
const BEGIN: u64 = 1_780_000_000;

/// When the task with this number was submitted, as a filter takes it.
pub fn time(n: u64) -> String {
    jiff::Timestamp::from_second(i64::try_from(BEGIN + n).expect("a time")).expect("a time").to_string()
}

/// How old the task with this number is.
pub fn age_seconds(n: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    now - (BEGIN + n)
}

/// The feed's position before the events of the task with this number: below all that the gateway gives itself.
pub fn feed(n: u64) -> u64 {
    n * 5
}

/// A UUIDv7 of the task's time; the same in SQL below.
pub fn id(n: u64) -> String {
    let millis = (BEGIN + n) * 1_000;
    format!("{:08x}-{:04x}-7000-8000-{n:012x}", millis >> 16, millis & 0xffff)
}

pub fn name(n: u64) -> String {
    format!("tasks.kind_{}", n % 20)
}

fn functions() -> String {
    format!(
        "create or replace function pg_temp_id(n bigint) returns text language sql immutable as $$ \
         select lpad(to_hex((({BEGIN} + n) * 1000) >> 16), 8, '0') || '-' || lpad(to_hex((({BEGIN} + n) * 1000) & 65535), 4, '0') \
         || '-7000-8000-' || lpad(to_hex(n), 12, '0') $$; \
         create or replace function pg_temp_at(n bigint) returns bigint language sql immutable as $$ select ({BEGIN} + n) * 1000000 $$"
    )
}

const STATEMENTS: [&str; 5] = [
    "insert into taskgate.task (task_no, submitted_at, queued_at, received_at, started_at, finished_at, seq, runtime, delivery,
        retries, priority, ignore_result, adopted, corrected, task_id, phase, status, name, queue, worker, labels, result,
        failure_type, failure_message, traceback)
     select n + 1, pg_temp_at(n), pg_temp_at(n) + 2000, pg_temp_at(n) + 4000, pg_temp_at(n) + 5000, pg_temp_at(n) + 90000, 5, 0.085, 1,
        0, 0, false, false, false, pg_temp_id(n),
        case when n % 50 = 0 then 'failed' else 'succeeded' end, case when n % 50 = 0 then 'FAILURE' else 'SUCCESS' end,
        'tasks.kind_' || n % 20, 'queue_' || n % 5, 'celery@worker-' || n % 8,
        case when n % 5 = 0 then '{\"customer\": \"' || n / 5 % 1000 || '\"}' end,
        case when n % 50 <> 0 then '{\"total_items\": ' || n % 97 || ', \"saved_items\": ' || n % 13 || '}' end,
        case when n % 50 = 0 then 'ConnectionError' end,
        case when n % 50 = 0 then 'host ' || n / 50 % 100 || ' is away' end,
        case when n % 50 = 0 then repeat('  File \"/app/tasks.py\", line 42, in crawl' || chr(10), 8) end
     from generate_series($first::bigint, $last::bigint) n",
    "insert into taskgate.message (task_no, headers, body)
     select n + 1, '{\"lang\": \"py\", \"task\": \"tasks.kind_' || n % 20 || '\", \"id\": \"' || pg_temp_id(n) || '\", \"root_id\": \"'
        || pg_temp_id(n) || '\", \"retries\": 0, \"timelimit\": [null, null], \"argsrepr\": \"(1, 2)\", \"kwargsrepr\": \"{}\",'
        || ' \"origin\": \"taskgate@gateway\", \"ignore_result\": false, \"shadow\": null, \"eta\": null, \"expires\": null}',
        '[[1, ' || n || '], {}, {\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}]'
     from generate_series($first::bigint, $last::bigint) n",
    "insert into taskgate.event (task_no, seq, feed, at, delivery, retries, corrected, phase, status, worker)
     select n + 1, s, n * 5 + s, pg_temp_at(n) + s * 1000, 1, 0, false,
        case when s < 5 then (array['accepted', 'queued', 'received', 'running'])[s]
             when n % 50 = 0 then 'failed' else 'succeeded' end,
        case when s < 5 then (array['PENDING', 'PENDING', 'RECEIVED', 'STARTED'])[s]
             when n % 50 = 0 then 'FAILURE' else 'SUCCESS' end,
        case when s > 2 then 'celery@worker-' || n % 8 end
     from generate_series($first::bigint, $last::bigint) n, generate_series(1, 5) s",
    "insert into taskgate.label (key, value, task_no)
     select 'customer', (n / 5 % 1000)::text, n + 1 from generate_series($first::bigint, $last::bigint) n where n % 5 = 0",
    "insert into taskgate.trouble (task_no, phase, dead)
     select n + 1, 'failed', true from generate_series($first::bigint, $last::bigint) n where n % 50 = 0",
];
