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
        'succeeded', 'failed', 'revoked', 'expired', 'skipped', 'lost', 'ignored')),
    constraint task_final_iff_finished check ((finished_at is not null) =
        (phase in ('succeeded', 'failed', 'revoked', 'expired', 'skipped', 'lost', 'ignored'))),
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
    at_worker boolean not null default 0,
    -- It waits for a predecessor.
    waits     boolean not null default 0
);
create index unfinished_waits on unfinished (task_no) where waits;
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
    parked      boolean not null default 0,
    -- The limit at which it waits: a rate (`rate <task>`, `pace <key>`) or a key (`key <key>`) of which only so many tasks may be under way.
    gate        text,
    -- How many tasks of the key may be under way for this one to go; null at a rate.
    gate_max    integer,
    -- The queue in whose line it waits for room in the window, its rank there (the lowest goes first), and the key whose turn it needs.
    line        text,
    rank        integer,
    share       text
);
create index outbox_line on outbox (line, rank, share, task_no) where line is not null;
create index outbox_gate on outbox (gate, task_no) where gate is not null;
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
    kind    text not null check (kind in ('next', 'link', 'link_error', 'after')),
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
    -- Whose words the keys of its call are.
    namespace     text,
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

-- What remote control must remember across restarts and tell every replica.

create table worker (
    hostname   text primary key,
    seen_at    integer not null,
    offline_at integer,
    -- JSON: what is known of the worker.
    facts      text not null
);

-- Workers that were told to leave a paused queue alone: they are told to come back when it is resumed.
create table pause_consumer (
    queue    text not null,
    hostname text not null,
    primary key (queue, hostname)
);

-- Revokes that still matter: told again to workers that come online.
create table revocation (
    task_id      text primary key,
    requested_at integer not null,
    terminate    boolean not null,
    signal       text not null,
    reason       text
);

-- Figures by minute, by hour and for all time, folded from the feed: a restart loses none, every replica shows the same.

-- The feed's position up to which events are in the figures. One row.
create table stat_mark (
    only_row boolean primary key default true,
    feed     integer not null,
    constraint stat_mark_one_row check (only_row)
);
insert into stat_mark (feed) values (0);

create table stat (
    -- Seconds: 60, 3600, or 0 for all time.
    span    integer not null,
    -- Microseconds: where the span begins; 0 for all time.
    at      integer not null,
    measure text not null,
    -- Of a histogram; -1 for a plain count.
    bucket  integer not null,
    -- The task's name; for the measure `error` the kind's fingerprint.
    name    text not null,
    queue   text not null,
    amount  integer not null,
    primary key (span, measure, at, name, queue, bucket)
);

create table failure_kind (
    fingerprint  text primary key,
    name         text not null,
    type         text not null,
    frame        text,
    message      text not null,
    first_at     integer not null,
    last_at      integer not null,
    last_task_id text not null
);

-- Who may call: bearer tokens by their hash, and tickets for streams.

create table token (
    token_id     text primary key,
    name         text not null,
    -- SHA-256 of the token: the token itself is nowhere.
    hash         blob not null,
    -- JSON: a list of scopes.
    scopes       text not null,
    -- JSON: a list of patterns of task names; an empty one is no limit.
    tasks        text not null,
    -- As a task's rate_limit: 100/m.
    rate         text,
    created_at   integer not null,
    expires_at   integer,
    -- Who logged in, when this is a session of the dashboard.
    person       text,
    revoked_at   integer,
    last_used_at integer,
    -- Whose words its keys are (limits, unique, Idempotency-Key). Null: its name's.
    namespace    text,
    constraint token_hash_is_sha256 check (length(hash) = 32)
);
create unique index token_hash on token (hash);
create unique index token_name on token (name) where revoked_at is null;

-- Grows with every change of a token that replicas must know of. One row.
create table token_change (
    only_row integer primary key default 1,
    version  integer not null,
    constraint token_change_one_row check (only_row = 1)
);
insert into token_change (version) values (0);

-- Of one use, for clients that cannot send a header. A replica that takes it removes it.
create table stream_ticket (
    hash       blob primary key,
    -- The token that it stands for.
    token_hash blob not null,
    expires_at integer not null
);
create index stream_ticket_end on stream_ticket (expires_at);

-- Webhooks: who is told, and what each was told. Deliveries are derived from the feed behind a mark that moves in the same
-- transaction, so that every matching event becomes one delivery, once.

-- The feed's position up to which events became deliveries. One row.
create table webhook_mark (
    only_row boolean primary key default true,
    feed     integer not null,
    constraint webhook_mark_one_row check (only_row)
);
insert into webhook_mark (feed) values (0);

-- Registered endpoints, and two rows of our own whose secrets sign what the catalog and submissions ask for.
create table webhook_endpoint (
    endpoint_id     text primary key,
    -- Grows with every edit.
    version         integer not null,
    enabled         boolean not null,
    -- Why it was switched off, when nobody asked for that.
    disabled_reason text,
    secret          text not null,
    -- Signs too, until `old_until`.
    old_secret      text,
    old_until       integer,
    created_at      integer not null,
    updated_at      integer not null,
    document        text not null,
    constraint webhook_endpoint_overlap check ((old_secret is null) = (old_until is null))
);

