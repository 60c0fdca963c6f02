-- Webhooks: who is told, and what each was told. Deliveries are derived from the feed behind a mark that moves in the same
-- transaction, so that every matching event becomes one delivery, once.

-- The feed's position up to which events became deliveries. One row. What happened before this migration is not told.
create table webhook_mark (
    only_row boolean primary key default true,
    feed     integer not null,
    constraint webhook_mark_one_row check (only_row)
);
insert into webhook_mark (feed) select coalesce(max(feed), 0) from event;

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
