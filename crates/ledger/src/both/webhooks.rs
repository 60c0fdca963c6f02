//! Endpoints and deliveries.

use async_trait::async_trait;
use sqlx::Row;

use super::dialect::{Adapter, Tx, among, list, skipping};
use super::{audit, tasks};
use crate::rows::{clean, cleaned};
use crate::statements::statements;
use crate::webhooks::{delivery_columns, document_text, endpoint_columns, read_delivery, read_endpoint};
use crate::{Claim, Cursor, Delivery, DeliveryFilter, Endpoint, Error, NewDelivery, Page, Task, Tried, Webhooks};
use runtime::clock::Time;

statements! {
    CREATE = "insert into webhook_endpoint (endpoint_id, version, enabled, disabled_reason, secret, \
         old_secret, old_until, created_at, updated_at, document) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         on conflict (endpoint_id) do nothing";
    ENDPOINT =
        concat!("select ", endpoint_columns!(), " from webhook_endpoint where endpoint_id = $1");
    ENDPOINTS = concat!(
        "select ",
        endpoint_columns!(),
        " from webhook_endpoint where endpoint_id > $1 order by endpoint_id limit $2"
    );
    EDIT = "update webhook_endpoint set version = version + 1, enabled = $3, disabled_reason = $4, \
         secret = $5, old_secret = $6, old_until = $7, updated_at = $8, document = $9 where endpoint_id = $1 and version = $2";
    REDIRECT = "update webhook_delivery set url = $2, target = $3 \
         where endpoint_id = $1 and next_at is not null and url <> $2";
    DELETE = "delete from webhook_endpoint where endpoint_id = $1";
    DELETE_DELIVERIES = "delete from webhook_delivery where endpoint_id = $1";
    NOTICED = "select feed from webhook_mark";
    HAS_WISHES =
        "select exists (select 1 from task where options like '%\"webhooks\":%' order by task_no limit 1)";
    MOVE_MARK = "update webhook_mark set feed = $2 where feed = $1";
    ADD = "insert into webhook_delivery (delivery_id, endpoint_id, task_no, task_id, task_name, seq, kind, url, \
         target, payload, created_at, give_up_at, next_at, attempts, state) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $11, 0, 'pending') on conflict (delivery_id) do nothing";
    /// Of the first thousand due deliveries, takes at most `$4` per target and `$5` in all. A target with a long queue is soon busy, and then the
    /// next thousand belong to other targets.
    CLAIM = concat!(
        "with due as (select delivery_no, target, next_at from webhook_delivery where next_at <= $1 and not (target ",
        among!("$3"),
        ") order by next_at, delivery_no limit 1000), \
         ranked as (select delivery_no, row_number() over (partition by target order by next_at, delivery_no) as place from due), \
         taken as (select d.delivery_no from webhook_delivery d join ranked r on r.delivery_no = d.delivery_no \
         where r.place <= $4 and d.next_at <= $1 order by d.delivery_no limit $5",
        skipping!("d"),
        ") update webhook_delivery set next_at = $2, attempts = attempts + 1 \
         where delivery_no in (select delivery_no from taken) returning ",
        delivery_columns!()
    );
    SETTLE = "update webhook_delivery set state = $3, next_at = $4, last_at = $5, last_status = $6, \
         last_error = $7, delivered_at = case when $3 = 'delivered' then cast($5 as bigint) else delivered_at end \
         where delivery_no = $1 and attempts = $2 and state = 'pending'";
    NEXT = "select min(next_at) from webhook_delivery where next_at is not null";
    LIST = concat!(
        "select ",
        delivery_columns!(),
        " from webhook_delivery where endpoint_id = $1 and delivery_no < $2 and (cast($3 as text) is null or task_id = $3) \
         and (cast($4 as text) is null or state = $4) order by delivery_no desc limit $5"
    );
    RESEND = concat!(
        "update webhook_delivery set state = 'pending', next_at = $3, give_up_at = $4 \
         where endpoint_id = $1 and delivery_id = $2 returning ",
        delivery_columns!()
    );
    PRUNE = "delete from webhook_delivery where delivery_no in (select delivery_no from \
         (select delivery_no, created_at, state from webhook_delivery order by delivery_no limit $2) as oldest \
         where created_at < $1 and state <> 'pending')";
}

#[async_trait]
impl Webhooks for Adapter {
    async fn create_endpoint(&self, endpoint: &Endpoint) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let old = endpoint.old_secret.as_ref();
        let done = sqlx::query(CREATE)
            .bind(&endpoint.id)
            .bind(endpoint.version)
            .bind(endpoint.enabled)
            .bind(&endpoint.disabled_reason)
            .bind(&endpoint.secret)
            .bind(old.map(|(secret, _)| secret))
            .bind(old.map(|(_, until)| until.0))
            .bind(endpoint.created_at.0)
            .bind(endpoint.updated_at.0)
            .bind(document_text(endpoint))
            .execute(&mut *tx)
            .await?;
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn endpoint(&self, id: &str) -> Result<Option<Endpoint>, Error> {
        let row = sqlx::query(ENDPOINT).bind(clean(id)).fetch_optional(self.reads()).await?;
        row.map(|row| read_endpoint!(&row)).transpose()
    }