create table webhook_delivery (
    delivery_no  integer primary key autoincrement,
    task_no      integer not null,
    seq          integer not null,
    created_at   integer not null,
    give_up_at   integer not null,
    -- When it is tried again, or may be taken from a sender that died.
    next_at      integer,
    last_at      integer,
    delivered_at integer,
    attempts     integer not null,
    last_status  integer,
    delivery_id  text not null,
    endpoint_id  text not null,
    task_id      text not null,
    task_name    text,
    kind         text not null,
    state        text not null check (state in ('pending', 'delivered', 'failed')),
    url          text not null,
    -- Host and port: what is sent there at the same time is bounded.
    target       text not null,
    last_error   text,
    payload      text not null,
    constraint webhook_delivery_next_iff_pending check ((next_at is not null) = (state = 'pending'))
);
create unique index webhook_delivery_id_key on webhook_delivery (delivery_id);
create index webhook_delivery_due on webhook_delivery (next_at, delivery_no) where next_at is not null;
create index webhook_delivery_endpoint on webhook_delivery (endpoint_id, delivery_no);
create index webhook_delivery_task on webhook_delivery (task_id, delivery_no);

-- Tasks that ask for webhooks themselves.
create index task_webhooks on task (task_no) where options like '%"webhooks":%';

-- When the next task may pass a rate.
create table gate_rate (
    gate     text primary key,
    opens_at integer not null,
    -- The least time between two tasks, as the last one said.
    spacing  integer
);
create index gate_rate_opens on gate_rate (opens_at);

-- Published tasks of a key that have not ended. Removed in the transaction that ends the task, whatever the end.
create table gate_hold (
    gate    text not null,
    task_no integer not null,
    -- How many may be under way, as the task says.
    most    integer,
    primary key (gate, task_no)
);
create index gate_hold_task on gate_hold (task_no);

-- What an owner says of a key by hand.
create table limit_rule (
    key        text primary key,
    most       integer,
    rate       text,
    paused     boolean not null,
    changed_at integer not null
);

-- Published tasks of queues with a window that no worker has received. Removed in the transaction that hears of it.
create table window_slot (
    task_no integer primary key,
    queue   text not null
);
create index window_slot_queue on window_slot (queue);

-- Keys that take turns in a line. The smallest turn is next.
create table line_share (
    queue  text not null,
    rank   integer not null,
    share  text not null,
    turn   integer not null,
    weight integer not null,
    primary key (queue, rank, share)
);
create index line_share_turn on line_share (queue, rank, turn, share);

-- Calls that become more tasks than one transaction should write: accepted whole, written out piece by piece.

create table fan_out (
    fan_out_no   integer primary key autoincrement,
    group_id     text not null,
    root_id      text not null,
    total        integer not null,
    -- Tasks that are written. The row goes with the last of them.
    written      integer not null default 0,
    submitted_at integer not null,
    -- JSON: what the tasks are made from.
    plan         text not null,
    constraint fan_out_written check (written between 0 and total)
);

-- Finds queued tasks whose time is over. The column never changes, so a transition still touches no index.
create index task_expires on task (expires_at) where expires_at is not null;

-- Up to where the feed was told to the trace collector, so that a restart or another replica goes on from there. At most one row.
create table trace_mark (
    only_row boolean primary key default true,
    feed     integer not null,
    constraint trace_mark_one_row check (only_row)
);

-- What a reconciler found out and cannot repair; every replica tells it as an incident. `source` is the reconciler.
create table finding (
    source  text not null,
    kind    text not null,
    subject text not null,
    since   integer not null,
    detail  text not null,
    primary key (source, kind, subject)
);

-- Incidents: which are open, what people said about them, which are over. One replica at a time writes what was found. `incident_id`
-- is the same for the same kind and subject.
create table incident (
    incident_no     integer primary key autoincrement,
    incident_id     text not null,
    kind            text not null,
    subject         text not null,
    since           integer not null,
    detail          text not null,
    -- JSON: names of who is told of it.
    channels        text not null,
    ended_at        integer,
    acknowledged_at integer,
    acknowledged_by text,
    muted_until     integer,
    constraint incident_acknowledged check ((acknowledged_at is null) = (acknowledged_by is null))
);
create unique index incident_open on incident (incident_id) where ended_at is null;
create index incident_by_id on incident (incident_id, incident_no);
create index incident_ended on incident (ended_at) where ended_at is not null;

-- What somebody outside is still to be told. A row goes when it was sent or given up.
create table incident_notice (
    notice_no   integer primary key autoincrement,
    incident_no integer not null references incident,
    channel     text not null,
    is_end      boolean not null,
    created_at  integer not null,
    due_at      integer not null,
    tries       integer not null default 0
);
create index incident_notice_of on incident_notice (incident_no);

