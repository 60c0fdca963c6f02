//! Checks a configuration beyond its syntax, without any connection, in the same way for `serve`, `dev` and `check`.

use crate::catalog::Catalog;
use crate::config::{Config, Error};
use crate::edge::Server;
use crate::roles::beat;
use crate::tell::notify;

/// # Errors
/// The first fault that would prevent the start. Whoever reads the configuration takes its key out and asks again, for the next one.
pub fn fits(config: &Config) -> Result<(), Error> {
    Catalog::compile(config)?;
    beat::seed::check(&config.schedules, config.limits.of_signatures())?;
    notify::check(&config.notify)?;
    for (index, inbox) in config.inboxes.iter().enumerate() {
        let understood = ledger::postgres::understands(inbox.url.reveal());
        understood.map_err(|error| Error::value(format!("inboxes[{index}].url"), error.told()))?;
    }
    reached(config)?;
    Server::new(&config.http).map_err(|error| refuse(config, "http.tls_cert", &error))?;
    if let Some(url) = config.database.url.as_ref().filter(|url| url.scheme() != "sqlite") {
        let understood = ledger::postgres::understands(url.reveal());
        understood.map_err(|error| Error::value(config.said.place("database.url"), error.told()))?;
    }
    Ok(())
}

/// Checks the addresses of broker and result backend, and their certificates.
fn reached(config: &Config) -> Result<(), Error> {
    if let Some(path) = &config.broker.redis.tls_ca {
        super::certificates(path).map_err(|error| refuse(config, "broker.tls_ca", &error))?;
    }
    let broker = match config.broker.redis.is_rabbitmq() {
        true => super::amqp_link(config).map(|_| ()),
        false => super::open_lists(config).map(|_| ()),
    };
    broker.map_err(|error| refuse(config, "broker.url", &error))?;
    if config.backend.is_redis() {
        super::open_records(config).map_err(|error| refuse(config, "backend.url", &error))?;
    }
    if let Some(results) = &config.backend.results {
        let understood = ledger::stored::understands(results.url.reveal());
        understood.map_err(|error| Error::value(config.said.place("backend.url"), error.told()))?;
    }
    super::open_management(config).map_err(|error| refuse(config, "broker.management_url", &error))?;
    Ok(())
}

fn refuse(config: &Config, key: &str, error: &anyhow::Error) -> Error {
    Error::value(config.said.place(key), format!("{error:#}"))
}
