//! Opens the ledger at `database.url`: shared, for a command that runs beside a gateway, or claimed by a gateway.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use ledger::SharedLedger;
use ledger::postgres::{PostgresConfig, PostgresLedger};
use ledger::sqlite::{SqliteLedger, Synchronous};
use runtime::clock;

/// Opens the configured ledger for a command that runs beside a gateway. Makes no connection yet.
///
/// # Errors
/// When there is no URL, or it is not understood.
pub fn open_ledger(config: &Config, stop: CancellationToken) -> anyhow::Result<SharedLedger> {
    match sqlite_path(ledger_url(config)?) {
        Some(path) => Ok(Arc::new(SqliteLedger::open(path, Synchronous::Full))),
        None => open_postgres(config, stop),
    }
}

/// Opens the configured ledger for a gateway. Makes no connection yet.
///
/// # Errors
/// As [`open_ledger`]; also when another gateway uses the SQLite file.
pub fn claim_ledger(config: &Config, stop: CancellationToken) -> anyhow::Result<SharedLedger> {
    match sqlite_path(ledger_url(config)?) {
        Some(path) => claim_file(path, Synchronous::Full, config),
        None => open_postgres(config, stop),
    }
}

/// Opens a SQLite file as a gateway's ledger.
///
/// # Errors
/// When another gateway uses the file.
pub fn claim_file(path: impl AsRef<Path>, synchronous: Synchronous, config: &Config) -> anyhow::Result<SharedLedger> {
    let (pid, host, listen) = (std::process::id(), hostname(), config.http.listen);
    let holder = format!("process {pid} on {host}, listening on {listen}, since {}", clock::now().rfc3339());
    Ok(Arc::new(SqliteLedger::claim(path, synchronous, &holder)?))
}

fn ledger_url(config: &Config) -> anyhow::Result<&str> {
    Ok(config.database.url.as_ref().context("database.url is not set")?.reveal())
}

fn sqlite_path(url: &str) -> Option<&str> {
    url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))
}

fn open_postgres(config: &Config, stop: CancellationToken) -> anyhow::Result<SharedLedger> {
    let mut postgres = PostgresConfig::new(ledger_url(config)?);
    super::tell_ignored("database.url", &config.database.ignored);
    postgres.direct_url = config.database.direct_url.as_ref().map(|url| url.reveal().to_owned());
    postgres.max_connections = config.database.max_connections;
    Ok(Arc::new(PostgresLedger::connect(&postgres, stop)?))
}

/// This machine's name.
pub fn hostname() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    if host.is_empty() { "localhost".to_owned() } else { host.to_owned() }
}
