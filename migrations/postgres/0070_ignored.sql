-- A task that a living worker took, acknowledged and said no more of ends as `ignored`: it is neither lost nor failed.
alter table taskgate.task drop constraint task_phase_known;
alter table taskgate.task add constraint task_phase_known check (phase in ('accepted', 'held', 'waiting', 'queued', 'received',
    'running', 'retrying', 'succeeded', 'failed', 'revoked', 'expired', 'skipped', 'lost', 'ignored')) not valid;
alter table taskgate.task drop constraint task_final_iff_finished;
alter table taskgate.task add constraint task_final_iff_finished check ((finished_at is not null) =
    (phase in ('succeeded', 'failed', 'revoked', 'expired', 'skipped', 'lost', 'ignored'))) not valid;

-- What a reconciler found out and cannot repair; every replica tells it as an incident. `source` is the reconciler.
create table taskgate.finding (
    source  text collate "C" not null,
    kind    text collate "C" not null,
    subject text collate "C" not null,
    since   bigint not null,
    detail  text not null,
    primary key (source, kind, subject)
);
