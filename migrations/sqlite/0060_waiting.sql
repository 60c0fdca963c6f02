-- Tasks that wait for a predecessor are found without reading all that are queued.
alter table unfinished add column waits integer not null default 0;
update unfinished set waits = 1 where task_no in (select task_no from task where phase = 'waiting');
create index unfinished_waits on unfinished (task_no) where waits;
