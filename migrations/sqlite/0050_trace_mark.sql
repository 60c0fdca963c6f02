-- Up to where the feed was told to the trace collector, so that a restart or another replica goes on from there. At most one row.
create table trace_mark (
    only_row boolean primary key default true,
    feed     integer not null,
    constraint trace_mark_one_row check (only_row)
);
