-- Finds queued tasks whose time is over. The column never changes, so a transition still touches no index.

create index task_expires on task (expires_at) where expires_at is not null;
