//! `taskgate migrate`: migrates the schema of the ledger (the history database).

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Common;
use super::given::configure;
use crate::app;
use crate::config::Role;

/// # Errors
/// When the ledger cannot be reached, or a migration fails.
pub fn run(common: &Common) -> anyhow::Result<ExitCode> {
    let config = configure(Role::Migrate, common, &[])?;
    super::runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let ledger = app::open_ledger(&config, stop.clone())?;
        ledger.migrate().await?;
        info!("the ledger's schema is up to date");
        stop.cancel();
        Ok(ExitCode::SUCCESS)
    })
}
