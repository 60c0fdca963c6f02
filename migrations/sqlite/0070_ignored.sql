-- A task that a living worker took, acknowledged and said no more of ends as `ignored`: it is neither lost nor failed. SQLite changes
-- no constraint of a table, so the table is made anew; the view on it is made anew after every migration.
drop view if exists celery_taskmeta;
create table task_next (
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

insert into task_next (
    task_no, submitted_at, queued_at, received_at, started_at, finished_at, due_at, expires_at, revoke_requested_at,
    seq, runtime, delivery, retries, group_index, priority, ignore_result, adopted, corrected, task_id, phase,
    status, name, queue, worker, root_id, parent_id, group_id, retry_of, retried_as, schedule, reason, labels,
    options, failure_type, failure_message, traceback, result, progress, children, argsrepr, kwargsrepr)
select
    task_no, submitted_at, queued_at, received_at, started_at, finished_at, due_at, expires_at, revoke_requested_at,
    seq, runtime, delivery, retries, group_index, priority, ignore_result, adopted, corrected, task_id, phase,
    status, name, queue, worker, root_id, parent_id, group_id, retry_of, retried_as, schedule, reason, labels,
    options, failure_type, failure_message, traceback, result, progress, children, argsrepr, kwargsrepr
from task;
-- Numbers of tasks that were pruned are not given again.
update sqlite_sequence set seq = (select seq from sqlite_sequence where name = 'task')
    where name = 'task_next' and exists (select 1 from sqlite_sequence where name = 'task');
insert into sqlite_sequence (name, seq) select 'task_next', seq from sqlite_sequence
    where name = 'task' and not exists (select 1 from sqlite_sequence where name = 'task_next');
drop table task;
alter table task_next rename to task;

create unique index task_task_id_key on task (task_id);
create index task_name on task (name, task_no);
create index task_queue on task (queue, task_no);
create index task_root on task (root_id, task_no) where root_id is not null;
create index task_group_member on task (group_id, task_no) where group_id is not null;
create index task_schedule on task (schedule, task_no) where schedule is not null;
create index task_webhooks on task (task_no) where options like '%"webhooks":%';
create index task_expires on task (expires_at) where expires_at is not null;

-- What a reconciler found out and cannot repair; every replica tells it as an incident. `source` is the reconciler.
create table finding (
    source  text not null,
    kind    text not null,
    subject text not null,
    since   integer not null,
    detail  text not null,
    primary key (source, kind, subject)
);
