//! Reads django-celery-beat's tables in a PostgreSQL for an import; never writes them.

use sqlx::Row;

use crate::Error;

use super::pool::{self, PostgresConfig};

const TASKS: &str = "select row_to_json(x)::text from (select p.*, \
     c.minute, c.hour, c.day_of_month, c.month_of_year, c.day_of_week, c.timezone, i.every, i.period, k.clocked_time \
     from django_celery_beat_periodictask p left join django_celery_beat_crontabschedule c on c.id = p.crontab_id \
     left join django_celery_beat_intervalschedule i on i.id = p.interval_id \
     left join django_celery_beat_clockedschedule k on k.id = p.clocked_id) x order by x.name";

/// One JSON object for each periodic task, joined with its schedule.
///
/// # Errors
/// When the database does not answer or has no such tables.
pub async fn periodic_tasks(url: &str) -> Result<Vec<String>, Error> {
    let pool = pool::unlimited(&PostgresConfig::new(url))?;
    let rows = sqlx::query(TASKS).fetch_all(&pool).await?;
    pool.close().await;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
