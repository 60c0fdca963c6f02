//! `taskgate inbox`: installs `taskgate.enqueue` in an application's database, reports on it, removes it. Needs no configuration.

use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::{Secret, inbox_url};
use ledger::inbox::{self, Removed};
use runtime::clock;

#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the inbox in a database, or bring it up to date
    Install(At),
    /// Show whether a database has an inbox, and how many calls wait in it
    Status(Status),
    /// Drop the inbox of a database
    Remove(Remove),
}

#[derive(Debug, Args)]
struct At {
    /// The database: postgres://user:password@host/name
    url: String,
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    at: At,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Remove {
    #[command(flatten)]
    at: At,
    /// Remove it even if calls wait in it: they are lost
    #[arg(long)]
    force: bool,
}

/// # Errors
/// When the database does not answer, or the role lacks a privilege.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(async {
        match &options.command {
            Command::Install(at) => install(&at.url()?).await,
            Command::Status(status) => status.run(&status.at.url()?).await,
            Command::Remove(remove) => remove.run(&remove.at.url()?).await,
        }
    })
}

impl At {
    fn url(&self) -> anyhow::Result<Secret> {
        inbox_url(&self.url).map_err(|reason| anyhow!("the database {reason}"))
    }
}

async fn install(url: &Secret) -> anyhow::Result<ExitCode> {
    inbox::install(url.reveal()).await.with_context(|| format!("the inbox could not be created in {url}"))?;
    println!("{url} has an inbox. Drain it with\n\n    [[inboxes]]\n    url = \"{url}\"\n");
    println!("and let an application's role use it:\n\n    grant usage on schema taskgate to APP;");
    println!(
        "    grant execute on function taskgate.enqueue(text, text, text, text), taskgate.enqueue(text, jsonb, jsonb, jsonb),"
    );
    println!("        taskgate.enqueue_canvas(text, text) to APP;");
    Ok(ExitCode::SUCCESS)
}

impl Status {
    async fn run(&self, url: &Secret) -> anyhow::Result<ExitCode> {
        let status = inbox::status(url.reveal()).await.with_context(|| format!("{url} does not say"))?;
        let code = if status.installed { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        let oldest = status.oldest.map(|at| clock::now().since(at).as_secs_f64());
        if self.json {
            println!(
                "{}",
                json!({"installed": status.installed, "ledger": status.ledger, "waiting": status.waiting, "oldest_seconds": oldest})
            );
        } else if !status.installed {
            println!("{url} has no inbox: taskgate inbox install");
        } else {
            let age = oldest.map_or_else(String::new, |secs| format!(", the oldest for {secs:.1} s"));
            println!("{url} has an inbox; {} calls wait in it{age}", status.waiting);
        }
        Ok(code)
    }
}

impl Remove {
    async fn run(&self, url: &Secret) -> anyhow::Result<ExitCode> {
        let removed = inbox::remove(url.reveal(), self.force).await;
        match removed.with_context(|| format!("the inbox of {url} could not be removed"))? {
            Removed::Done => println!("{url} has no inbox any more"),
            Removed::Absent => println!("{url} has no inbox"),
            Removed::Ledger => bail!("{url} is the ledger's own database: its inbox stays"),
            Removed::NotEmpty(count) => {
                bail!("{count} calls wait in the inbox of {url}: let a gateway drain it, or lose them with --force")
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
