-- Schedules. A row moves forward only in the transaction that submits its tick, so a tick fires once with any number of replicas.

create table schedule (
    schedule_id   text primary key,
    name          text not null,
    -- Grows with every edit; firing does not count.
    version       integer not null,
    paused        boolean not null,
    created_at    integer not null,
    updated_at    integer not null,
    -- Intervals count from here.
    anchor_at     integer not null,
    -- The next tick, and when it fires (the tick and its jitter). Null while paused and after the last one.
    next_run_at   integer,
    due_at        integer,
    last_tick_at  integer,
    last_run_at   integer,
    -- Numbers of the tasks of the last firing.
    last_first_no integer,
    last_last_no  integer,
    last_task_id  text,
    document      text not null,
    constraint schedule_due_iff_next check ((due_at is null) = (next_run_at is null)),
    constraint schedule_paused_has_no_next check (not paused or next_run_at is null),
    constraint schedule_only_moves_forward check (next_run_at > last_tick_at)
);
create unique index schedule_name_key on schedule (name);
create index schedule_due on schedule (due_at) where due_at is not null;

-- What became of each tick.
create table schedule_run (
    run_no       integer primary key autoincrement,
    schedule_id  text not null,
    scheduled_at integer not null,
    fired_at     integer not null,
    outcome      text not null check (outcome in ('fired', 'skipped', 'missed', 'failed')),
    task_id      text,
    reason       text
);
create index schedule_run_of on schedule_run (schedule_id, run_no);

-- Names that the configuration brought once; they are not brought again, also after a deletion.
create table schedule_seed (
    name      text primary key,
    seeded_at integer not null
);
