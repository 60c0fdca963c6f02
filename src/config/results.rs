//! `[backend]` where the fleet keeps its results in a database: Celery's `db+postgresql://` (SQLAlchemy) and `django-db`.

use std::time::Duration;

use super::database_url;
use super::value::{Secret, Span, Text};
use super::{Error, Said};

/// Celery's name for django-celery-results. It has no address: Django's settings have it.
const DJANGO: &str = "django-db";
/// Celery's mark before a URL of SQLAlchemy.
const MARK: &str = "db+";
const POLL: Duration = Duration::from_secs(30);

/// A table of results.
#[derive(Debug, Clone)]
pub struct Results {
    /// `postgres://…`.
    pub url: Secret,
    /// Its name, perhaps with a schema and a dot in front. Default `celery_taskmeta`, with `django-db`
    /// `django_celery_results_taskresult`.
    pub table: String,
    /// How often results of unfinished tasks are looked for without an event that tells an end: 1 s to 1 h. Default 30 s.
    pub poll: Duration,
}

/// Whether the address of the result backend is one of these.
pub(super) fn is_database(url: &str) -> bool {
    url.starts_with(MARK) || url == DJANGO
}

/// `None` where results are elsewhere.
pub(super) fn read(
    url: &str,
    database_url: Option<Text>,
    table: Option<Text>,
    poll: Option<Span>,
    said: &Said,
) -> Result<Option<Results>, Error> {
    if !is_database(url) {
        return Ok(None);
    }
    let at = |key: &str| said.place(&format!("backend.{key}"));
    let address = match (url.strip_prefix(MARK), database_url) {
        (_, Some(given)) => (given.0, at("database_url")),
        (Some(address), None) => (address.to_owned(), at("url")),
        (None, None) => {
            let message = "is needed beside django-db: the address of the database in Django's settings, postgres://…";
            return Err(Error::value(at("database_url"), message));
        }
    };
    let (read, _) = database_url::read(&address.0).map_err(|harm| match address.0.starts_with("postgres") {
        true => Error::value(address.1.clone(), harm),
        false => elsewhere(&address.0, &address.1),
    })?;
    if read.starts_with("sqlite:") {
        return Err(elsewhere(&address.0, &address.1));
    }
    let usual = if url == DJANGO { "django_celery_results_taskresult" } else { "celery_taskmeta" };
    let table = table.map_or_else(|| usual.to_owned(), |text| text.0);
    if table.is_empty() || table.split('.').any(str::is_empty) || table.contains('\0') {
        return Err(Error::value(at("table"), "must be the name of a table, or schema.table"));
    }
    let poll = poll.map_or(POLL, |span| span.0);
    if !(Duration::from_secs(1)..=Duration::from_secs(3_600)).contains(&poll) {
        return Err(Error::value(at("poll"), "must be 1s to 1h"));
    }
    Ok(Some(Results { url: Secret::new(read), table, poll }))
}

/// The refusal of another database. Names its scheme only: the address may have a password.
fn elsewhere(address: &str, place: &str) -> Error {
    let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
    let harm = format!(
        "results in {scheme:?} are not read: of databases only PostgreSQL's are (db+postgresql://…, django-db on PostgreSQL), not \
         those of MySQL, MariaDB, SQLite, Oracle or SQL Server; or keep results in Redis (redis://…) or let them come back over \
         RabbitMQ (rpc://)"
    );
    Error::value(place, harm)
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Error, Role};

    fn config(backend: &str) -> Result<Config, Error> {
        Config::parse(Role::Dev, &format!("[broker]\nurl = 'amqp://h'\n[backend]\n{backend}"))
    }

    #[test]
    fn a_database_of_results_is_named_as_celery_names_it() {
        let results = |backend: &str| config(backend).unwrap().backend.results.unwrap();
        let sqlalchemy = results("url = 'db+postgresql+psycopg2://u:geheim@h/shop'");
        assert_eq!(
            (sqlalchemy.url.reveal(), sqlalchemy.table.as_str()),
            ("postgres://u:geheim@h/shop", "celery_taskmeta")
        );
        let django = results("url = 'django-db'\ndatabase_url = 'postgres://h/site'\npoll = '5s'");
        assert_eq!((django.table.as_str(), django.poll.as_secs()), ("django_celery_results_taskresult", 5));
        assert_eq!(results("url = 'db+postgresql://h/d'\ntable = 'jobs.results'").table, "jobs.results");
        assert!(!format!("{:?}", config("url = 'db+postgresql://u:geheim@h/d'").unwrap()).contains("geheim"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_to_write() {
        for (backend, said) in [
            ("url = 'django-db'", "backend.database_url"),
            ("url = 'db+mysql+pymysql://u:geheim@h/d'", "results in \"mysql+pymysql\" are not read"),
            ("url = 'db+sqlite:///r.db'", "results in \"sqlite\" are not read"),
            ("url = 'django-db'\ndatabase_url = 'mysql://u:geheim@h/d'", "results in \"mysql\" are not read"),
            ("url = 'mongodb://h/d'", "is not supported"),
            ("url = 'cache+memcached://h/'", "is not supported"),
            ("url = 'db+postgresql://h/d'\npoll = '1ms'", "1s to 1h"),
            ("url = 'db+postgresql://h/d'\ntable = 'a.'", "schema.table"),
        ] {
            let error = config(backend).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("geheim"), "{backend}: {error}");
        }
        let redis = Config::parse(Role::Dev, "[broker]\nurl = 'redis://h'\n[backend]\nurl = 'db+postgresql://h/d'");
        assert!(redis.unwrap_err().to_string().contains("RabbitMQ"));
    }
}
