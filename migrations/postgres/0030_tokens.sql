-- Who may call: bearer tokens by their hash, and tickets for streams.

create table taskgate.token (
    token_id     text collate "C" primary key,
    name         text collate "C" not null,
    -- SHA-256 of the token: the token itself is nowhere.
    hash         bytea not null,
    -- JSON: a list of scopes.
    scopes       text not null,
    -- JSON: a list of patterns of task names; an empty one is no limit.
    tasks        text not null,
    -- As a task's rate_limit: 100/m.
    rate         text,
    created_at   bigint not null,
    expires_at   bigint,
    revoked_at   bigint,
    last_used_at bigint,
    constraint token_hash_is_sha256 check (octet_length(hash) = 32)
);
create unique index token_hash on taskgate.token (hash);
create unique index token_name on taskgate.token (name) where revoked_at is null;

-- Grows with every change of a token that replicas must know of. One row.
create table taskgate.token_change (
    only_row boolean primary key default true,
    version  bigint not null,
    constraint token_change_one_row check (only_row)
);
insert into taskgate.token_change (version) values (0);

-- Of one use, for clients that cannot send a header. A replica that takes it removes it.
create table taskgate.stream_ticket (
    hash       bytea primary key,
    -- The token that it stands for.
    token_hash bytea not null,
    expires_at bigint not null
);
create index stream_ticket_end on taskgate.stream_ticket (expires_at);
