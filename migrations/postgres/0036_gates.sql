-- Limits on what is published: a task that has to wait does so in the outbox, at the gate that stopped it, in the order of
-- acceptance. A gate is a rate (`rate <task>`) or a key (`key <key>`) of which only so many tasks may be under way.

alter table taskgate.outbox add column gate text collate "C";
-- How many tasks of the key may be under way for this one to go; null at a rate.
alter table taskgate.outbox add column gate_max integer;
create index outbox_gate on taskgate.outbox (gate, task_no) where gate is not null;

-- When the next task may pass a rate.
create table taskgate.gate_rate (
    gate     text collate "C" primary key,
    opens_at bigint not null
);

-- Published tasks of a key that have not ended. Removed in the transaction that ends the task, whatever the end.
create table taskgate.gate_hold (
    gate    text collate "C" not null,
    task_no bigint not null,
    primary key (gate, task_no)
);
create index gate_hold_task on taskgate.gate_hold (task_no);
