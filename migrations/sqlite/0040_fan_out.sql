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
