-- The ledger on SQLite. One process writes, so the feed is a plain sequence of positions. Times are integers (microseconds since 1970, UTC),
-- because times as SQLite's texts do not sort.

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
    -- Null if the task is its own root.
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

-- Tasks that are not final; `at_worker` once a worker has reported that it has the task.
create table unfinished (
    task_no   integer primary key,
    at_worker boolean not null default 0,
    -- Whether the task waits for a predecessor.
    waits     boolean not null default 0
);
create index unfinished_waits on unfinished (task_no) where waits;
create index unfinished_at_worker on unfinished (task_no) where at_worker;

-- Tasks that ended without success. `dead` until they are deleted or re-queued as dead letters.
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

-- Tasks to publish. `wake_at` is when a pass must check the task: its start time or its expiry.
create table outbox (
    task_no     integer primary key,
    wake_at     integer not null,
    accepted_at integer not null,
    queue       text not null,
    -- Whether the task waits until its paused queue is resumed.
    parked      boolean not null default 0,
    -- The limit at which the task waits: a rate (`rate <task>`, `pace <key>`) or a maximum of tasks under way (`key <key>`).
    gate        text,
    -- The maximum of tasks under way, as this task says; null at a rate.
    gate_max    integer,
    -- The queue in whose line the task waits for room in the window, its rank there (the lowest goes first), and its fair-share key.
    line        text,
    rank        integer,
    share       text
);
create index outbox_line on outbox (line, rank, share, task_no) where line is not null;
create index outbox_gate on outbox (gate, task_no) where gate is not null;
create index outbox_wake on outbox (wake_at, task_no);
create index outbox_parked on outbox (queue, task_no) where parked;

-- Every change of every task. `feed` is the order over all tasks.
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

-- `expires_at` is the highest number while the key is held until its task is final.
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
    -- Grows with every edit, but not when the schedule fires.
    version       integer not null,
    paused        boolean not null,
    created_at    integer not null,
    updated_at    integer not null,
    -- Intervals count from this time.
    anchor_at     integer not null,
    -- The next tick, and when it fires (the tick plus its jitter). Null while paused and after the last tick.
    next_run_at   integer,
    due_at        integer,
    last_tick_at  integer,
    last_run_at   integer,
    -- The numbers of the first and the last task of the last firing.
    last_first_no integer,
    last_last_no  integer,
    last_task_id  text,
    document      text not null,
    -- The namespace of the keys in its call.
    namespace     text,
    constraint schedule_due_iff_next check ((due_at is null) = (next_run_at is null)),
    constraint schedule_paused_has_no_next check (not paused or next_run_at is null),
    constraint schedule_only_moves_forward check (next_run_at > last_tick_at)
);
create unique index schedule_name_key on schedule (name);
create index schedule_due on schedule (due_at) where due_at is not null;

-- The outcome of each tick.
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

-- Names of schedules that the configuration has created. They are not created again, also not after a deletion.
create table schedule_seed (
    name      text primary key,
    seeded_at integer not null
);

-- State of remote control that must survive restarts and be the same for every replica.

create table worker (
    hostname   text primary key,
    seen_at    integer not null,
    offline_at integer,
    -- JSON: what is known about the worker.
    facts      text not null
);

-- Workers that were told to stop consuming a paused queue. When it is resumed, they are told to consume it again.
create table pause_consumer (
    queue    text not null,
    hostname text not null,
    primary key (queue, hostname)
);

-- Revokes that still apply. They are sent again to workers that come online.
create table revocation (
    task_id      text primary key,
    requested_at integer not null,
    terminate    boolean not null,
    signal       text not null,
    reason       text
);

-- Statistics by minute, by hour and for all time, computed from the feed: a restart loses nothing, and every replica shows the same.

-- The feed position up to which events are in the statistics. One row.
create table stat_mark (
    only_row boolean primary key default true,
    feed     integer not null,
    constraint stat_mark_one_row check (only_row)
);
insert into stat_mark (feed) values (0);