-- What is done to many tasks at once: the operation is the row, one replica works on it, and each step moves its place in the
-- transaction that counts what the step did.
create table bulk (
    bulk_no     integer primary key autoincrement,
    bulk_id     text not null,
    action      text not null check (action in ('retry', 'revoke', 'requeue', 'dismiss')),
    state       text not null check (state in ('running', 'paused', 'cancelled', 'done')),
    -- JSON: which tasks, for whom, how fast.
    plan        text not null,
    -- Tells whether a repeated request is the same.
    fingerprint text not null,
    who         text not null,
    -- The token's id: a limited token sees its own.
    who_id      text,
    -- Steps that are done, and the task number above which all is done.
    steps       integer not null default 0,
    at_no       integer,
    total       integer,
    done        integer not null default 0,
    skipped     integer not null default 0,
    failed      integer not null default 0,
    -- JSON: how many ended how, and the last refusals.
    outcomes    text not null default '{}',
    errors      text not null default '[]',
    created_at  integer not null,
    changed_at  integer not null,
    finished_at integer,
    constraint bulk_finished check ((finished_at is not null) = (state in ('cancelled', 'done')))
);
create unique index bulk_id_key on bulk (bulk_id);
create index bulk_running on bulk (bulk_no) where state = 'running';

-- Who did what. A row is opened with the act and sealed with its verdict; sealing appends it to a chain of hashes.
create table audit (
    audit_no  integer primary key autoincrement,
    audit_id  text not null,
    -- The place in the chain; null until the verdict is known.
    chain_no  integer,
    opened_at integer not null,
    sealed_at integer,
    who       text not null,
    who_id    text,
    what      text not null,
    target    text not null,
    origin    text,
    status    integer,
    verdict   text,
    detail    text,
    hash      blob,
    constraint audit_sealed_whole check ((chain_no is null) = (hash is null) and (chain_no is null) = (sealed_at is null))
);
create unique index audit_id_key on audit (audit_id);
create unique index audit_chain on audit (chain_no) where chain_no is not null;
create index audit_open on audit (opened_at) where chain_no is null;

-- The end of the chain. One row.
create table audit_head (
    only_row boolean primary key default true,
    chain_no integer not null,
    hash     blob not null,
    constraint audit_head_one_row check (only_row)
);
insert into audit_head (chain_no, hash) values (0, x'');
-- Steps that wait for an answer or for a time. The gateway is their worker: the message is kept here, so nothing of a step that
-- waits is in the broker.
create table wait (
    task_id       text primary key,
    is_sleep      boolean not null,
    name          text not null,
    since         integer not null,
    expires_at    integer not null,
    schema        text,
    on_timeout    text not null check (on_timeout in ('fail', 'skip')),
    -- What the step before it returned.
    input         text,
    -- Of the token that submitted the step.
    token         text,
    headers       text not null,
    body          text not null,
    state         text not null check (state in ('open', 'answered', 'refused', 'expired', 'revoked')),
    answer        text,
    ended_at      integer,
    -- What follows was sent. Until then one replica at a time tries.
    settled       boolean not null default false,
    claimed_by    text,
    claimed_until integer,
    constraint wait_ended_iff_not_open check ((ended_at is not null) = (state <> 'open'))
);
create index wait_expires on wait (expires_at) where state = 'open';
create index wait_open on wait (since, task_id) where state = 'open';
create index wait_unsettled on wait (ended_at) where state <> 'open' and not settled;
create index wait_settled on wait (ended_at) where settled;

-- Keys of the whole installation, made by whoever needs them first.
create table secret (
    name  text primary key,
    value blob not null
);

-- What tasks logged: one row for lines that came together, numbered through the task.
create table task_log (
    task_no  integer not null,
    -- Of its first line, from 1.
    first_no integer not null,
    count    integer not null,
    attempt  integer not null,
    -- How far the attempt's log has come with this row: the next line that is new, its bytes of text, when its present run began, and
    -- whether the bound was reached.
    next_seq integer not null,
    bytes    integer not null,
    began_at integer not null,
    closed   boolean not null,
    -- When it was written down.
    at       integer not null,
    -- JSON.
    lines    text not null,
    primary key (task_no, first_no)
);
create unique index task_log_attempt on task_log (task_no, attempt, first_no);
create index task_log_at on task_log (at);

-- DAGs: the whole as a document, to resume it and to show it; and the parts that a gateway has to send. The row of a part goes in the
-- transaction that sends it.

create table dag (
    root_id      text primary key,
    submitted_at integer not null,
    -- JSON: the signature with the ids of its tasks.
    document     text not null
);
create index dag_submitted on dag (submitted_at);

create table dag_part (
    part_no  integer primary key autoincrement,
    -- The first of the tasks that start it; all of them wait for the same.
    task_no  integer not null,
    -- JSON: what their messages are made from.
    document text not null
);
