//! Translates PostgreSQL URLs as libpq, SQLAlchemy and Django write them into the form that our driver reads.

/// Parameters that our driver understands.
const KNOWN: [&str; 19] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "application_name",
    "options",
    "statement-cache-capacity",
    "mode",
];

/// A URL for our driver, and the names of the parameters that have no effect here.
///
/// # Errors
/// When the URL asks for something that is not supported; the message says what to write instead.
pub(super) fn read(text: &str) -> Result<(String, Vec<String>), String> {
    let Some((scheme, rest)) = text.split_once(':') else { return Err(refused(text.split(':').next().unwrap_or(""))) };
    // SQLAlchemy names the driver behind a plus.
    let dialect = scheme.split('+').next().unwrap_or(scheme);
    match dialect {
        "sqlite" => return Ok((format!("sqlite:{rest}"), Vec::new())),
        "postgres" | "postgresql" | "pgsql" | "psql" | "postgis" => {}
        other => return Err(refused(other)),
    }
    let (front, query) = rest.split_once('?').unwrap_or((rest, ""));
    let hosts = front.trim_start_matches('/').split('/').next().unwrap_or_default();
    if hosts.rsplit('@').next().unwrap_or_default().contains(',') {
        return Err("names several hosts: write only the primary's, or a DNS name that follows the primary".to_owned());
    }
    let (kept, ignored): (Vec<&str>, Vec<&str>) = query.split('&').filter(|pair| !pair.is_empty()).partition(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        KNOWN.contains(&name)
    });
    let names = ignored.iter().map(|pair| pair.split('=').next().unwrap_or_default().to_owned()).collect();
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    Ok((format!("postgres:{front}{query}"), names))
}

fn refused(scheme: &str) -> String {
    format!("{scheme:?} is no ledger: write postgres://… or sqlite://…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_of_writing_a_database_mean_the_same_as_for_their_owners() {
        for (theirs, ours) in [
            ("postgres://u:p@h:5432/d", "postgres://u:p@h:5432/d"),
            ("postgresql://h/d?sslmode=require", "postgres://h/d?sslmode=require"),
            ("postgresql+psycopg://u:p@h/d", "postgres://u:p@h/d"),
            ("postgresql+asyncpg://h/d", "postgres://h/d"),
            ("postgis://h/d", "postgres://h/d"),
            ("postgresql:///d?host=/var/run/postgresql", "postgres:///d?host=/var/run/postgresql"),
            ("sqlite://taskgate.db", "sqlite://taskgate.db"),
        ] {
            assert_eq!(read(theirs), Ok((ours.to_owned(), Vec::new())), "{theirs}");
        }
    }

    #[test]
    fn parameters_of_other_drivers_are_named_and_left_out() {
        let (url, ignored) = read("postgresql://h/d?connect_timeout=5&sslmode=prefer&conn_max_age=600").unwrap();
        assert_eq!(url, "postgres://h/d?sslmode=prefer");
        assert_eq!(ignored, ["connect_timeout", "conn_max_age"]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_to_write() {
        assert!(read("mysql://h/d").unwrap_err().contains("\"mysql\" is no ledger"));
        assert!(read("postgresql://a:1,b:2/d").unwrap_err().contains("several hosts"));
    }
}
