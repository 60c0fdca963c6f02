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
    revoked_at   integer,
    last_used_at integer,
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
