//! Named leases with a term: a holder that renews in time keeps the lease, and every new holder gets a higher term.

use std::time::Duration;

use sqlx::Row;

use crate::statements::statements;
use crate::{Error, Lease};
use runtime::clock::Time;

use super::pool::Pools;

statements! {
    /// `$4` now, `$3` the end.
    TAKE = "insert into lease (name, holder, term, expires_at) values ($1, $2, 1, $3) \
         on conflict (name) do update set holder = excluded.holder, expires_at = excluded.expires_at, \
         term = lease.term + (lease.holder <> excluded.holder) \
         where lease.holder = excluded.holder or lease.expires_at <= $4 returning term, expires_at";
    /// A write that is rolled back, to check whether the database takes writes.
    PROBE =
        "insert into lease (name, holder, term, expires_at) values ('probe', '', 0, 0) on conflict do nothing";
    /// The row stays, so that the term keeps growing.
    RELEASE = "update lease set holder = '', expires_at = 0 where name = $1 and holder = $2";
}

pub(super) async fn take(
    pools: &Pools,
    name: &str,
    holder: &str,
    now: Time,
    ttl: Duration,
) -> Result<Option<Lease>, Error> {
    let query = sqlx::query(TAKE).bind(name).bind(holder).bind(now.plus(ttl).0).bind(now.0);
    let row = query.fetch_optional(&pools.write).await?;
    row.map(|row| Ok(Lease { term: row.try_get(0)?, expires_at: Time(row.try_get(1)?) })).transpose()
}

pub(super) async fn release(pools: &Pools, name: &str, holder: &str) -> Result<(), Error> {
    sqlx::query(RELEASE).bind(name).bind(holder).execute(&pools.write).await?;
    Ok(())
}
