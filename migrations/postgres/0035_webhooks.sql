-- Webhooks: who is told, and what each was told. Deliveries are derived from the feed behind a mark that moves in the same
-- transaction, so that every matching event becomes one delivery, once.

-- The feed's position up to which events became deliveries. One row. What happened before this migration is not told.
create table taskgate.webhook_mark (
    only_row boolean primary key default true,
    feed     bigint not null,
    constraint webhook_mark_one_row check (only_row)
);
insert into taskgate.webhook_mark (feed) select coalesce(max(feed), 0) from taskgate.event;

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

-- Tasks that ask for webhooks themselves. Transitions never write `options`, so they stay heap-only updates.
create index task_webhooks on taskgate.task (task_no) where options like '%"webhooks":%';
