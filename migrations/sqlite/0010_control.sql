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
