-- What remote control must remember across restarts and tell every replica.

create table taskgate.worker (
    hostname   text collate "C" primary key,
    seen_at    bigint not null,
    offline_at bigint,
    -- JSON: what is known of the worker.
    facts      text not null
);

-- Workers that were told to leave a paused queue alone: they are told to come back when it is resumed.
create table taskgate.pause_consumer (
    queue    text collate "C" not null,
    hostname text collate "C" not null,
    primary key (queue, hostname)
);

-- Revokes that still matter: told again to workers that come online.
create table taskgate.revocation (
    task_id      text collate "C" primary key,
    requested_at bigint not null,
    terminate    boolean not null,
    signal       text not null,
    reason       text
);
