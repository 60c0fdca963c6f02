//! The statements about workers that depend on SQLite's tables.

use sqlx::SqlitePool;

use super::pool::list;
use super::workers::facts;
use crate::statements::statements;
use crate::{Error, Revocation, Worker};

statements! {
    NOTE = "insert into worker (hostname, seen_at, offline_at, facts) \
         select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each($1) where true \
         on conflict (hostname) do update set seen_at = excluded.seen_at, offline_at = excluded.offline_at, \
         facts = excluded.facts where worker.seen_at <= excluded.seen_at";
    REMEMBER = "insert into revocation (task_id, requested_at, terminate, signal, reason) \
         values ($1, $2, $3, $4, $5) on conflict (task_id) do update set requested_at = excluded.requested_at, \
         terminate = revocation.terminate or excluded.terminate, signal = excluded.signal, reason = excluded.reason";
    OPEN = "select r.task_id, r.requested_at, r.terminate, r.signal, r.reason from revocation r \
         left join task t on t.task_id = r.task_id \
         where t.finished_at is null or r.requested_at >= t.finished_at order by r.requested_at desc limit $1";
    FORGET_REVOCATIONS = "delete from revocation where requested_at < $1 \
         or exists (select 1 from task t where t.task_id = revocation.task_id and t.finished_at < $1)";
}

pub(super) async fn note(pool: &SqlitePool, workers: &[Worker]) -> Result<(), Error> {
    let row =
        |worker: &Worker| (worker.hostname.clone(), worker.seen_at.0, worker.offline_at.map(|at| at.0), facts(worker));
    let rows: Vec<_> = workers.iter().map(row).collect();
    sqlx::query(NOTE).bind(list(&rows)).execute(pool).await?;
    Ok(())
}

pub(super) async fn remember(pool: &SqlitePool, revocation: &Revocation) -> Result<(), Error> {
    let query = sqlx::query(REMEMBER).bind(revocation.task_id.as_str()).bind(revocation.requested_at.0);
    query.bind(revocation.terminate).bind(&revocation.signal).bind(&revocation.reason).execute(pool).await?;
    Ok(())
}
