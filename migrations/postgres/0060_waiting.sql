-- Tasks that wait for a predecessor are found without reading all that are queued.
alter table taskgate.unfinished add column waits boolean not null default false;
update taskgate.unfinished u set waits = true from taskgate.task t where t.task_no = u.task_no and t.phase = 'waiting';
create index unfinished_waits on taskgate.unfinished (task_no) where waits;
