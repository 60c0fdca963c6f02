-- The ledger. Times are microseconds since 1970 (UTC), as everywhere in taskgate; the view celery_taskmeta shows timestamps.
--
-- The hot row (`task`) has no index on a column that a transition changes, so every transition is a heap-only update:
-- what changes (is it unfinished, is it with a worker, did it end badly) lives in small tables of its own.
-- There are no foreign keys: every row is written beside its task, in one transaction, by the ledger alone.

create sequence taskgate.task_no as bigint;

-- One row: facts about this ledger.
create table taskgate.ledger (
    one_row     boolean primary key default true check (one_row),
    -- Added to every feed position; raised when the database was restored into a cluster with younger transaction ids.
    feed_offset bigint not null default 0
);
insert into taskgate.ledger default values;

create table taskgate.task (
    task_no             bigint primary key,
    submitted_at        bigint not null,
    queued_at           bigint,
    received_at         bigint,
    started_at          bigint,
    finished_at         bigint,
    due_at              bigint,
    expires_at          bigint,
    revoke_requested_at bigint,
    seq                 bigint not null,
    runtime             double precision,
    delivery            integer not null,
    retries             integer not null,
    group_index         integer,
    priority            smallint not null,
    ignore_result       boolean not null,
    adopted             boolean not null,
    corrected           boolean not null,
    task_id             text collate "C" not null,
    phase               text collate "C" not null,
    status              text collate "C" not null,
    name                text collate "C",
    queue               text collate "C",
    worker              text collate "C",
    -- Null when it is the task's own id.
    root_id             text collate "C",
    parent_id           text collate "C",
    group_id            text collate "C",
    retry_of            text collate "C",
    retried_as          text collate "C",
    schedule            text collate "C",
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
) with (fillfactor = 60);

create unique index task_task_id_key on taskgate.task (task_id);
create index task_name on taskgate.task (name, task_no);
create index task_queue on taskgate.task (queue, task_no);
create index task_root on taskgate.task (root_id, task_no) where root_id is not null;
create index task_group_member on taskgate.task (group_id, task_no) where group_id is not null;
create index task_schedule on taskgate.task (schedule, task_no) where schedule is not null;

-- Tasks that are not final; `at_worker` once a worker was heard to have them.
create table taskgate.unfinished (
    task_no   bigint primary key,
    at_worker boolean not null default false
);
create index unfinished_at_worker on taskgate.unfinished (task_no) where at_worker;

-- Tasks that ended, but not well. `dead` until they are deleted or re-queued as dead letters.
create table taskgate.trouble (
    task_no bigint primary key,
    phase   text collate "C" not null,
    dead    boolean not null
);
create index trouble_phase on taskgate.trouble (phase, task_no);
create index trouble_dead on taskgate.trouble (task_no) where dead;

create table taskgate.message (
    task_no bigint primary key,
    headers text,
    body    text not null
);

-- What is still to be published. `wake_at` is when a pass must look at it: its time, or the end of its time.
create table taskgate.outbox (
    task_no     bigint primary key,
    wake_at     bigint not null,
    accepted_at bigint not null,
    queue       text collate "C" not null,
    -- Waits for its queue to be resumed.
    parked      boolean not null default false
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
create index outbox_wake on taskgate.outbox (wake_at, task_no);
create index outbox_parked on taskgate.outbox (queue, task_no) where parked;

-- Every change of every task. `feed` orders all of them: (transaction id, place in the transaction).
create table taskgate.event (
    task_no   bigint not null,
    seq       bigint not null,
    feed      bigint not null,
    at        bigint not null,
    delivery  integer not null,
    retries   integer not null,
    corrected boolean not null,
    phase     text collate "C" not null,
    status    text collate "C" not null,
    worker    text,
    reason    text,
    meta      text,
    primary key (task_no, seq),
    constraint event_seq_positive check (seq > 0)
);
create unique index event_feed on taskgate.event (feed);

create table taskgate.label (
    key     text collate "C" not null,
    value   text collate "C" not null,
    task_no bigint not null,
    primary key (key, value, task_no)
);

create table taskgate.edge (
    from_no bigint not null,
    to_no   bigint not null,
    kind    text collate "C" not null check (kind in ('next', 'link', 'link_error')),
    primary key (from_no, to_no, kind)
);
create index edge_to on taskgate.edge (to_no);

create table taskgate.task_group (
    group_id     text collate "C" primary key,
    root_id      text collate "C" not null,
    total        integer not null,
    chord_size   integer,
    submitted_at bigint not null,
    structure    text
);
create index task_group_root on taskgate.task_group (root_id);

create table taskgate.idempotency (
    scope       text collate "C" not null,
    key         text collate "C" not null,
    fingerprint bytea not null,
    answer      text not null,
    expires_at  bigint not null,
    primary key (scope, key)
);
create index idempotency_expires on taskgate.idempotency (expires_at);

-- `expires_at` is the end of time while the key is held until its task is final.
create table taskgate.unique_key (
    key        text collate "C" primary key,
    task_id    text collate "C" not null,
    expires_at bigint not null
);
create index unique_key_expires on taskgate.unique_key (expires_at);
create index unique_key_task on taskgate.unique_key (task_id);

create table taskgate.lease (
    name       text collate "C" primary key,
    holder     text collate "C" not null,
    term       bigint not null,
    expires_at bigint not null
);

create table taskgate.tombstone (
    task_id     text collate "C" primary key,
    finished_at bigint not null,
    pruned_at   bigint not null
);

create table taskgate.queue_pause (
    queue     text collate "C" primary key,
    paused_at bigint not null
);
