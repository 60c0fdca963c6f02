//! The statements about workers that depend on PostgreSQL's tables.

use super::numbers;
use super::pooled::Pool;
use super::workers::facts;
use crate::statements::statements;
use crate::{Error, Revocation, Worker};

statements! {
    NOTE = "insert into taskgate.worker as w (hostname, seen_at, offline_at, facts) \
         select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[]) as n(hostname, seen_at, offline_at, facts) \
         order by hostname on conflict (hostname) do update set seen_at = excluded.seen_at, offline_at = excluded.offline_at, \
         facts = excluded.facts where w.seen_at <= excluded.seen_at";
    REMEMBER = "insert into taskgate.revocation (task_id, requested_at, terminate, signal, reason, id) \
         values ($1, $2, $3, $4, $5, $6) on conflict (task_id) do update set requested_at = excluded.requested_at, \
         terminate = taskgate.revocation.terminate or excluded.terminate, signal = excluded.signal, reason = excluded.reason";
    OPEN = "select r.task_id, r.requested_at, r.terminate, r.signal, r.reason from taskgate.revocation r \
         left join lateral (select e.finished_at from taskgate.task t join taskgate.ended e on e.task_no = t.task_no where t.id = r.id) e \
         on true where e.finished_at is null or r.requested_at >= e.finished_at order by r.requested_at desc limit $1";
    FORGET_REVOCATIONS = "delete from taskgate.revocation r where r.requested_at < $1 \
         or exists (select 1 from taskgate.task t join taskgate.ended e on e.task_no = t.task_no where t.id = r.id and e.finished_at < $1)";
}

pub(super) async fn note(pool: &Pool, workers: &[Worker]) -> Result<(), Error> {
    sqlx::query(NOTE)
        .bind(workers.iter().map(|worker| worker.hostname.as_str()).collect::<Vec<_>>())
        .bind(workers.iter().map(|worker| worker.seen_at.0).collect::<Vec<_>>())
        .bind(workers.iter().map(|worker| worker.offline_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(workers.iter().map(facts).collect::<Vec<_>>())
        .execute(pool)
        .await?;
    Ok(())
}

pub(super) async fn remember(pool: &Pool, revocation: &Revocation) -> Result<(), Error> {
    sqlx::query(REMEMBER)
        .bind(revocation.task_id.as_str())
        .bind(revocation.requested_at.0)
        .bind(revocation.terminate)
        .bind(&revocation.signal)
        .bind(&revocation.reason)
        .bind(numbers::key(revocation.task_id.as_str()))
        .execute(pool)
        .await?;
    Ok(())
}
