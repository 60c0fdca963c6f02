-- The inbox: calls in the transactions of other applications, which become tasks when the transaction commits. Installed in the ledger's
-- database by `taskgate migrate` and in any other by `taskgate inbox install`; safe to run again, also by a newer release.
--
-- A role that may execute `taskgate.enqueue` can do nothing else here: the function runs with its owner's rights, and the table is closed.
-- An existing inbox is in use, so this script takes no lock that an open transaction with a call would block.
set local client_min_messages = warning;
create schema if not exists taskgate;

do $$
begin
    if to_regclass('taskgate.inbox') is not null then
        return;
    end if;
    create table taskgate.inbox (
        inbox_no    bigint generated always as identity primary key,
        -- The id that `enqueue` returned.
        task_id     text collate "C" not null,
        task        text collate "C" not null,
        -- Microseconds since 1970.
        enqueued_at bigint not null,
        -- JSON, like the body of `POST /v1/tasks`.
        call        text not null
    ) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
    create index inbox_task on taskgate.inbox (task_id);
end
$$;

-- Checks that a text is JSON of one kind; the error names the argument.
create or replace function taskgate.inbox_json(argument text, given text, kind text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    found text;
begin
    if given is null then
        raise exception using errcode = 'null_value_not_allowed', message = format('taskgate.enqueue: %s is null', argument),
            hint = format('leave %s out, or write it as a JSON %s', argument, kind);
    end if;
    begin
        found := json_typeof(given::json);
    exception when invalid_text_representation or untranslatable_character then
        raise exception using errcode = 'invalid_text_representation', message = format('taskgate.enqueue: %s is not JSON: %s', argument, sqlerrm),
            hint = format('write a JSON %s as text, as %s', argument, case kind when 'array' then '[1, "two"]' else '{"key": 1}' end);
    end;
    if found <> kind then
        raise exception using errcode = 'invalid_parameter_value',
            message = format('taskgate.enqueue: %s must be a JSON %s, not %s', argument, kind, found);
    end if;
    return btrim(given, E' \t\n\r');
end
$$;

create or replace function taskgate.enqueue(task text, args text default '[]', kwargs text default '{}', options text default '{}')
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    id         text;
    inner_text text;
begin
    if task is null or btrim(task, E' \t\n\r') = '' then
        raise exception using errcode = 'invalid_parameter_value', message = 'taskgate.enqueue: task is empty',
            hint = 'name the task as its worker registers it, as app.send';
    end if;
    args := taskgate.inbox_json('args', args, 'array');
    kwargs := taskgate.inbox_json('kwargs', kwargs, 'object');
    options := taskgate.inbox_json('options', options, 'object');
    if exists (select 1 from json_object_keys(options::json) as key where key in ('task', 'args', 'kwargs', 'chain', 'group', 'chord')) then
        raise exception using errcode = 'invalid_parameter_value',
            message = 'taskgate.enqueue: options may not have task, args, kwargs, chain, group or chord',
            hint = 'task, args and kwargs are arguments of the function';
    end if;
    inner_text := btrim(substr(options, 2, length(options) - 2), E' \t\n\r');
    id := options::json ->> 'task_id';
    if id is null then
        -- A UUID of version 7, which begins with the time in milliseconds.
        id := encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
            placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid;
        inner_text := inner_text || case inner_text when '' then '' else ', ' end || '"task_id": ' || to_json(id)::text;
    end if;
    insert into taskgate.inbox (task_id, task, enqueued_at, call)
        values (id, task, (extract(epoch from clock_timestamp()) * 1000000)::bigint,
            '{"task": ' || to_json(task)::text || ', "args": ' || args || ', "kwargs": ' || kwargs || ', ' || inner_text || '}');
    perform pg_notify('taskgate_inbox', '');
    return id;
end
$$;

-- The same for arguments of the type `jsonb`.
create or replace function taskgate.enqueue(task text, args jsonb, kwargs jsonb default '{}', options jsonb default '{}')
returns text language sql set search_path = pg_catalog, pg_temp as $$
    select taskgate.enqueue(task, args::text, kwargs::text, options::text)
$$;

-- A chain, group or chord, like the body of `POST /v1/tasks`. `answers` is the `task_id` of one of its steps, which readers will ask for;
-- by it the gateway also recognises a canvas that it has already taken.
create or replace function taskgate.enqueue_canvas(signature text, answers text)
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    signature := taskgate.inbox_json('signature', signature, 'object');
    if answers is null or answers = '' or position('"task_id"' in signature) = 0 or position(to_json(answers)::text in signature) = 0 then
        raise exception using errcode = 'invalid_parameter_value', message = 'taskgate.enqueue_canvas: answers is not the task_id of a step',
            hint = 'give the last step of a chain, the body of a chord or a member of a group a task_id, and write the same id here';
    end if;
    insert into taskgate.inbox (task_id, task, enqueued_at, call)
        values (answers, '', (extract(epoch from clock_timestamp()) * 1000000)::bigint, signature);
    perform pg_notify('taskgate_inbox', '');
    return answers;
end
$$;

revoke all on table taskgate.inbox from public;
revoke all on function taskgate.inbox_json(text, text, text) from public;
revoke all on function taskgate.enqueue(text, text, text, text) from public;
revoke all on function taskgate.enqueue(text, jsonb, jsonb, jsonb) from public;
revoke all on function taskgate.enqueue_canvas(text, text) from public;
