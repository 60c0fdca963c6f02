-- The ledger. Times are microseconds since 1970 (UTC), as everywhere in taskgate; the view celery_taskmeta shows timestamps.
--
-- A task is written three times at most: what was submitted (`task`, which nothing changes afterwards), how it stands while it is
-- not final (`flight`: narrow, no index on a column that an ordinary step changes), and how it ended (`ended`, written once). Its
-- history travels in the last two as one packed value, so a step of a task is one row. The feed has one row for each commit.
--
-- What grows with the history is partitioned by the day of `task_no`, which is (day << 32) + count. So a partition covers whole days,
-- retention drops whole partitions, and a look-up that knows about when a task was submitted touches two of them. The key is an
-- expression of its own, because a bound of it must never be taken for a reason to walk along the index of `task_no`. Unique indexes are
-- those of the partitions.
-- There are no foreign keys: every row is written beside its task, in one transaction, by the ledger alone. Nor do `task`, `flight` and
-- `ended` have check constraints: the server reads each of them anew for every statement, a twentieth of what a life costs.

create sequence taskgate.task_no as bigint;

-- One row: facts about this ledger.
create table taskgate.ledger (
    one_row      boolean primary key default true check (one_row),
    -- Added to every feed position; raised when the database was restored into a cluster with younger transaction ids.
    feed_offset  bigint not null default 0,
    -- Messages of tasks up to this number are gone, but for those in `payload_late`.
    payload_mark bigint not null default 0
);
insert into taskgate.ledger default values;

-- Names and queues that tasks have together: a task's row has the number. Empty while a name or queue is not known.
create table taskgate.kind (
    kind_no integer generated always as identity primary key,
    name    text collate "C" not null,
    queue   text collate "C" not null
);
create unique index kind_name_queue on taskgate.kind (name, queue);
create index kind_queue_name on taskgate.kind (queue, name);

-- What was submitted, with the message as published.
create table taskgate.task (
    task_no       bigint not null,
    submitted_at  bigint not null,
    due_at        bigint,
    expires_at    bigint,
    -- The task's id; of one that is not written as a UUID a hash, and then `given_id` has its text.
    id            uuid not null,
    kind_no       integer not null,
    group_index   integer,
    priority      smallint not null,
    ignore_result boolean not null,
    adopted       boolean not null,
    -- The phase of the first event, when that is not `accepted`. Null too for an adopted task: its history has all events.
    first_phase   text collate "C",
    given_id      text collate "C",
    -- Null when it is the task's own id.
    root_id       text collate "C",
    parent_id     text collate "C",
    group_id      text collate "C",
    retry_of      text collate "C",
    schedule      text collate "C",
    labels        text,
    options       text,
    argsrepr      text,
    kwargsrepr    text,
    -- Packed: what the row says anyway stands as one control character each.
    headers       text,
    body          text
) partition by range ((task_no >> 32));
create index task_kind on taskgate.task (kind_no, task_no);
create index task_given_id on taskgate.task (given_id) where given_id is not null;
create index task_root on taskgate.task (root_id, task_no) where root_id is not null;
create index task_group_member on taskgate.task (group_id, task_no) where group_id is not null;
create index task_schedule on taskgate.task (schedule, task_no) where schedule is not null;
-- Finds queued tasks whose time is over.
create index task_expires on taskgate.task (expires_at) where expires_at is not null;
-- Tasks that ask for webhooks themselves.
create index task_webhooks on taskgate.task (task_no) where options like '%"webhooks":%';

