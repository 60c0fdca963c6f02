//! `taskgate export`: writes the history into a Parquet file.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::Common;
use super::given::configure;
use crate::app;
use crate::config::Role;
use crate::tell::export::{self, Since};
use runtime::clock::Time;

#[derive(Debug, Args)]
pub struct Options {
    /// Where to begin: the position that the last export printed (0 is the beginning), or a time such as 2026-01-31T00:00:00Z
    #[arg(long, value_name = "POSITION|TIME", default_value = "0")]
    since: String,
    /// The file, such as history.parquet; an existing one is replaced when the new one is complete
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// # Errors
/// When the ledger cannot be read or the file cannot be written.
pub fn run(common: &Common, options: &Options) -> anyhow::Result<ExitCode> {
    let since = since(&options.since)?;
    let config = configure(Role::Migrate, common, &[])?;
    super::runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let ledger = app::open_ledger(&config, stop.clone())?;
        let written = export::export(&ledger, since, &options.to).await?;
        stop.cancel();
        let export::Written { events, ended, position } = written;
        println!("{events} events, {ended} of them ends of tasks; go on with --since {position}");
        Ok(ExitCode::SUCCESS)
    })
}

fn since(text: &str) -> anyhow::Result<Since> {
    if let Ok(position) = text.parse() {
        return Ok(Since::Position(position));
    }
    let time = Time::parse_rfc3339(text).with_context(|| {
        format!("--since {text:?} is neither a position of the feed nor a time, as 2026-01-31T00:00:00Z")
    })?;
    Ok(Since::Time(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_begins_at_a_position_or_a_time() {
        assert_eq!(since("0").unwrap(), Since::Position(0));
        assert_eq!(since("1970-01-01T00:00:01Z").unwrap(), Since::Time(Time(1_000_000)));
        assert!(since("yesterday").unwrap_err().to_string().contains("neither a position"));
    }
}
