//! Reads django-celery-beat's tables in a SQLite file for an import; never writes them.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};

use crate::Error;

const TASKS: &str = "select json_object('name', p.name, 'task', p.task, 'args', p.args, 'kwargs', p.kwargs, 'queue', p.queue, \
     'exchange', p.exchange, 'routing_key', p.routing_key, 'headers', p.headers, 'priority', p.priority, 'expires', p.expires, \
     'expire_seconds', p.expire_seconds, 'enabled', p.enabled, 'one_off', p.one_off, 'total_run_count', p.total_run_count, 'start_time', p.start_time, 'minute', c.minute, 'hour', c.hour, \
     'day_of_month', c.day_of_month, 'month_of_year', c.month_of_year, 'day_of_week', c.day_of_week, 'timezone', c.timezone, \
     'every', i.every, 'period', i.period, 'clocked_time', k.clocked_time) \
     from django_celery_beat_periodictask p left join django_celery_beat_crontabschedule c on c.id = p.crontab_id \
     left join django_celery_beat_intervalschedule i on i.id = p.interval_id \
     left join django_celery_beat_clockedschedule k on k.id = p.clocked_id order by p.name";

/// One JSON object for each periodic task, joined with its schedule.
///
/// # Errors
/// When the file does not exist or has no such tables.
pub async fn periodic_tasks(path: impl AsRef<Path>) -> Result<Vec<String>, Error> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = options.connect().await?;
    let rows = sqlx::query(TASKS).fetch_all(&mut connection).await?;
    connection.close().await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