-- How a task stands that is not final. A step changes no column of an index, but for the first one at a worker.
create table taskgate.flight (
    task_no             bigint primary key,
    queued_at           bigint,
    revoke_requested_at bigint,
    received_at         bigint,
    delivery            integer not null,
    retries             integer not null,
    -- A worker was heard to have it.
    at_worker           boolean not null default false,
    -- It waits for a predecessor.
    waits               boolean not null default false,
    corrected           boolean not null default false,
    worker              text collate "C",
    -- What most steps change comes last: WAL has a changed row from its first changed byte on.
    started_at          bigint,
    runtime             double precision,
    seq                 integer not null,
    phase               text collate "C" not null,
    -- Null when it is the phase's own word.
    status              text collate "C",
    reason              text,
    retried_as          text collate "C",
    failure_type        text,
    failure_message     text,
    traceback           text,
    progress            text,
    children            text,
    -- Events after the first, or after those that went to `history`. Null while the columns above say all of them.
    history             bytea
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
create index flight_at_worker on taskgate.flight (task_no) where at_worker;
create index flight_waits on taskgate.flight (task_no) where waits;

-- How a task ended.
create table taskgate.ended (
    task_no             bigint not null,
    queued_at           bigint,
    received_at         bigint,
    started_at          bigint,
    finished_at         bigint not null,
    revoke_requested_at bigint,
    runtime             double precision,
    seq                 integer not null,
    delivery            integer not null,
    retries             integer not null,
    corrected           boolean not null,
    -- A dead letter, until it is deleted or re-queued.
    dead                boolean not null,
    phase               text collate "C" not null,
    status              text collate "C",
    worker              text collate "C",
    reason              text,
    retried_as          text collate "C",
    failure_type        text,
    failure_message     text,
    traceback           text,
    progress            text,
    children            text,
    history             bytea,
    result              text
) partition by range ((task_no >> 32));
create index ended_badly on taskgate.ended (phase, task_no) where phase <> 'succeeded';
create index ended_dead on taskgate.ended (task_no) where dead;

-- Earlier events of tasks with long histories, in pieces of some kilobytes.
create table taskgate.history (
    task_no  bigint not null,
    -- Of its last event.
    last_seq integer not null,
    events   bytea not null
) partition by range ((task_no >> 32));

-- Every event of every task: one row for what a commit (or a thousand events of it) brought. A position is (transaction id, place in
-- the transaction); `pos` is that of the row's first event.
create table taskgate.feed (
    pos    bigint primary key,
    -- The time of its newest event.
    at     bigint not null,
    events bytea not null
);

-- Up to which row of the feed everybody who was accepted is published, or in the outbox. One row.
create table taskgate.relay_mark (
    only_row boolean primary key default true,
    feed     bigint not null,
    constraint relay_mark_one_row check (only_row)
);
insert into taskgate.relay_mark (feed) values (0);

-- What is still to be published, but for tasks that go to the broker at once: those have a row only when they were left behind.
-- `wake_at` is when a pass must look at it: its time, or the end of its time.
create table taskgate.outbox (
    task_no     bigint primary key,
    wake_at     bigint not null,
    accepted_at bigint not null,
    -- The queue for whose end of pause it waits.
    parked      text collate "C",
    -- The limit at which it waits: a rate (`rate <task>`, `pace <key>`) or a key (`key <key>`) of which only so many tasks may be under way.
    gate        text collate "C",
    -- How many tasks of the key may be under way for this one to go; null at a rate.
    gate_max    integer,
    -- The queue in whose line it waits for room in the window, its rank there (the lowest goes first), and the key whose turn it needs.
    line        text collate "C",
    rank        smallint,
    share       text collate "C"
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
create index outbox_wake on taskgate.outbox (wake_at, task_no);
create index outbox_parked on taskgate.outbox (parked, task_no) where parked is not null;
create index outbox_gate on taskgate.outbox (gate, task_no) where gate is not null;
create index outbox_line on taskgate.outbox (line, rank, share, task_no) where line is not null;

create table taskgate.label (
    key     text collate "C" not null,
    value   text collate "C" not null,
    task_no bigint not null
) partition by range ((task_no >> 32));

create table taskgate.edge (
    from_no bigint not null,
    to_no   bigint not null,
    kind    text collate "C" not null check (kind in ('next', 'link', 'link_error', 'after'))
) partition by range ((from_no >> 32));
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
create index task_group_submitted on taskgate.task_group (submitted_at);

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

-- Ids of tasks that were pruned one by one.
create table taskgate.tombstone (
    id        uuid primary key,
    pruned_at bigint not null
);

-- Ids of the tasks of a month that was dropped: sorted, some thousands in a piece, sixteen bytes each.
create table taskgate.tombstone_piece (
    month     text collate "C" not null,
    first     uuid not null,
    pruned_at bigint not null,
    ids       bytea not null,
    primary key (month, first)
);

-- Tasks that had not ended when their messages were to go.
create table taskgate.payload_late (
    task_no bigint primary key
);

create table taskgate.queue_pause (
    queue     text collate "C" primary key,
    paused_at bigint not null
);

-- When the next task may pass a rate.
create table taskgate.gate_rate (
    gate     text collate "C" primary key,
    opens_at bigint not null,
    -- The least time between two tasks, as the last one said.
    spacing  bigint
);
create index gate_rate_opens on taskgate.gate_rate (opens_at);

-- Published tasks of a key that have not ended. Removed in the transaction that ends the task, whatever the end.
create table taskgate.gate_hold (
    gate    text collate "C" not null,
    task_no bigint not null,
    -- How many may be under way, as the task says.
    most    integer,
    primary key (gate, task_no)
);
create index gate_hold_task on taskgate.gate_hold (task_no);

-- What an owner says of a key by hand.
create table taskgate.limit_rule (
    key        text collate "C" primary key,
    most       integer,
    rate       text,
    paused     boolean not null,
    changed_at bigint not null
);

-- Published tasks of queues with a window that no worker has received. Removed in the transaction that hears of it.
create table taskgate.window_slot (
    task_no bigint primary key,
    queue   text collate "C" not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
create index window_slot_queue on taskgate.window_slot (queue);

-- Keys that take turns in a line. The smallest turn is next.
create table taskgate.line_share (
    queue  text collate "C" not null,
    rank   smallint not null,
    share  text collate "C" not null,
    turn   bigint not null,
    weight integer not null,
    primary key (queue, rank, share)
) with (fillfactor = 70);
create index line_share_turn on taskgate.line_share (queue, rank, turn, share);

-- Celery's word for a phase.
create function taskgate.word(phase text) returns text language sql immutable as $$
    select case phase
        when 'received' then 'RECEIVED'
        when 'running' then 'STARTED'
        when 'retrying' then 'RETRY'
        when 'succeeded' then 'SUCCESS'
        when 'failed' then 'FAILURE'
        when 'lost' then 'FAILURE'
        when 'ignored' then 'IGNORED'
        when 'revoked' then 'REVOKED'
        when 'expired' then 'REVOKED'
        when 'skipped' then 'REVOKED'
        else 'PENDING'
    end
$$;

-- When the task of this id was pruned. Null when it was not.
create function taskgate.pruned_at(wanted uuid) returns bigint language sql stable as $$
    select coalesce(
        (select s.pruned_at from taskgate.tombstone s where s.id = wanted),
        (with recursive months(month) as (
            select min(month) from taskgate.tombstone_piece
            union all
            select (select min(p.month) from taskgate.tombstone_piece p where p.month > m.month) from months m where m.month is not null
        )
        select p.pruned_at from months m cross join lateral (
            select p.pruned_at, p.ids from taskgate.tombstone_piece p
            where p.month = m.month and p.first <= wanted order by p.first desc limit 1
        ) p where position(uuid_send(wanted) in p.ids) > 0 limit 1))
$$;

-- Reads a row of the feed, for people: the ledger itself reads it in the gateway.
create function taskgate.read_events(bytes bytea) returns table (place bigint, task_no bigint, seq integer, delivery integer, retries integer,
    phase text, corrected boolean, at bigint, status text, worker text, reason text, meta text) language plpgsql immutable strict as $$
declare
    phases constant text[] := array['accepted', 'held', 'waiting', 'queued', 'received', 'running', 'retrying', 'succeeded', 'failed',
        'revoked', 'expired', 'skipped', 'lost', 'ignored'];
    here   integer := 0;
    flags  integer;
    size   integer;
    shift  integer;
    part   integer;
    texts  text[];
begin
    place := 0;
    while here < octet_length(bytes) loop
        place := place + 1;
        task_no := ('x' || encode(substr(bytes, here + 1, 8), 'hex'))::bit(64)::bigint;
        seq := ('x' || encode(substr(bytes, here + 9, 4), 'hex'))::bit(32)::integer;
        delivery := get_byte(bytes, here + 12) * 256 + get_byte(bytes, here + 13);
        retries := get_byte(bytes, here + 14) * 256 + get_byte(bytes, here + 15);
        phase := phases[get_byte(bytes, here + 16) + 1];
        flags := get_byte(bytes, here + 17);
        at := ('x' || encode(substr(bytes, here + 19, 8), 'hex'))::bit(64)::bigint;
        here := here + 26;
        texts := array[null, null, null, null];
        for text in 0..3 loop
            continue when flags & (2 << text) = 0;
            size := 0;
            shift := 0;
            loop
                part := get_byte(bytes, here);
                here := here + 1;
                size := size | ((part & 127) << shift);
                shift := shift + 7;
                exit when part < 128;
            end loop;
            texts[text + 1] := convert_from(substr(bytes, here + 1, size), 'UTF8');
            here := here + size;
        end loop;
        corrected := flags & 1 = 1;
        status := coalesce(texts[1], taskgate.word(phase));
        -- Else it is that of the event before.
        if flags & 32 = 0 then
            worker := texts[2];
        end if;
        reason := texts[3];
        meta := texts[4];
        return next;
    end loop;
end
$$;

create view taskgate.event as
    select f.pos + e.place - 1 as feed, e.task_no, e.seq, e.at, e.delivery, e.retries, e.corrected, e.phase, e.status, e.worker, e.reason, e.meta
    from taskgate.feed f cross join lateral taskgate.read_events(f.events) e;

-- A task as one row, for people.
create view taskgate.tasks as
    select t.task_no, coalesce(t.given_id, t.id::text) as task_id, nullif(k.name, '') as name, nullif(k.queue, '') as queue, t.priority,
        coalesce(e.phase, f.phase) as phase, coalesce(e.status, f.status, taskgate.word(coalesce(e.phase, f.phase))) as status,
        coalesce(e.seq, f.seq) as seq, coalesce(e.delivery, f.delivery) as delivery, coalesce(e.retries, f.retries) as retries,
        coalesce(e.worker, f.worker) as worker, t.submitted_at, coalesce(e.queued_at, f.queued_at) as queued_at,
        coalesce(e.received_at, f.received_at) as received_at, coalesce(e.started_at, f.started_at) as started_at, e.finished_at,
        t.due_at, t.expires_at, coalesce(e.runtime, f.runtime) as runtime, e.result, coalesce(e.failure_type, f.failure_type) as failure_type,
        coalesce(e.failure_message, f.failure_message) as failure_message, coalesce(e.traceback, f.traceback) as traceback,
        coalesce(e.progress, f.progress) as progress, coalesce(e.children, f.children) as children,
        coalesce(e.reason, f.reason) as reason, t.root_id, t.parent_id, t.group_id, t.group_index, t.retry_of,
        coalesce(e.retried_as, f.retried_as) as retried_as, t.schedule, t.labels, t.options, t.adopted,
        coalesce(e.corrected, f.corrected) as corrected, t.body
    from taskgate.task t join taskgate.kind k on k.kind_no = t.kind_no
    left join taskgate.flight f on f.task_no = t.task_no left join taskgate.ended e on e.task_no = t.task_no;

-- Makes the partitions that cover the days from `from_day` on (numbers of days since 1970) and below `to_day`, where there are none.
create function taskgate.make_partitions(from_day bigint, to_day bigint, label text) returns void language plpgsql as $$
declare
    parent text;
    child  text;
begin
    foreach parent in array array['task', 'ended', 'history', 'label', 'edge'] loop
        child := parent || '_' || label;
        if to_regclass('taskgate.' || quote_ident(child)) is null then
            execute format('create table taskgate.%I partition of taskgate.%I for values from (%s) to (%s)',
                child, parent, from_day, to_day);
            execute format('create unique index %I on taskgate.%I (%s)', child || '_key', child, case parent
                when 'history' then 'task_no, last_seq' when 'label' then 'key, value, task_no'
                when 'edge' then 'from_no, to_no, kind' else 'task_no' end);
            if parent = 'task' then
                execute format('create unique index %I on taskgate.%I (id)', child || '_id', child);
            elsif parent = 'ended' then
                execute format('alter table taskgate.%I set (fillfactor = 95)', child);
            end if;
        end if;
    end loop;
end
$$;

-- Sees to it that this month and the next two have partitions, and that numbers belong to the present day. By the server's clock: one
-- for all replicas. A month that has no partition gets no numbers: whatever happens, submissions go on in the newest one there is.
-- Answers true when it did something.
create function taskgate.roll() returns boolean language plpgsql as $$
declare
    today bigint := extract(epoch from now() at time zone 'UTC')::bigint / 86400;
    -- The month of the newest numbers: it is later than today's when the clock was set back.
    newest date := date_trunc('month', date '1970-01-01' + greatest(today, (select last_value >> 32 from taskgate.task_no))::integer)::date;
    month date;
    did   boolean := false;
begin
    if (select last_value >> 32 from taskgate.task_no) >= today
        and to_regclass('taskgate.edge_' || to_char(now() at time zone 'UTC' + interval '2 months', 'YYYYMM')) is not null
        and to_regclass('taskgate.edge_' || to_char(newest, 'YYYYMM')) is not null then
        return false;
    end if;
    perform pg_advisory_xact_lock(7310319, 2);
    for step in 0..3 loop
        month := (date_trunc('month', now() at time zone 'UTC') + step * interval '1 month')::date;
        if step = 3 then
            month := newest;
        end if;
        if to_regclass('taskgate.edge_' || to_char(month, 'YYYYMM')) is null then
            perform taskgate.make_partitions(month - date '1970-01-01', (month + interval '1 month')::date - date '1970-01-01',
                to_char(month, 'YYYYMM'));
            did := true;
        end if;
    end loop;
    if (select last_value >> 32 from taskgate.task_no) < today
        and to_regclass('taskgate.edge_' || to_char(now() at time zone 'UTC', 'YYYYMM')) is not null then
        perform setval('taskgate.task_no', today << 32);
        did := true;
    end if;
    return did;
exception when insufficient_privilege then
    raise warning 'this role may not make the partitions of taskgate: numbers stay in the newest one, and retention waits';
    return false;
end
$$;
select taskgate.roll();

-- Drops the oldest month whose tasks all ended before a time, and keeps their ids. Answers how many tasks went; null when there is no
-- such month. What takes time comes before the locks.
create function taskgate.drop_oldest_month(ended_before bigint, at bigint) returns bigint language plpgsql as $$
declare
    label  text;
    parent text;
    low    bigint;
    high   bigint;
    held   boolean;
    gone   bigint;
begin
    select min(substr(c.relname, 6)) into label from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'taskgate.task'::regclass;
    low := (to_date(label, 'YYYYMM') - date '1970-01-01')::bigint << 32;
    high := ((to_date(label, 'YYYYMM') + interval '1 month')::date - date '1970-01-01')::bigint << 32;
    if label is null or (high >> 32) * 86400000000 > ended_before then
        return null;
    end if;
    execute format('select exists (select 1 from taskgate.flight where task_no >= %s and task_no < %s)
        or exists (select 1 from taskgate.%I where finished_at >= %s)', low, high, 'ended_' || label, ended_before) into held;
    if held then
        return null;
    end if;
    execute format($insert$insert into taskgate.tombstone_piece (month, first, pruned_at, ids)
        select %L, (array_agg(id order by id))[1], %s, string_agg(uuid_send(id), '' order by id)
        from (select id, (row_number() over (order by id) - 1) / 4000 as piece from taskgate.%I) numbered group by piece$insert$,
        label, at, 'task_' || label);
    execute format('select count(*) from taskgate.%I', 'task_' || label) into gone;
    -- Nobody waits for long behind this: it is tried again a minute later.
    set local lock_timeout = '2s';
    foreach parent in array array['task', 'ended', 'history', 'label', 'edge'] loop
        execute format('drop table taskgate.%I', parent || '_' || label);
    end loop;
    delete from taskgate.payload_late where task_no >= low and task_no < high;
    delete from taskgate.task_group g where g.submitted_at < (high >> 32) * 86400000000
        and not exists (select 1 from taskgate.task t where t.group_id = g.group_id);
    return gone;
end
$$;

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
    -- Whose words the keys of its call are.
    namespace     text,
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

-- What remote control must remember across restarts and tell every replica.

create table taskgate.worker (
    hostname   text collate "C" primary key,
    seen_at    bigint not null,
    offline_at bigint,
    -- JSON: what is known of the worker.
    facts      text not null
);

-- Workers that were told to leave a paused queue alone: they are told to come back when it is resumed.
create table taskgate.pause_consumer (
    queue    text collate "C" not null,
    hostname text collate "C" not null,
    primary key (queue, hostname)
);

-- Revokes that still matter: told again to workers that come online.
create table taskgate.revocation (
    task_id      text collate "C" primary key,
    -- As in `task`.
    id           uuid not null,
    requested_at bigint not null,
    terminate    boolean not null,
    signal       text not null,
    reason       text
);

-- Figures by minute, by hour and for all time, folded from the feed: a restart loses none, every replica shows the same.

-- The feed's position up to which events are in the figures. One row.
create table taskgate.stat_mark (
    only_row boolean primary key default true,
    feed     bigint not null,
    constraint stat_mark_one_row check (only_row)
);
insert into taskgate.stat_mark (feed) values (0);

create table taskgate.stat (
    -- Seconds: 60, 3600, or 0 for all time.
    span    integer not null,
    -- Microseconds: where the span begins; 0 for all time.
    at      bigint not null,
    measure text collate "C" not null,
    -- Of a histogram; -1 for a plain count.
    bucket  smallint not null,
    -- The task's name; for the measure `error` the kind's fingerprint.
    name    text collate "C" not null,
    queue   text collate "C" not null,
    amount  bigint not null,
    primary key (span, measure, at, name, queue, bucket)
);

create table taskgate.failure_kind (
    fingerprint  text collate "C" primary key,
    name         text not null,
    type         text not null,
    frame        text,
    message      text not null,
    first_at     bigint not null,
    last_at      bigint not null,
    last_task_id text not null
);

-- Who may call: bearer tokens by their hash, and tickets for streams.

create table taskgate.token (
    token_id     text collate "C" primary key,
    name         text collate "C" not null,
    -- SHA-256 of the token: the token itself is nowhere.
    hash         bytea not null,
    -- JSON: a list of scopes.
    scopes       text not null,
    -- JSON: a list of patterns of task names; an empty one is no limit.
    tasks        text not null,
    -- As a task's rate_limit: 100/m.
    rate         text,
    created_at   bigint not null,
    expires_at   bigint,
    -- Who logged in, when this is a session of the dashboard.
    person       text,
    revoked_at   bigint,
    last_used_at bigint,
    -- Whose words its keys are (limits, unique, Idempotency-Key). Null: its name's.
    namespace    text,
    constraint token_hash_is_sha256 check (octet_length(hash) = 32)
);
create unique index token_hash on taskgate.token (hash);
create unique index token_name on taskgate.token (name) where revoked_at is null;

-- Grows with every change of a token that replicas must know of. One row.
create table taskgate.token_change (
    only_row boolean primary key default true,
    version  bigint not null,
    constraint token_change_one_row check (only_row)
);
insert into taskgate.token_change (version) values (0);

-- Of one use, for clients that cannot send a header. A replica that takes it removes it.
create table taskgate.stream_ticket (
    hash       bytea primary key,
    -- The token that it stands for.
    token_hash bytea not null,
    expires_at bigint not null
);
create index stream_ticket_end on taskgate.stream_ticket (expires_at);

-- Webhooks: who is told, and what each was told. Deliveries are derived from the feed behind a mark that moves in the same
-- transaction, so that every matching event becomes one delivery, once.

-- The feed's position up to which events became deliveries. One row.
create table taskgate.webhook_mark (
    only_row boolean primary key default true,
    feed     bigint not null,
    constraint webhook_mark_one_row check (only_row)
);
insert into taskgate.webhook_mark (feed) values (0);

-- Registered endpoints, and two rows of our own whose secrets sign what the catalog and submissions ask for.
create table taskgate.webhook_endpoint (
    endpoint_id     text collate "C" primary key,
    -- Grows with every edit.
    version         bigint not null,
    enabled         boolean not null,
    -- Why it was switched off, when nobody asked for that.
    disabled_reason text,
    secret          text not null,
    -- Signs too, until `old_until`.
    old_secret      text,
    old_until       bigint,
    created_at      bigint not null,
    updated_at      bigint not null,
    document        text not null,
    constraint webhook_endpoint_overlap check ((old_secret is null) = (old_until is null))
);

create table taskgate.webhook_delivery (
    delivery_no  bigint generated always as identity primary key,
    task_no      bigint not null,
    seq          bigint not null,
    created_at   bigint not null,
    give_up_at   bigint not null,
    -- When it is tried again, or may be taken from a sender that died.
    next_at      bigint,
    last_at      bigint,
    delivered_at bigint,
    attempts     integer not null,
    last_status  integer,
    delivery_id  text collate "C" not null,
    endpoint_id  text collate "C" not null,
    task_id      text collate "C" not null,
    task_name    text collate "C",
    kind         text collate "C" not null,
    state        text collate "C" not null check (state in ('pending', 'delivered', 'failed')),
    url          text not null,
    -- Host and port: what is sent there at the same time is bounded.
    target       text collate "C" not null,
    last_error   text,
    payload      text not null,
    constraint webhook_delivery_next_iff_pending check ((next_at is not null) = (state = 'pending'))
);
create unique index webhook_delivery_id_key on taskgate.webhook_delivery (delivery_id);
create index webhook_delivery_due on taskgate.webhook_delivery (next_at, delivery_no) where next_at is not null;
create index webhook_delivery_endpoint on taskgate.webhook_delivery (endpoint_id, delivery_no);
create index webhook_delivery_task on taskgate.webhook_delivery (task_id, delivery_no);


-- Up to where the feed was told to the trace collector, so that a restart or another replica goes on from there. At most one row.
create table taskgate.trace_mark (
    only_row boolean primary key default true,
    feed     bigint not null,
    constraint trace_mark_one_row check (only_row)
);

-- Calls that become more tasks than one transaction should write: accepted whole, written out piece by piece.

create table taskgate.fan_out (
    fan_out_no   bigint generated always as identity primary key,
    group_id     text collate "C" not null,
    root_id      text collate "C" not null,
    total        integer not null,
    -- Tasks that are written. The row goes with the last of them.
    written      integer not null default 0,
    submitted_at bigint not null,
    -- JSON: what the tasks are made from.
    plan         text not null,
    constraint fan_out_written check (written between 0 and total)
);

-- What a reconciler found out and cannot repair; every replica tells it as an incident. `source` is the reconciler.
create table taskgate.finding (
    source  text collate "C" not null,
    kind    text collate "C" not null,
    subject text collate "C" not null,
    since   bigint not null,
    detail  text not null,
    primary key (source, kind, subject)
);

-- Incidents: which are open, what people said about them, which are over. One replica at a time writes what was found. `incident_id`
-- is the same for the same kind and subject.
create table taskgate.incident (
    incident_no     bigint generated always as identity primary key,
    incident_id     text collate "C" not null,
    kind            text collate "C" not null,
    subject         text collate "C" not null,
    since           bigint not null,
    detail          text not null,
    -- JSON: names of who is told of it.
    channels        text not null,
    ended_at        bigint,
    acknowledged_at bigint,
    acknowledged_by text,
    muted_until     bigint,
    constraint incident_acknowledged check ((acknowledged_at is null) = (acknowledged_by is null))
);
create unique index incident_open on taskgate.incident (incident_id) where ended_at is null;
create index incident_by_id on taskgate.incident (incident_id, incident_no);
create index incident_ended on taskgate.incident (ended_at) where ended_at is not null;

-- What somebody outside is still to be told. A row goes when it was sent or given up.
create table taskgate.incident_notice (
    notice_no   bigint generated always as identity primary key,
    incident_no bigint not null references taskgate.incident on delete cascade,
    channel     text not null,
    is_end      boolean not null,
    created_at  bigint not null,
    due_at      bigint not null,
    tries       integer not null default 0
);
create index incident_notice_of on taskgate.incident_notice (incident_no);

-- What is done to many tasks at once: the operation is the row, one replica works on it, and each step moves its place in the
-- transaction that counts what the step did.
create table taskgate.bulk (
    bulk_no     bigint generated always as identity primary key,
    bulk_id     text collate "C" not null,
    action      text collate "C" not null check (action in ('retry', 'revoke', 'requeue', 'dismiss')),
    state       text collate "C" not null check (state in ('running', 'paused', 'cancelled', 'done')),
    -- JSON: which tasks, for whom, how fast.
    plan        text not null,
    -- Tells whether a repeated request is the same.
    fingerprint text collate "C" not null,
    who         text not null,
    -- The token's id: a limited token sees its own.
    who_id      text collate "C",
    -- Steps that are done, and the task number above which all is done.
    steps       integer not null default 0,
    at_no       bigint,
    total       bigint,
    done        bigint not null default 0,
    skipped     bigint not null default 0,
    failed      bigint not null default 0,
    -- JSON: how many ended how, and the last refusals.
    outcomes    text not null default '{}',
    errors      text not null default '[]',
    created_at  bigint not null,
    changed_at  bigint not null,
    finished_at bigint,
    constraint bulk_finished check ((finished_at is not null) = (state in ('cancelled', 'done')))
);
create unique index bulk_id_key on taskgate.bulk (bulk_id);
create index bulk_running on taskgate.bulk (bulk_no) where state = 'running';

-- Who did what. A row is opened with the act and sealed with its verdict; sealing appends it to a chain of hashes.
create table taskgate.audit (
    audit_no  bigint generated always as identity primary key,
    audit_id  text collate "C" not null,
    -- The place in the chain; null until the verdict is known.
    chain_no  bigint,
    opened_at bigint not null,
    sealed_at bigint,
    who       text not null,
    who_id    text collate "C",
    what      text collate "C" not null,
    target    text not null,
    origin    text collate "C",
    status    integer,
    verdict   text collate "C",
    detail    text,
    hash      bytea,
    constraint audit_sealed_whole check ((chain_no is null) = (hash is null) and (chain_no is null) = (sealed_at is null))
);
create unique index audit_id_key on taskgate.audit (audit_id);
create unique index audit_chain on taskgate.audit (chain_no) where chain_no is not null;
create index audit_open on taskgate.audit (opened_at) where chain_no is null;

-- The end of the chain. One row.
create table taskgate.audit_head (
    only_row boolean primary key default true,
    chain_no bigint not null,
    hash     bytea not null,
    constraint audit_head_one_row check (only_row)
);
insert into taskgate.audit_head (chain_no, hash) values (0, '\x');
-- Steps that wait for an answer or for a time. The gateway is their worker: the message is kept here, so nothing of a step that
-- waits is in the broker.
create table taskgate.wait (
    task_id       text collate "C" primary key,
    is_sleep      boolean not null,
    name          text not null,
    since         bigint not null,
    expires_at    bigint not null,
    schema        text,
    on_timeout    text collate "C" not null check (on_timeout in ('fail', 'skip')),
    -- What the step before it returned.
    input         text,
    -- Of the token that submitted the step.
    token         text collate "C",
    headers       text not null,
    body          text not null,
    state         text collate "C" not null check (state in ('open', 'answered', 'refused', 'expired', 'revoked')),
    answer        text,
    ended_at      bigint,
    -- What follows was sent. Until then one replica at a time tries.
    settled       boolean not null default false,
    claimed_by    text collate "C",
    claimed_until bigint,
    constraint wait_ended_iff_not_open check ((ended_at is not null) = (state <> 'open'))
);
create index wait_expires on taskgate.wait (expires_at) where state = 'open';
create index wait_open on taskgate.wait (since, task_id) where state = 'open';
create index wait_unsettled on taskgate.wait (ended_at) where state <> 'open' and not settled;
create index wait_settled on taskgate.wait (ended_at) where settled;

-- Keys of the whole installation, made by whoever needs them first.
create table taskgate.secret (
    name  text collate "C" primary key,
    value bytea not null
);

-- What tasks logged: one row for lines that came together, numbered through the task.
create table taskgate.task_log (
    task_no  bigint not null,
    -- Of its first line, from 1.
    first_no bigint not null,
    count    integer not null,
    attempt  integer not null,
    -- How far the attempt's log has come with this row: the next line that is new, its bytes of text, when its present run began, and
    -- whether the bound was reached.
    next_seq bigint not null,
    bytes    bigint not null,
    began_at bigint not null,
    closed   boolean not null,
    -- When it was written down.
    at       bigint not null,
    -- JSON.
    lines    text not null,
    primary key (task_no, first_no)
);
create unique index task_log_attempt on taskgate.task_log (task_no, attempt, first_no);
create index task_log_at on taskgate.task_log (at);

-- DAGs: the whole as a document, to resume it and to show it; and the parts that a gateway has to send. The row of a part goes in the
-- transaction that sends it.

create table taskgate.dag (
    root_id      text collate "C" primary key,
    -- As `task.id`.
    root_key     uuid not null,
    submitted_at bigint not null,
    -- JSON: the signature with the ids of its tasks.
    document     text not null
);
create index dag_submitted on taskgate.dag (submitted_at);

create table taskgate.dag_part (
    part_no  bigint generated always as identity primary key,
    -- The first of the tasks that start it; all of them wait for the same.
    task_no  bigint not null,
    -- JSON: what their messages are made from.
    document text not null
);