    async fn endpoints(&self, after: Option<&str>, limit: i64) -> Result<Vec<Endpoint>, Error> {
        let rows =
            sqlx::query(ENDPOINTS).bind(clean(after.unwrap_or_default())).bind(limit).fetch_all(self.reads()).await?;
        rows.iter().map(|row| read_endpoint!(row)).collect()
    }

    async fn edit_endpoint(&self, endpoint: &Endpoint, target: &str) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let old = endpoint.old_secret.as_ref();
        let done = sqlx::query(EDIT)
            .bind(&endpoint.id)
            .bind(endpoint.version)
            .bind(endpoint.enabled)
            .bind(&endpoint.disabled_reason)
            .bind(&endpoint.secret)
            .bind(old.map(|(secret, _)| secret))
            .bind(old.map(|(_, until)| until.0))
            .bind(endpoint.updated_at.0)
            .bind(document_text(endpoint))
            .execute(&mut *tx)
            .await?;
        if let Some(url) = &endpoint.document.url {
            sqlx::query(REDIRECT).bind(&endpoint.id).bind(url).bind(target).execute(&mut *tx).await?;
        }
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn delete_endpoint(&self, id: &str) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let done = sqlx::query(DELETE).bind(clean(id)).execute(&mut *tx).await?;
        sqlx::query(DELETE_DELIVERIES).bind(clean(id)).execute(&mut *tx).await?;
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn noticed(&self) -> Result<i64, Error> {
        Ok(sqlx::query(NOTICED).fetch_one(self.reads()).await?.try_get(0)?)
    }

    async fn has_wishes(&self) -> Result<bool, Error> {
        Ok(sqlx::query(HAS_WISHES).fetch_one(self.reads()).await?.try_get(0)?)
    }

    async fn subjects(&self, task_nos: &[i64]) -> Result<Vec<Task>, Error> {
        tasks::numbered(self.reads(), task_nos).await
    }

    async fn notice(&self, from: i64, to: i64, deliveries: &[NewDelivery]) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        if sqlx::query(MOVE_MARK).bind(from).bind(to).execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(false);
        }
        for delivery in deliveries {
            add(&mut tx, delivery).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    async fn claim_deliveries(&self, claim: &Claim<'_>) -> Result<Vec<Delivery>, Error> {
        let query = sqlx::query(CLAIM).bind(claim.now.0).bind(claim.until.0).bind(list(claim.busy));
        let rows = query.bind(claim.per_target).bind(claim.limit).fetch_all(self.writes()).await?;
        rows.iter().map(|row| read_delivery!(row)).collect()
    }

    async fn settle_delivery(&self, tried: &Tried) -> Result<(), Error> {
        let query = sqlx::query(SETTLE).bind(tried.delivery_no).bind(tried.attempt).bind(tried.state.as_str());
        let query = query.bind(tried.next_at.map(|at| at.0)).bind(tried.at.0).bind(tried.status);
        query.bind(cleaned(tried.error.as_deref())).execute(self.writes()).await?;
        Ok(())
    }

    async fn next_delivery(&self) -> Result<Option<Time>, Error> {
        let next: Option<i64> = sqlx::query(NEXT).fetch_one(self.reads()).await?.try_get(0)?;
        Ok(next.map(Time))
    }

    async fn deliveries(&self, filter: &DeliveryFilter, page: &Page) -> Result<(Vec<Delivery>, Option<Cursor>), Error> {
        let before = page.after.map_or(i64::MAX, |cursor| cursor.0);
        let query = sqlx::query(LIST).bind(clean(&filter.endpoint_id)).bind(before);
        let query = query.bind(cleaned(filter.task_id.as_deref())).bind(filter.state.map(|state| state.as_str()));
        let rows = query.bind(page.limit + 1).fetch_all(self.reads()).await?;
        let found = rows.iter().map(|row| read_delivery!(row)).collect::<Result<Vec<_>, Error>>()?;
        Ok(crate::webhooks::page_of(found, page))
    }

    async fn resend(
        &self,
        endpoint_id: &str,
        id: &str,
        now: Time,
        give_up_at: Time,
    ) -> Result<Option<Delivery>, Error> {
        let query = sqlx::query(RESEND).bind(clean(endpoint_id)).bind(clean(id)).bind(now.0).bind(give_up_at.0);
        query.fetch_optional(self.writes()).await?.map(|row| read_delivery!(&row)).transpose()
    }

    async fn prune_deliveries(&self, before: Time, limit: i64) -> Result<i64, Error> {
        let done = sqlx::query(PRUNE).bind(before.0).bind(limit).execute(self.writes()).await?;
        Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
    }
}

async fn add(tx: &mut Tx, delivery: &NewDelivery) -> Result<(), Error> {
    sqlx::query(ADD)
        .bind(&delivery.id)
        .bind(&delivery.endpoint_id)
        .bind(delivery.task_no)
        .bind(&delivery.task_id)
        .bind(&delivery.task_name)
        .bind(delivery.seq)
        .bind(&delivery.kind)
        .bind(&delivery.url)
        .bind(&delivery.target)
        .bind(&delivery.payload)
        .bind(delivery.created_at.0)
        .bind(delivery.give_up_at.0)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
