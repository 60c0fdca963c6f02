//! `taskgate audit`: lists who did what, and verifies the hash chain of the audit log.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::given::configure;
use super::{Common, client};
use crate::app;
use crate::config::Role;
use crate::guard::audit::{Verified, verify};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(flatten)]
    list: client::Acts,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify the hash chain of the audit log: was a row changed, added or removed?
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Verify {
    /// The hash of the last row as an earlier run printed it: it must still be in the chain
    #[arg(long, value_name = "HASH")]
    head: Option<String>,
}

/// # Errors
/// When the ledger cannot be read.
pub fn run(common: &Common, options: &Options) -> anyhow::Result<ExitCode> {
    match &options.command {
        None => client::run(&options.list.at, async |client| options.list.run(client).await),
        Some(Command::Verify(verify)) => super::runtime()?.block_on(verify.run(common)),
    }
}

impl Verify {
    async fn run(&self, common: &Common) -> anyhow::Result<ExitCode> {
        let config = configure(Role::Migrate, common, &[])?;
        let stop = CancellationToken::new();
        let ledger = app::open_ledger(&config, stop.clone())?;
        let verified = verify(&ledger, self.head.as_deref()).await;
        stop.cancel();
        match verified? {
            Verified::Whole { rows: 0, .. } => println!("the chain is whole: it has no row yet"),
            Verified::Whole { rows, head } => {
                println!("the chain is whole: {rows} rows, the last one has the hash {head}")
            }
            Verified::Broken { at, why } => bail!("the chain is broken at place {at}: {why}"),
        }
        Ok(ExitCode::SUCCESS)
    }
}
