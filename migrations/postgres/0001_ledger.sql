-- The ledger, the history database. Times are microseconds since 1970 (UTC); the view celery_taskmeta shows timestamps.
--
-- A task has a row in up to two of three tables: what was submitted (`task`, which ordinary steps do not change), and its state while it
-- is not final (`flight`: narrow, without an index on a column that an ordinary step changes) or its final state (`ended`). The state's row
-- also has the task's history as one packed value, so a step of a task writes one row. The feed has one row for each commit.
--
-- Tables that grow with the history are partitioned by the day of `task_no`, which is (day << 32) + count. So a partition covers whole days,
-- retention drops whole partitions, and a look-up that knows roughly when a task was submitted reads two of them. The partition key is the
-- expression `task_no >> 32`, so that the planner does not take a bound on days for a reason to scan the index of `task_no`. Each partition
-- has its own unique indexes.
-- There are no foreign keys, because only the ledger writes, and it writes a task's rows in one transaction. `task`, `flight` and `ended` have
-- no check constraints, because the server would read them again for every statement, which costs a twentieth of a task's writes.

create sequence taskgate.task_no as bigint;

-- One row: facts about this ledger.
create table taskgate.ledger (
    one_row      boolean primary key default true check (one_row),
    -- Added to every feed position. Raised when the database was restored into a cluster with lower transaction ids.
    feed_offset  bigint not null default 0,
    -- Messages of tasks up to this number were pruned, except those of tasks in `payload_late`.
    payload_mark bigint not null default 0
);
insert into taskgate.ledger default values;

-- Pairs of task name and queue; a task's row has the number of its pair. An unknown name or queue is empty.
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
    -- The task's id. If the id is not written as a UUID: its hash, and `given_id` has the text.
    id            uuid not null,
    kind_no       integer not null,
    group_index   integer,
    priority      smallint not null,
    ignore_result boolean not null,
    adopted       boolean not null,
    -- The phase of the first event, if it is not `accepted`. Null for an adopted task too, whose history has all events.
    first_phase   text collate "C",
    given_id      text collate "C",
    -- Null if the task is its own root.
    root_id       text collate "C",
    parent_id     text collate "C",
    group_id      text collate "C",
    retry_of      text collate "C",
    schedule      text collate "C",
    labels        text,
    options       text,
    argsrepr      text,
    kwargsrepr    text,
    -- Packed: values that the row contains anyway are replaced by one control character each.
    headers       text,
    body          text
) partition by range ((task_no >> 32));
create index task_kind on taskgate.task (kind_no, task_no);
create index task_given_id on taskgate.task (given_id) where given_id is not null;
create index task_root on taskgate.task (root_id, task_no) where root_id is not null;
create index task_group_member on taskgate.task (group_id, task_no) where group_id is not null;
create index task_schedule on taskgate.task (schedule, task_no) where schedule is not null;
-- Finds queued tasks that have expired.
create index task_expires on taskgate.task (expires_at) where expires_at is not null;
-- Tasks whose submission asked for webhooks.
create index task_webhooks on taskgate.task (task_no) where options like '%"webhooks":%';

-- The state of a task that is not final. Steps change no indexed column, except the first step at a worker.
create table taskgate.flight (
    task_no             bigint primary key,
    queued_at           bigint,
    revoke_requested_at bigint,
    received_at         bigint,
    delivery            integer not null,
    retries             integer not null,
    -- Whether a worker has reported that it has the task.
    at_worker           boolean not null default false,
    -- Whether the task waits for a predecessor.
    waits               boolean not null default false,
    corrected           boolean not null default false,
    worker              text collate "C",
    -- The columns that most steps change come last, because WAL contains a changed row from its first changed byte on.
    started_at          bigint,
    runtime             double precision,
    seq                 integer not null,
    phase               text collate "C" not null,
    -- Null if it is the phase's usual Celery state.
    status              text collate "C",
    reason              text,
    retried_as          text collate "C",
    failure_type        text,
    failure_message     text,
    traceback           text,
    progress            text,
    children            text,
    -- Events after the first, or after those in the table `history`. Null while they can be derived from the columns above.
    history             bytea
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
create index flight_at_worker on taskgate.flight (task_no) where at_worker;
create index flight_waits on taskgate.flight (task_no) where waits;

-- The final state of a task.
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
    -- Whether the task is a dead letter: it failed or was lost, and was not deleted or re-queued since.
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
    -- The `seq` of the last event in the piece.
    last_seq integer not null,
    events   bytea not null
) partition by range ((task_no >> 32));

