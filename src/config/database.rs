//! `[database]`: where the ledger (the history database) is, and how it is connected to.

use serde::Deserialize;

use super::database_url;
use super::value::{Count, Secret, Switch, Text};
use super::{Error, Said};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawDatabase {
    url: Option<Text>,
    direct_url: Option<Text>,
    migrate: Option<Switch>,
    max_connections: Option<Count>,
}

#[derive(Debug, Clone)]
pub struct Database {
    /// `postgres://…` or `sqlite://file`. Default none: `serve` needs one; `dev` uses a file in its data directory.
    pub url: Option<Secret>,
    /// The URL of the PostgreSQL server itself, where `url` points to a connection pooler such as PgBouncer. Used for what a pooler in
    /// transaction mode cannot pass on: migrations, and LISTEN, which tells a replica at once what another one commits. Default none:
    /// a replica behind a pooler then polls every second.
    pub direct_url: Option<Secret>,
    /// Parameters of the URL that have no effect here.
    pub ignored: Vec<String>,
    /// Whether `serve` migrates the schema at start, under a lock. Default true.
    pub migrate: bool,
    /// PostgreSQL connections of this process, besides five reserved ones: for submissions, publishing, recording (two) and
    /// notifications. Default 16.
    pub max_connections: u32,
}

impl Database {
    pub(super) fn read(raw: RawDatabase, said: &Said) -> Result<Self, Error> {
        let read = raw.url.map(|text| database_url::read(&text.0)).transpose();
        let read = read.map_err(|message| Error::value(said.place("database.url"), message))?;
        let (url, ignored) = read.map_or((None, Vec::new()), |(url, ignored)| (Some(Secret::new(url)), ignored));
        let direct_url = raw.direct_url.map(|text| direct(&text.0, said)).transpose()?;
        let max_connections = raw.max_connections.map_or(16, |count| count.0);
        let max_connections = u32::try_from(max_connections).ok().filter(|count| (2..=1_000).contains(count));
        Ok(Self {
            url,
            direct_url,
            ignored,
            migrate: raw.migrate.is_none_or(|switch| switch.0),
            max_connections: max_connections
                .ok_or_else(|| Error::value(said.place("database.max_connections"), "must be 2 to 1000"))?,
        })
    }
}

fn direct(text: &str, said: &Said) -> Result<Secret, Error> {
    match database_url::read(text) {
        Ok((url, _)) if url.starts_with("postgres:") => Ok(Secret::new(url)),
        Ok(_) => {
            Err(Error::value(said.place("database.direct_url"), "must be postgres://…: only PostgreSQL has poolers"))
        }
        Err(message) => Err(Error::value(said.place("database.direct_url"), message)),
    }
}
