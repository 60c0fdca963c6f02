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
