//! Named leases with a term: a holder that renews in time keeps the lease, and every new holder gets a higher term.

use std::time::Duration;

use sqlx::Row;

use crate::statements::statements;
use crate::{Error, Lease};
use runtime::clock::Time;

use super::dialect::Pool;

statements! {
    /// `$4` now, `$3` expiry.
    TAKE = "insert into lease as l (name, holder, term, expires_at) values ($1, $2, 1, $3) \
         on conflict (name) do update set holder = excluded.holder, expires_at = excluded.expires_at, \
         term = l.term + case when l.holder <> excluded.holder then 1 else 0 end \
         where l.holder = excluded.holder or l.expires_at <= $4 returning term, expires_at";
    /// A write that is rolled back, to check whether the database takes writes. `$1` is the replica, so that two replicas do not wait for each
    /// other.
    PROBE = "insert into lease (name, holder, term, expires_at) values ('probe ' || cast($1 as text), '', 0, 0) on conflict do nothing";
    /// The row stays, so that the term keeps growing.
    RELEASE = "update lease set holder = '', expires_at = 0 where name = $1 and holder = $2";
}

pub(super) async fn take(
    pool: &Pool,
    name: &str,
    holder: &str,
    now: Time,
    ttl: Duration,
) -> Result<Option<Lease>, Error> {
    let row = sqlx::query(TAKE).bind(name).bind(holder).bind(now.plus(ttl).0).bind(now.0).fetch_optional(pool).await?;
    row.map(|row| Ok(Lease { term: row.try_get(0)?, expires_at: Time(row.try_get(1)?) })).transpose()
}

pub(super) async fn release(pool: &Pool, name: &str, holder: &str) -> Result<(), Error> {
    sqlx::query(RELEASE).bind(name).bind(holder).execute(pool).await?;
    Ok(())
}
