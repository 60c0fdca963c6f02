-- Limits on what is published: a task that has to wait does so in the outbox, at the gate that stopped it, in the order of
-- acceptance. A gate is a rate (`rate <task>`) or a key (`key <key>`) of which only so many tasks may be under way.

alter table outbox add column gate text;
-- How many tasks of the key may be under way for this one to go; null at a rate.
alter table outbox add column gate_max integer;
create index outbox_gate on outbox (gate, task_no) where gate is not null;

-- When the next task may pass a rate.
create table gate_rate (
    gate     text primary key,
    opens_at integer not null
);

-- Published tasks of a key that have not ended. Removed in the transaction that ends the task, whatever the end.
create table gate_hold (
    gate    text not null,
    task_no integer not null,
    primary key (gate, task_no)
);
create index gate_hold_task on gate_hold (task_no);
