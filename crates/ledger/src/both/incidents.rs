//! Incidents: open ones, acknowledgements, closed ones, and pending notices.

use async_trait::async_trait;
use sqlx::Row;

use super::audit;
use super::dialect::{Adapter, AdapterRow, locking};
use crate::incidents::{incident_columns, is_muted, read_incident, read_notice, written};
use crate::rows::clean;
use crate::statements::statements;
use crate::{Error, FoundIncident, Incidents, KeptIncident, Mark, Notice, SettledNotice};
use runtime::clock::Time;

statements! {
    OPEN = concat!(
        "select ",
        incident_columns!(),
        " from incident i where i.ended_at is null order by i.incident_no limit $1"
    );
    ENDED = concat!(
        "select ",
        incident_columns!(),
        " from incident i where i.ended_at is not null and i.incident_no < $1 order by i.incident_no desc limit $2"
    );
    NEWEST = concat!(
        "select ",
        incident_columns!(),
        " from incident i where i.incident_id = $1 order by i.incident_no desc limit 1",
        locking!()
    );
    /// An incident whose id is still muted starts muted. Does nothing if another replica has written the incident already.
    BEGIN = "insert into incident (incident_id, kind, subject, since, detail, channels, muted_until) \
         values ($1, $2, $3, $4, $5, $6, (select max(muted_until) from incident where incident_id = $1 and muted_until > $7)) \
         on conflict do nothing returning incident_no";
    END = "update incident set ended_at = $2 where incident_no = $1 and ended_at is null";
    NOTIFY = "insert into incident_notice (incident_no, channel, is_end, created_at, due_at) \
         values ($1, $2, $3, $4, $4)";
    SILENCE = "delete from incident_notice where incident_no = $1";
    ACKNOWLEDGE = "update incident set acknowledged_at = $2, acknowledged_by = $3 \
         where incident_no = $1 and ended_at is null";
    MUTE = "update incident set muted_until = $2 where incident_id = $1";
    DUE = concat!(
        "select n.notice_no, n.channel, n.is_end, n.created_at, n.tries, ",
        incident_columns!(),
        " from incident_notice n join incident i on i.incident_no = n.incident_no \
         where n.due_at <= $1 and (i.muted_until is null or i.muted_until <= $1) order by n.notice_no limit $2"
    );
    SENT = "delete from incident_notice where notice_no = $1";
    AGAIN = "update incident_notice set tries = tries + 1, due_at = $2 where notice_no = $1";
    /// `$1` ended before, `$2` limit.
    PRUNE_NOTICES = "delete from incident_notice where incident_no in \
         (select incident_no from incident where ended_at < $1 order by ended_at, incident_no limit $2)";
    PRUNE = "delete from incident where incident_no in \
         (select incident_no from incident where ended_at < $1 order by ended_at, incident_no limit $2)";
}

#[async_trait]
impl Incidents for Adapter {
    async fn note_incidents(&self, open: &[FoundIncident], at: Time) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let rows = sqlx::query(OPEN).bind(i64::MAX).fetch_all(&mut *tx).await?;
        let known = rows.iter().map(incident).collect::<Result<Vec<KeptIncident>, Error>>()?;
        for over in known.iter().filter(|known| !open.iter().any(|found| found.id == known.found.id)) {
            sqlx::query(END).bind(over.no).bind(at.0).execute(&mut *tx).await?;
            if is_muted(over, at) {
                sqlx::query(SILENCE).bind(over.no).execute(&mut *tx).await?;
                continue;
            }
            for channel in &over.found.channels {
                sqlx::query(NOTIFY).bind(over.no).bind(channel).bind(true).bind(at.0).execute(&mut *tx).await?;
            }
        }
        for new in open.iter().filter(|found| !known.iter().any(|known| found.id == known.found.id)) {
            let query = sqlx::query(BEGIN).bind(&new.id).bind(clean(&new.kind)).bind(clean(&new.subject));
            let query = query.bind(new.since.0).bind(clean(&new.detail)).bind(written(&new.channels)).bind(at.0);
            let Some(row) = query.fetch_optional(&mut *tx).await? else { continue };
            let no: i64 = row.try_get(0)?;
            for channel in &new.channels {
                sqlx::query(NOTIFY).bind(no).bind(channel).bind(false).bind(at.0).execute(&mut *tx).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    async fn open_incidents(&self, limit: i64) -> Result<Vec<KeptIncident>, Error> {
        sqlx::query(OPEN).bind(limit).fetch_all(self.reads()).await?.iter().map(incident).collect()
    }

    async fn ended_incidents(&self, before: Option<i64>, limit: i64) -> Result<Vec<KeptIncident>, Error> {
        let before = before.unwrap_or(i64::MAX);
        sqlx::query(ENDED).bind(before).bind(limit).fetch_all(self.reads()).await?.iter().map(incident).collect()
    }

    async fn mark_incident(&self, id: &str, mark: &Mark, at: Time) -> Result<Option<KeptIncident>, Error> {
        let mut tx = self.begin().await?;
        let Some(row) = sqlx::query(NEWEST).bind(clean(id)).fetch_optional(&mut *tx).await? else { return Ok(None) };
        let no = incident(&row)?.no;
        let marked = match mark {
            Mark::Acknowledged { by } => sqlx::query(ACKNOWLEDGE).bind(no).bind(at.0).bind(clean(by)),
            Mark::Muted { until } => sqlx::query(MUTE).bind(clean(id)).bind(until.map(|until| until.0)),
        };
        if marked.execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(None);
        }
        let row = sqlx::query(NEWEST).bind(clean(id)).fetch_one(&mut *tx).await?;
        audit::open_current(&mut tx).await?;
        tx.commit().await?;
        incident(&row).map(Some)
    }

    async fn due_notices(&self, now: Time, limit: i64) -> Result<Vec<Notice>, Error> {
        sqlx::query(DUE).bind(now.0).bind(limit).fetch_all(self.reads()).await?.iter().map(notice).collect()
    }

    async fn settle_notices(&self, settled: &[SettledNotice]) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        for notice in settled {
            let query = match notice.again_at {
                Some(at) => sqlx::query(AGAIN).bind(notice.no).bind(at.0),
                None => sqlx::query(SENT).bind(notice.no),
            };
            query.execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn prune_incidents(&self, before: Time, limit: i64) -> Result<i64, Error> {
        let mut tx = self.begin().await?;
        sqlx::query(PRUNE_NOTICES).bind(before.0).bind(limit).execute(&mut *tx).await?;
        let gone = sqlx::query(PRUNE).bind(before.0).bind(limit).execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        Ok(i64::try_from(gone).unwrap_or(i64::MAX))
    }
}

fn incident(row: &AdapterRow) -> Result<KeptIncident, Error> {
    read_incident!(row)
}

fn notice(row: &AdapterRow) -> Result<Notice, Error> {
    read_notice!(row)
}