-- The feed: every event of every task, in one row for each commit (or for a thousand events of a large one). A position is (transaction id,
-- index in the transaction); `pos` is the position of the row's first event.
create table taskgate.feed (
    pos    bigint primary key,
    -- The time of the newest event in the row.
    at     bigint not null,
    events bytea not null
);

-- The feed position up to which every accepted task is published or in the outbox. One row.
create table taskgate.relay_mark (
    only_row boolean primary key default true,
    feed     bigint not null,
    constraint relay_mark_one_row check (only_row)
);
insert into taskgate.relay_mark (feed) values (0);

-- Tasks to publish, except those that go to the broker at once: these get a row only if they were not published. `wake_at` is when a pass
-- must check the task: its start time or its expiry.
create table taskgate.outbox (
    task_no     bigint primary key,
    wake_at     bigint not null,
    accepted_at bigint not null,
    -- The paused queue for whose resume the task waits.
    parked      text collate "C",
    -- The limit at which the task waits: a rate (`rate <task>`, `pace <key>`) or a maximum of tasks under way (`key <key>`).
    gate        text collate "C",
    -- The maximum of tasks under way, as this task says; null at a rate.
    gate_max    integer,
    -- The queue in whose line the task waits for room in the window, its rank there (the lowest goes first), and its fair-share key.
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

-- `expires_at` is the highest number while the key is held until its task is final.
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

-- Ids of the tasks of a dropped month, sorted, in pieces of some thousands; sixteen bytes for each id.
create table taskgate.tombstone_piece (
    month     text collate "C" not null,
    first     uuid not null,
    pruned_at bigint not null,
    ids       bytea not null,
    primary key (month, first)
);

-- Tasks that had not ended when their messages should have been pruned.
create table taskgate.payload_late (
    task_no bigint primary key
);

create table taskgate.queue_pause (
    queue     text collate "C" primary key,
    paused_at bigint not null
);

-- Rates, and when each lets the next task pass.
create table taskgate.gate_rate (
    gate     text collate "C" primary key,
    opens_at bigint not null,
    -- The shortest interval between two tasks, as the last task said.
    spacing  bigint
);
create index gate_rate_opens on taskgate.gate_rate (opens_at);

-- Published tasks of a key that have not ended. A row is deleted in the transaction that ends its task.
create table taskgate.gate_hold (
    gate    text collate "C" not null,
    task_no bigint not null,
    -- The maximum of tasks under way, as this task says.
    most    integer,
    primary key (gate, task_no)
);
create index gate_hold_task on taskgate.gate_hold (task_no);

-- Rules for keys, set by hand.
create table taskgate.limit_rule (
    key        text collate "C" primary key,
    most       integer,
    rate       text,
    paused     boolean not null,
    changed_at bigint not null
);

-- Limits at which tasks wait, each with the time from which a pass must look at it. Only passes write here.
create table taskgate.gate_wait (
    gate    text collate "C" primary key,
    look_at bigint not null
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
create index gate_wait_look on taskgate.gate_wait (look_at, gate);

-- Limits that the next pass must look at: a task has come there or gone, one under way has ended, or a rule was set.
create table taskgate.gate_news (
    no   bigint generated always as identity primary key,
    gate text collate "C" not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);

-- Triggers write the news, so that no statement forgets it.
create function taskgate.tell_gate() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        insert into taskgate.gate_news (gate) values (old.gate);
    else
        insert into taskgate.gate_news (gate) values (new.gate);
    end if;
    return null;
end $$;
create trigger tell_gate_in after insert on taskgate.outbox for each row when (new.gate is not null) execute function taskgate.tell_gate();
create trigger tell_gate_out after delete on taskgate.outbox for each row when (old.gate is not null) execute function taskgate.tell_gate();
create trigger tell_gate_end after delete on taskgate.gate_hold for each row execute function taskgate.tell_gate();
create trigger tell_gate_reset after delete on taskgate.gate_rate for each row execute function taskgate.tell_gate();

create function taskgate.tell_rule() returns trigger language plpgsql as $$
declare
    changed text := case when tg_op = 'DELETE' then old.key else new.key end;
begin
    insert into taskgate.gate_news (gate) values ('key ' || changed), ('pace ' || changed);
    return null;
end $$;
create trigger tell_rule after insert or update or delete on taskgate.limit_rule for each row execute function taskgate.tell_rule();

-- Published tasks that no worker has received, of queues with a window. A row is deleted in the transaction that records the receipt.
create table taskgate.window_slot (
    task_no bigint primary key,
    queue   text collate "C" not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
create index window_slot_queue on taskgate.window_slot (queue);

-- Fair-share keys that take turns in a line. The key with the smallest turn is next.
create table taskgate.line_share (
    queue  text collate "C" not null,
    rank   smallint not null,
    share  text collate "C" not null,
    turn   bigint not null,
    weight integer not null,
    primary key (queue, rank, share)
) with (fillfactor = 70);
create index line_share_turn on taskgate.line_share (queue, rank, turn, share);

-- Celery's state for a phase.
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

-- Undoes the statement that calls it: its writer was fenced off, or did not know the newest state of a task and tries again.
create function taskgate.undo(what text) returns text language plpgsql as $$
begin
    if what = 'fence' then
        raise exception 'taskgate: another replica holds the lease now, this write is undone' using errcode = 'TG001';
    end if;
    raise exception 'taskgate: a task was changed meanwhile, this write is undone and repeated' using errcode = 'TG002';
end
$$;

-- When the task of this id was pruned; null if it was not.
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

-- Decodes a row of the feed, for people who read with SQL; the gateway decodes rows itself.
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
        -- With this flag the worker is that of the previous event.
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

-- Each task as one row, for people who read with SQL.
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

-- Creates the missing partitions for the days from `from_day` on and before `to_day` (numbers of days since 1970).
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

-- Creates the partitions of this month and the next two, and moves the numbers to the present day. Uses the server's clock, which is the same
-- for all replicas. Numbers move only to a month that has partitions; until then, new tasks go into the newest partitions. Returns true if
-- it changed something.
create function taskgate.roll() returns boolean language plpgsql as $$
declare
    today bigint := extract(epoch from now() at time zone 'UTC')::bigint / 86400;
    -- The month of the newest numbers, which is later than today's if the clock was set back.
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
    raise warning 'this role may not create the partitions of taskgate: new tasks go into the newest partitions, and months are not dropped';
    return false;
end
$$;
select taskgate.roll();

-- Drops the oldest month, if all its tasks ended before a time, and keeps their ids. Returns how many tasks it dropped; null if it dropped
-- no month. The slow work comes before the locks.
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
    -- Others wait behind these locks, so this gives up soon; the service tries again a minute later.
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
    -- Grows with every edit, but not when the schedule fires.
    version       bigint not null,
    paused        boolean not null,
    created_at    bigint not null,
    updated_at    bigint not null,
    -- Intervals count from this time.
    anchor_at     bigint not null,
    -- The next tick, and when it fires (the tick plus its jitter). Null while paused and after the last tick.
    next_run_at   bigint,
    due_at        bigint,
    last_tick_at  bigint,
    last_run_at   bigint,
    -- The numbers of the first and the last task of the last firing.
    last_first_no bigint,
    last_last_no  bigint,
    last_task_id  text collate "C",
    document      text not null,
    -- The namespace of the keys in its call.
    namespace     text,
    constraint schedule_due_iff_next check ((due_at is null) = (next_run_at is null)),
    constraint schedule_paused_has_no_next check (not paused or next_run_at is null),
    constraint schedule_only_moves_forward check (next_run_at > last_tick_at)
);
create unique index schedule_name_key on taskgate.schedule (name);
create index schedule_due on taskgate.schedule (due_at) where due_at is not null;

-- The outcome of each tick.
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

-- Names of schedules that the configuration has created. They are not created again, also not after a deletion.
create table taskgate.schedule_seed (
    name      text collate "C" primary key,
    seeded_at bigint not null
);

-- State of remote control that must survive restarts and be the same for every replica.

create table taskgate.worker (
    hostname   text collate "C" primary key,
    seen_at    bigint not null,
    offline_at bigint,
    -- JSON: what is known about the worker.
    facts      text not null
);

-- Workers that were told to stop consuming a paused queue. When it is resumed, they are told to consume it again.
create table taskgate.pause_consumer (
    queue    text collate "C" not null,
    hostname text collate "C" not null,
    primary key (queue, hostname)
);

-- Revokes that still apply. They are sent again to workers that come online.
create table taskgate.revocation (
    task_id      text collate "C" primary key,
    -- As `id` in `task`.
    id           uuid not null,
    requested_at bigint not null,
    terminate    boolean not null,
    signal       text not null,
    reason       text
);

-- Statistics by minute, by hour and for all time, computed from the feed: a restart loses nothing, and every replica shows the same.

-- The feed position up to which events are in the statistics. One row.
create table taskgate.stat_mark (
    only_row boolean primary key default true,
    feed     bigint not null,
    constraint stat_mark_one_row check (only_row)
);
insert into taskgate.stat_mark (feed) values (0);

create table taskgate.stat (
    -- The length in seconds: 60, 3600, or 0 for all time.
    span    integer not null,
    -- The beginning of the span, in microseconds; 0 for all time.
    at      bigint not null,
    measure text collate "C" not null,
    -- The bucket of a histogram; -1 for a plain count.
    bucket  smallint not null,
    -- The task's name; for the measure `error`, the fingerprint of the kind of failure.
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

-- Access: bearer tokens by their hash, and tickets for streams.

create table taskgate.token (
    token_id     text collate "C" primary key,
    name         text collate "C" not null,
    -- SHA-256 of the token; the token itself is not stored.
    hash         bytea not null,
    -- JSON: a list of scopes.
    scopes       text not null,
    -- JSON: a list of patterns of task names; an empty list permits all.
    tasks        text not null,
    -- The token's rate limit, such as 100/m.
    rate         text,
    created_at   bigint not null,
    expires_at   bigint,
    -- The person who logged in, if this is a session of the dashboard.
    person       text,
    revoked_at   bigint,
    last_used_at bigint,
    -- The namespace of its keys (limits, unique, Idempotency-Key). Null: its name.
    namespace    text,
    constraint token_hash_is_sha256 check (octet_length(hash) = 32)
);
create unique index token_hash on taskgate.token (hash);
create unique index token_name on taskgate.token (name) where revoked_at is null;

-- A version that grows with every created or revoked token, so that replicas read the tokens again. One row.
create table taskgate.token_change (
    only_row boolean primary key default true,
    version  bigint not null,
    constraint token_change_one_row check (only_row)
);
insert into taskgate.token_change (version) values (0);

-- Tickets for one use, for clients that cannot send a header. The replica that redeems a ticket deletes it.
create table taskgate.stream_ticket (
    hash       bytea primary key,
    -- The hash of the token that the ticket represents.
    token_hash bytea not null,
    expires_at bigint not null
);
create index stream_ticket_end on taskgate.stream_ticket (expires_at);

-- Webhooks: endpoints and deliveries. Deliveries are derived from the feed; the transaction that writes them moves the mark, so that every
-- matching event becomes exactly one delivery.

-- The feed position up to which deliveries were written. One row.
create table taskgate.webhook_mark (
    only_row boolean primary key default true,
    feed     bigint not null,
    constraint webhook_mark_one_row check (only_row)
);
insert into taskgate.webhook_mark (feed) values (0);

-- Registered endpoints, and two built-in ones, whose secrets sign the deliveries that the catalog and submissions ask for.
create table taskgate.webhook_endpoint (
    endpoint_id     text collate "C" primary key,
    -- Grows with every edit.
    version         bigint not null,
    enabled         boolean not null,
    -- Why taskgate disabled it; null if a person did.
    disabled_reason text,
    secret          text not null,
    -- The previous secret, which also signs until `old_until`.
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
    -- When to try it next; while a replica sends it, when another replica may take it over.
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
    -- Host and port; the number of simultaneous deliveries to one target is limited.
    target       text collate "C" not null,
    last_error   text,
    payload      text not null,
    constraint webhook_delivery_next_iff_pending check ((next_at is not null) = (state = 'pending'))
);
create unique index webhook_delivery_id_key on taskgate.webhook_delivery (delivery_id);
create index webhook_delivery_due on taskgate.webhook_delivery (next_at, delivery_no) where next_at is not null;
create index webhook_delivery_endpoint on taskgate.webhook_delivery (endpoint_id, delivery_no);
create index webhook_delivery_task on taskgate.webhook_delivery (task_id, delivery_no);


-- The feed position up to which traces were exported, where a restarted or another replica continues. At most one row.
create table taskgate.trace_mark (
    only_row boolean primary key default true,
    feed     bigint not null,
    constraint trace_mark_one_row check (only_row)
);

-- Fan-outs: calls that become more tasks than one transaction should write. They are accepted as one row, and their tasks are written in pieces.

create table taskgate.fan_out (
    fan_out_no   bigint generated always as identity primary key,
    group_id     text collate "C" not null,
    root_id      text collate "C" not null,
    total        integer not null,
    -- How many tasks are written. The row is deleted with the last piece.
    written      integer not null default 0,
    submitted_at bigint not null,
    -- JSON from which the tasks are built.
    plan         text not null,
    constraint fan_out_written check (written between 0 and total)
);

-- Problems that a reconciler (`source`) found but cannot repair. Every replica reports them as incidents.
create table taskgate.finding (
    source  text collate "C" not null,
    kind    text collate "C" not null,
    subject text collate "C" not null,
    since   bigint not null,
    detail  text not null,
    primary key (source, kind, subject)
);

-- Incidents, open and closed, with acknowledgements and mutes. One replica at a time writes detected incidents. `incident_id` is derived from
-- kind and subject.
create table taskgate.incident (
    incident_no     bigint generated always as identity primary key,
    incident_id     text collate "C" not null,
    kind            text collate "C" not null,
    subject         text collate "C" not null,
    since           bigint not null,
    detail          text not null,
    -- JSON: names of the channels to notify.
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

-- Notices that are still to be sent to a channel. A row is deleted when the notice was sent or given up.
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

-- Operations on many tasks. One replica works on an operation; each step advances the row in the transaction that counts the step's outcome.
create table taskgate.bulk (
    bulk_no     bigint generated always as identity primary key,
    bulk_id     text collate "C" not null,
    action      text collate "C" not null check (action in ('retry', 'revoke', 'requeue', 'dismiss')),
    state       text collate "C" not null check (state in ('running', 'paused', 'cancelled', 'done')),
    -- JSON: which tasks, for whom, and how fast.
    plan        text not null,
    -- The hash of the request, to recognise a repetition.
    fingerprint text collate "C" not null,
    who         text not null,
    -- The token's id: a limited token sees only its own operations.
    who_id      text collate "C",
    -- How many steps are done. `at_no`: all tasks with this number and above are done.
    steps       integer not null default 0,
    at_no       bigint,
    total       bigint,
    done        bigint not null default 0,
    skipped     bigint not null default 0,
    failed      bigint not null default 0,
    -- JSON: the number of tasks by outcome. `errors`: the last refusals.
    outcomes    text not null default '{}',
    errors      text not null default '[]',
    created_at  bigint not null,
    changed_at  bigint not null,
    finished_at bigint,
    constraint bulk_finished check ((finished_at is not null) = (state in ('cancelled', 'done')))
);
create unique index bulk_id_key on taskgate.bulk (bulk_id);
create index bulk_running on taskgate.bulk (bulk_no) where state = 'running';

-- The audit log: who did what. A row is opened with the act and sealed with its outcome; sealing appends it to a chain of hashes.
create table taskgate.audit (
    audit_no  bigint generated always as identity primary key,
    audit_id  text collate "C" not null,
    -- The position in the chain; null until the row is sealed.
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

-- The last position and hash of the chain. One row.
create table taskgate.audit_head (
    only_row boolean primary key default true,
    chain_no bigint not null,
    hash     bytea not null,
    constraint audit_head_one_row check (only_row)
);
insert into taskgate.audit_head (chain_no, hash) values (0, '\x');
-- Steps that wait for an answer or for a time. The gateway is their worker and keeps their messages here, so that a waiting step has no
-- message in the broker.
create table taskgate.wait (
    task_id       text collate "C" primary key,
    is_sleep      boolean not null,
    name          text not null,
    since         bigint not null,
    expires_at    bigint not null,
    schema        text,
    on_timeout    text collate "C" not null check (on_timeout in ('fail', 'skip')),
    -- The result of the previous step.
    input         text,
    -- The id of the token that submitted the step.
    token         text collate "C",
    headers       text not null,
    body          text not null,
    state         text collate "C" not null check (state in ('open', 'answered', 'refused', 'expired', 'revoked')),
    answer        text,
    ended_at      bigint,
    -- Whether the next step was sent. Until then, one replica at a time tries to send it.
    settled       boolean not null default false,
    claimed_by    text collate "C",
    claimed_until bigint,
    constraint wait_ended_iff_not_open check ((ended_at is not null) = (state <> 'open'))
);
create index wait_expires on taskgate.wait (expires_at) where state = 'open';
create index wait_open on taskgate.wait (since, task_id) where state = 'open';
create index wait_unsettled on taskgate.wait (ended_at) where state <> 'open' and not settled;
create index wait_settled on taskgate.wait (ended_at) where settled;

-- Secrets that all replicas share. The replica that needs a secret first creates it.
create table taskgate.secret (
    name  text collate "C" primary key,
    value bytea not null
);

-- Task logs: one row for lines that arrived together. Lines are numbered within the task.
create table taskgate.task_log (
    task_no  bigint not null,
    -- The number of the row's first line, from 1.
    first_no bigint not null,
    count    integer not null,
    attempt  integer not null,
    -- The state of the attempt's log after this row: the number of the next new line, the bytes of text so far, when the present run began, and
    -- whether the size limit was reached.
    next_seq bigint not null,
    bytes    bigint not null,
    began_at bigint not null,
    closed   boolean not null,
    -- When the row was written.
    at       bigint not null,
    -- JSON: the lines.
    lines    text not null,
    primary key (task_no, first_no)
);
create unique index task_log_attempt on taskgate.task_log (task_no, attempt, first_no);
create index task_log_at on taskgate.task_log (at);

-- DAGs: each as one document, to show and to resume it, and the parts that a gateway still has to send. A part's row is deleted in the
-- transaction that sends the part.

create table taskgate.dag (
    root_id      text collate "C" primary key,
    -- As `id` in `task`.
    root_key     uuid not null,
    submitted_at bigint not null,
    -- JSON: the signature with the ids of its tasks.
    document     text not null
);
create index dag_submitted on taskgate.dag (submitted_at);

create table taskgate.dag_part (
    part_no  bigint generated always as identity primary key,
    -- The first of the part's first tasks, which all wait for the same tasks.
    task_no  bigint not null,
    -- JSON from which the messages are built.
    document text not null
);