create table stat (
    -- The length in seconds: 60, 3600, or 0 for all time.
    span    integer not null,
    -- The beginning of the span, in microseconds; 0 for all time.
    at      integer not null,
    measure text not null,
    -- The bucket of a histogram; -1 for a plain count.
    bucket  integer not null,
    -- The task's name; for the measure `error`, the fingerprint of the kind of failure.
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

-- Access: bearer tokens by their hash, and tickets for streams.

create table token (
    token_id     text primary key,
    name         text not null,
    -- SHA-256 of the token; the token itself is not stored.
    hash         blob not null,
    -- JSON: a list of scopes.
    scopes       text not null,
    -- JSON: a list of patterns of task names; an empty list permits all.
    tasks        text not null,
    -- The token's rate limit, such as 100/m.
    rate         text,
    created_at   integer not null,
    expires_at   integer,
    -- The person who logged in, if this is a session of the dashboard.
    person       text,
    revoked_at   integer,
    last_used_at integer,
    -- The namespace of its keys (limits, unique, Idempotency-Key). Null: its name.
    namespace    text,
    constraint token_hash_is_sha256 check (length(hash) = 32)
);
create unique index token_hash on token (hash);
create unique index token_name on token (name) where revoked_at is null;

-- A version that grows with every created or revoked token, so that replicas read the tokens again. One row.
create table token_change (
    only_row integer primary key default 1,
    version  integer not null,
    constraint token_change_one_row check (only_row = 1)
);
insert into token_change (version) values (0);

-- Tickets for one use, for clients that cannot send a header. The replica that redeems a ticket deletes it.
create table stream_ticket (
    hash       blob primary key,
    -- The hash of the token that the ticket represents.
    token_hash blob not null,
    expires_at integer not null
);
create index stream_ticket_end on stream_ticket (expires_at);

-- Webhooks: endpoints and deliveries. Deliveries are derived from the feed; the transaction that writes them moves the mark, so that every
-- matching event becomes exactly one delivery.

-- The feed position up to which deliveries were written. One row.
create table webhook_mark (
    only_row boolean primary key default true,
    feed     integer not null,
    constraint webhook_mark_one_row check (only_row)
);
insert into webhook_mark (feed) values (0);

-- Registered endpoints, and two built-in ones, whose secrets sign the deliveries that the catalog and submissions ask for.
create table webhook_endpoint (
    endpoint_id     text primary key,
    -- Grows with every edit.
    version         integer not null,
    enabled         boolean not null,
    -- Why taskgate disabled it; null if a person did.
    disabled_reason text,
    secret          text not null,
    -- The previous secret, which also signs until `old_until`.
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
    -- When to try it next; while a replica sends it, when another replica may take it over.
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
    -- Host and port; the number of simultaneous deliveries to one target is limited.
    target       text not null,
    last_error   text,
    payload      text not null,
    constraint webhook_delivery_next_iff_pending check ((next_at is not null) = (state = 'pending'))
);
create unique index webhook_delivery_id_key on webhook_delivery (delivery_id);
create index webhook_delivery_due on webhook_delivery (next_at, delivery_no) where next_at is not null;
create index webhook_delivery_endpoint on webhook_delivery (endpoint_id, delivery_no);
create index webhook_delivery_task on webhook_delivery (task_id, delivery_no);

-- Tasks whose submission asked for webhooks.
create index task_webhooks on task (task_no) where options like '%"webhooks":%';

-- Rates, and when each lets the next task pass.
create table gate_rate (
    gate     text primary key,
    opens_at integer not null,
    -- The shortest interval between two tasks, as the last task said.
    spacing  integer
);
create index gate_rate_opens on gate_rate (opens_at);

-- Published tasks of a key that have not ended. A row is deleted in the transaction that ends its task.
create table gate_hold (
    gate    text not null,
    task_no integer not null,
    -- The maximum of tasks under way, as this task says.
    most    integer,
    primary key (gate, task_no)
);
create index gate_hold_task on gate_hold (task_no);

-- Rules for keys, set by hand.
create table limit_rule (
    key        text primary key,
    most       integer,
    rate       text,
    paused     boolean not null,
    changed_at integer not null
);

-- Limits at which tasks wait, each with the time from which a pass must look at it. Only passes write here.
create table gate_wait (
    gate    text primary key,
    look_at integer not null
);
create index gate_wait_look on gate_wait (look_at, gate);

-- Limits that the next pass must look at: a task has come there or gone, one under way has ended, or a rule was set.
create table gate_news (
    no   integer primary key autoincrement,
    gate text not null
);

-- Triggers write the news, so that no statement forgets it.
create trigger tell_gate_in after insert on outbox when new.gate is not null begin
    insert into gate_news (gate) values (new.gate);
end;
create trigger tell_gate_out after delete on outbox when old.gate is not null begin
    insert into gate_news (gate) values (old.gate);
end;
create trigger tell_gate_end after delete on gate_hold begin
    insert into gate_news (gate) values (old.gate);
end;
create trigger tell_gate_reset after delete on gate_rate begin
    insert into gate_news (gate) values (old.gate);
end;
create trigger tell_rule_set after insert on limit_rule begin
    insert into gate_news (gate) values ('key ' || new.key), ('pace ' || new.key);
end;
create trigger tell_rule_changed after update on limit_rule begin
    insert into gate_news (gate) values ('key ' || new.key), ('pace ' || new.key);
end;
create trigger tell_rule_reset after delete on limit_rule begin
    insert into gate_news (gate) values ('key ' || old.key), ('pace ' || old.key);
end;

-- Published tasks that no worker has received, of queues with a window. A row is deleted in the transaction that records the receipt.
create table window_slot (
    task_no integer primary key,
    queue   text not null
);
create index window_slot_queue on window_slot (queue);

-- Fair-share keys that take turns in a line. The key with the smallest turn is next.
create table line_share (
    queue  text not null,
    rank   integer not null,
    share  text not null,
    turn   integer not null,
    weight integer not null,
    primary key (queue, rank, share)
);
create index line_share_turn on line_share (queue, rank, turn, share);

-- Fan-outs: calls that become more tasks than one transaction should write. They are accepted as one row, and their tasks are written in pieces.

create table fan_out (
    fan_out_no   integer primary key autoincrement,
    group_id     text not null,
    root_id      text not null,
    total        integer not null,
    -- How many tasks are written. The row is deleted with the last piece.
    written      integer not null default 0,
    submitted_at integer not null,
    -- JSON from which the tasks are built.
    plan         text not null,
    constraint fan_out_written check (written between 0 and total)
);

-- Finds queued tasks that have expired. The column does not change with a transition, so this index costs transitions nothing.
create index task_expires on task (expires_at) where expires_at is not null;

-- The feed position up to which traces were exported, where a restarted or another replica continues. At most one row.
create table trace_mark (
    only_row boolean primary key default true,
    feed     integer not null,
    constraint trace_mark_one_row check (only_row)
);

-- Problems that a reconciler (`source`) found but cannot repair. Every replica reports them as incidents.
create table finding (
    source  text not null,
    kind    text not null,
    subject text not null,
    since   integer not null,
    detail  text not null,
    primary key (source, kind, subject)
);

-- Incidents, open and closed, with acknowledgements and mutes. One replica at a time writes detected incidents. `incident_id` is derived from
-- kind and subject.
create table incident (
    incident_no     integer primary key autoincrement,
    incident_id     text not null,
    kind            text not null,
    subject         text not null,
    since           integer not null,
    detail          text not null,
    -- JSON: names of the channels to notify.
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

-- Notices that are still to be sent to a channel. A row is deleted when the notice was sent or given up.
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

-- Operations on many tasks. One replica works on an operation; each step advances the row in the transaction that counts the step's outcome.
create table bulk (
    bulk_no     integer primary key autoincrement,
    bulk_id     text not null,
    action      text not null check (action in ('retry', 'revoke', 'requeue', 'dismiss')),
    state       text not null check (state in ('running', 'paused', 'cancelled', 'done')),
    -- JSON: which tasks, for whom, and how fast.
    plan        text not null,
    -- The hash of the request, to recognise a repetition.
    fingerprint text not null,
    who         text not null,
    -- The token's id: a limited token sees only its own operations.
    who_id      text,
    -- How many steps are done. `at_no`: all tasks with this number and above are done.
    steps       integer not null default 0,
    at_no       integer,
    total       integer,
    done        integer not null default 0,
    skipped     integer not null default 0,
    failed      integer not null default 0,
    -- JSON: the number of tasks by outcome. `errors`: the last refusals.
    outcomes    text not null default '{}',
    errors      text not null default '[]',
    created_at  integer not null,
    changed_at  integer not null,
    finished_at integer,
    constraint bulk_finished check ((finished_at is not null) = (state in ('cancelled', 'done')))
);
create unique index bulk_id_key on bulk (bulk_id);
create index bulk_running on bulk (bulk_no) where state = 'running';

-- The audit log: who did what. A row is opened with the act and sealed with its outcome; sealing appends it to a chain of hashes.
create table audit (
    audit_no  integer primary key autoincrement,
    audit_id  text not null,
    -- The position in the chain; null until the row is sealed.
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

-- The last position and hash of the chain. One row.
create table audit_head (
    only_row boolean primary key default true,
    chain_no integer not null,
    hash     blob not null,
    constraint audit_head_one_row check (only_row)
);
insert into audit_head (chain_no, hash) values (0, x'');
-- Steps that wait for an answer or for a time. The gateway is their worker and keeps their messages here, so that a waiting step has no
-- message in the broker.
create table wait (
    task_id       text primary key,
    is_sleep      boolean not null,
    name          text not null,
    since         integer not null,
    expires_at    integer not null,
    schema        text,
    on_timeout    text not null check (on_timeout in ('fail', 'skip')),
    -- The result of the previous step.
    input         text,
    -- The id of the token that submitted the step.
    token         text,
    headers       text not null,
    body          text not null,
    state         text not null check (state in ('open', 'answered', 'refused', 'expired', 'revoked')),
    answer        text,
    ended_at      integer,
    -- Whether the next step was sent. Until then, one replica at a time tries to send it.
    settled       boolean not null default false,
    claimed_by    text,
    claimed_until integer,
    constraint wait_ended_iff_not_open check ((ended_at is not null) = (state <> 'open'))
);
create index wait_expires on wait (expires_at) where state = 'open';
create index wait_open on wait (since, task_id) where state = 'open';
create index wait_unsettled on wait (ended_at) where state <> 'open' and not settled;
create index wait_settled on wait (ended_at) where settled;

-- Secrets that all replicas share. The replica that needs a secret first creates it.
create table secret (
    name  text primary key,
    value blob not null
);

-- Task logs: one row for lines that arrived together. Lines are numbered within the task.
create table task_log (
    task_no  integer not null,
    -- The number of the row's first line, from 1.
    first_no integer not null,
    count    integer not null,
    attempt  integer not null,
    -- The state of the attempt's log after this row: the number of the next new line, the bytes of text so far, when the present run began, and
    -- whether the size limit was reached.
    next_seq integer not null,
    bytes    integer not null,
    began_at integer not null,
    closed   boolean not null,
    -- When the row was written.
    at       integer not null,
    -- JSON: the lines.
    lines    text not null,
    primary key (task_no, first_no)
);
create unique index task_log_attempt on task_log (task_no, attempt, first_no);
create index task_log_at on task_log (at);

-- DAGs: each as one document, to show and to resume it, and the parts that a gateway still has to send. A part's row is deleted in the
-- transaction that sends the part.

create table dag (
    root_id      text primary key,
    submitted_at integer not null,
    -- JSON: the signature with the ids of its tasks.
    document     text not null
);
create index dag_submitted on dag (submitted_at);

create table dag_part (
    part_no  integer primary key autoincrement,
    -- The first of the part's first tasks, which all wait for the same tasks.
    task_no  integer not null,
    -- JSON from which the messages are built.
    document text not null
);
