-- The ledger on SQLite: the tables of the PostgreSQL ledger, without a schema of their own. One process writes, so the feed is
-- a plain sequence. Times are integers (microseconds since 1970, UTC): SQLite's texts of times do not sort.

create table task (
    task_no             integer primary key autoincrement,
    submitted_at        integer not null,
    queued_at           integer,
    received_at         integer,
    started_at          integer,
    finished_at         integer,
    due_at              integer,
    expires_at          integer,
    revoke_requested_at integer,
    seq                 integer not null,
    runtime             real,
    delivery            integer not null,
    retries             integer not null,
    group_index         integer,
    priority            smallint not null,
    ignore_result       boolean not null,
    adopted             boolean not null,
    corrected           boolean not null,
    task_id             text not null,
    phase               text not null,
    status              text not null,
    name                text,
    queue               text,
    worker              text,
    -- Null when it is the task's own id.
    root_id             text,
    parent_id           text,
    group_id            text,
    retry_of            text,
    retried_as          text,
    schedule            text,
    reason              text,
    labels              text,
    options             text,
    failure_type        text,
    failure_message     text,
    traceback           text,
    result              text,
    progress            text,
    children            text,
    argsrepr            text,
    kwargsrepr          text,
    constraint task_phase_known check (phase in ('accepted', 'held', 'waiting', 'queued', 'received', 'running', 'retrying',
        'succeeded', 'failed', 'revoked', 'expired', 'skipped', 'lost')),
    constraint task_final_iff_finished check ((finished_at is not null) =
        (phase in ('succeeded', 'failed', 'revoked', 'expired', 'skipped', 'lost'))),
    constraint task_seq_positive check (seq > 0),
    constraint task_delivery_positive check (delivery > 0),
    constraint task_priority_is_a_digit check (priority between 0 and 9)
);

create unique index task_task_id_key on task (task_id);
create index task_name on task (name, task_no);
create index task_queue on task (queue, task_no);
create index task_root on task (root_id, task_no) where root_id is not null;
create index task_group_member on task (group_id, task_no) where group_id is not null;
create index task_schedule on task (schedule, task_no) where schedule is not null;

-- Tasks that are not final; `at_worker` once a worker was heard to have them.
create table unfinished (
    task_no   integer primary key,
    at_worker boolean not null default 0
);
create index unfinished_at_worker on unfinished (task_no) where at_worker;

-- Tasks that ended, but not well. `dead` until they are deleted or re-queued as dead letters.
create table trouble (
    task_no integer primary key,
    phase   text not null,
    dead    boolean not null
);
create index trouble_phase on trouble (phase, task_no);
create index trouble_dead on trouble (task_no) where dead;

create table message (
    task_no integer primary key,
    headers text,
    body    text not null
);

-- What is still to be published. `wake_at` is when a pass must look at it: its time, or the end of its time.
create table outbox (
    task_no     integer primary key,
    wake_at     integer not null,
    accepted_at integer not null,
    queue       text not null,
    -- Waits for its queue to be resumed.
    parked      boolean not null default 0
);
create index outbox_wake on outbox (wake_at, task_no);
create index outbox_parked on outbox (queue, task_no) where parked;

-- Every change of every task. `feed` orders all of them.
create table event (
    feed      integer primary key autoincrement,
    task_no   integer not null,
    seq       integer not null,
    at        integer not null,
    delivery  integer not null,
    retries   integer not null,
    corrected boolean not null,
    phase     text not null,
    status    text not null,
    worker    text,
    reason    text,
    meta      text,
    constraint event_once unique (task_no, seq),
    constraint event_seq_positive check (seq > 0)
);

create table label (
    key     text not null,
    value   text not null,
    task_no integer not null,
    primary key (key, value, task_no)
);

create table edge (
    from_no integer not null,
    to_no   integer not null,
    kind    text not null check (kind in ('next', 'link', 'link_error')),
    primary key (from_no, to_no, kind)
);
create index edge_to on edge (to_no);

create table task_group (
    group_id     text primary key,
    root_id      text not null,
    total        integer not null,
    chord_size   integer,
    submitted_at integer not null,
    structure    text
);
create index task_group_root on task_group (root_id);

create table idempotency (
    scope       text not null,
    key         text not null,
    fingerprint blob not null,
    answer      text not null,
    expires_at  integer not null,
    primary key (scope, key)
);
create index idempotency_expires on idempotency (expires_at);

-- `expires_at` is the end of time while the key is held until its task is final.
create table unique_key (
    key        text primary key,
    task_id    text not null,
    expires_at integer not null
);
create index unique_key_expires on unique_key (expires_at);
create index unique_key_task on unique_key (task_id);

create table lease (
    name       text primary key,
    holder     text not null,
    term       integer not null,
    expires_at integer not null
);

create table tombstone (
    task_id     text primary key,
    finished_at integer not null,
    pruned_at   integer not null
);

create table queue_pause (
    queue     text primary key,
    paused_at integer not null
);
