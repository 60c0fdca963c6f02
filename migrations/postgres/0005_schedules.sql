-- Schedules. A row moves forward only in the transaction that submits its tick, so a tick fires once with any number of replicas.

create table taskgate.schedule (
    schedule_id   text collate "C" primary key,
    name          text collate "C" not null,
    -- Grows with every edit; firing does not count.
    version       bigint not null,
    paused        boolean not null,
    created_at    bigint not null,
    updated_at    bigint not null,
    -- Intervals count from here.
    anchor_at     bigint not null,
    -- The next tick, and when it fires (the tick and its jitter). Null while paused and after the last one.
    next_run_at   bigint,
    due_at        bigint,
    last_tick_at  bigint,
    last_run_at   bigint,
    -- Numbers of the tasks of the last firing.
    last_first_no bigint,
    last_last_no  bigint,
    last_task_id  text collate "C",
    document      text not null,
    constraint schedule_due_iff_next check ((due_at is null) = (next_run_at is null)),
    constraint schedule_paused_has_no_next check (not paused or next_run_at is null),
    constraint schedule_only_moves_forward check (next_run_at > last_tick_at)
);
create unique index schedule_name_key on taskgate.schedule (name);
create index schedule_due on taskgate.schedule (due_at) where due_at is not null;

-- What became of each tick.
create table taskgate.schedule_run (
    run_no       bigint generated always as identity primary key,
    schedule_id  text collate "C" not null,
    scheduled_at bigint not null,
    fired_at     bigint not null,
    outcome      text collate "C" not null check (outcome in ('fired', 'skipped', 'missed', 'failed')),
    task_id      text collate "C",
    reason       text
);
create index schedule_run_of on taskgate.schedule_run (schedule_id, run_no);

-- Names that the configuration brought once; they are not brought again, also after a deletion.
create table taskgate.schedule_seed (
    name      text collate "C" primary key,
    seeded_at bigint not null
);
