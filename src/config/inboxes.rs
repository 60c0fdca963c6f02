//! `[[inboxes]]`: application databases whose transactions can submit tasks.

use std::time::Duration;

use serde::Deserialize;

use super::value::{Secret, Span, Text};
use super::{Error, database_url};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInbox {
    url: Text,
    poll: Option<Span>,
}

/// One database with an inbox (`taskgate inbox install URL`), besides the ledger's own.
#[derive(Debug, Clone)]
pub struct Inbox {
    /// `postgres://…`.
    pub url: Secret,
    /// How often it is polled when no notification arrives, as behind a PgBouncer in transaction mode: 10 ms to 1 h. Default 1 s.
    pub poll: Duration,
}

impl Inbox {
    pub(super) fn read(raw: Vec<RawInbox>) -> Result<Vec<Self>, Error> {
        raw.into_iter().enumerate().map(|(index, raw)| Self::parse(index, raw)).collect()
    }

    fn parse(index: usize, raw: RawInbox) -> Result<Self, Error> {
        let place = |key: &str| format!("inboxes[{index}].{key}");
        let (url, _) = database_url::read(&raw.url.0).map_err(|message| Error::value(place("url"), message))?;
        if url.starts_with("sqlite:") {
            return Err(Error::value(place("url"), "must be postgres://…: an inbox is in PostgreSQL"));
        }
        let poll = raw.poll.map_or(Duration::from_secs(1), |span| span.0);
        if !(Duration::from_millis(10)..=Duration::from_secs(3_600)).contains(&poll) {
            return Err(Error::value(place("poll"), "must be 10ms to 1h"));
        }
        Ok(Self { url: Secret::new(url), poll })
    }
}

/// The database URL from the command line, in the form that our driver reads.
///
/// # Errors
/// Says what is wrong with it.
pub fn inbox_url(text: &str) -> Result<Secret, String> {
    let (url, _) = database_url::read(text)?;
    if url.starts_with("sqlite:") {
        return Err("an inbox is in PostgreSQL: write postgres://…".to_owned());
    }
    Ok(Secret::new(url))
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Role};

    #[test]
    fn an_inbox_is_in_postgresql_and_has_a_password_that_nobody_sees() {
        let config = Config::parse(Role::Dev, "[[inboxes]]\nurl = 'postgresql+psycopg://u:geheim@h/shop'").unwrap();
        assert_eq!(config.inboxes[0].url.reveal(), "postgres://u:geheim@h/shop");
        assert!(!format!("{config:?}").contains("geheim"));
        let refused = |text: &str| Config::parse(Role::Dev, text).unwrap_err().to_string();
        assert!(refused("[[inboxes]]\nurl = 'sqlite://a.db'").contains("PostgreSQL"));
        assert!(refused("[[inboxes]]\nurl = 'postgres://h/d'\npoll = '0s'").contains("10ms"));
        assert!(refused("[[inboxes]]\nurls = 'postgres://h/d'").contains("url"));
    }
}
