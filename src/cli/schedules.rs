//! `taskgate schedules`: commands about schedules; `import` shows the schedules of another beat, and writes them with `--apply`.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::given::configure;
use super::{Common, client};
use crate::app;
use crate::config::Role;
use crate::usecase::schedules::new_schedule;
use ::celery::task::Json;
use ::celery::task::signature::Limits;
use ledger::{Created, SharedLedger};
use runtime::clock;
use schedule::definition::Definition;
use schedule::document::Document;
use schedule::import::{Imported, celery};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(flatten)]
    list: client::List,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a schedule
    Create(Box<client::Create>),
    /// Delete a schedule; tasks that it has fired go on
    Delete(client::Delete),
    /// Import the schedules of another beat; without --apply they are only shown
    Import(Import),
    /// Stop a schedule from firing
    Pause(client::Act),
    /// Let it fire again
    Resume(client::Act),
    /// Fire it now, and print the id of its task
    Run(client::Act),
}

#[derive(Debug, Args)]
struct Import {
    /// A JSON dump of Celery's beat_schedule (a file, or - for standard input), redis://… with RedBeat's keys, or
    /// postgres://… or sqlite://… with django-celery-beat's tables
    from: String,
    /// Write the schedules into the ledger
    #[arg(long)]
    apply: bool,
    /// Time zone of crontabs that name none: the Celery app's timezone
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// RedBeat's redbeat_key_prefix
    #[arg(long, value_name = "PREFIX", default_value = "redbeat:")]
    prefix: String,
}

/// # Errors
/// When the source cannot be read, or the ledger cannot be written.
pub fn run(common: &Common, options: &Options) -> anyhow::Result<ExitCode> {
    let (act, verb) = match &options.command {
        Some(Command::Import(import)) => return super::runtime()?.block_on(import.run(common)),
        Some(Command::Create(create)) => return client::run(&create.at, async |client| create.run(client).await),
        Some(Command::Delete(delete)) => return client::run(&delete.at, async |client| delete.run(client).await),
        None => return client::run(&options.list.at, async |client| options.list.run(client).await),
        Some(Command::Pause(act)) => (act, "pause"),
        Some(Command::Resume(act)) => (act, "resume"),
        Some(Command::Run(act)) => (act, "run"),
    };
    client::run(&act.at, async |client| act.run(client, verb).await)
}

impl Import {
    async fn run(&self, common: &Common) -> anyhow::Result<ExitCode> {
        let config = configure(if self.apply { Role::Migrate } else { Role::Check }, common, &[])?;
        let found = self.read().await?;
        let stop = CancellationToken::new();
        let ledger = config.database.url.as_ref().map(|_| app::open_ledger(&config, stop.clone())).transpose()?;
        if let (Some(ledger), true) = (&ledger, self.apply) {
            ledger.migrate().await.context("the ledger's schema cannot be brought up to date")?;
        }
        let mut refused = 0;
        for entry in &found {
            let (word, detail) = self.settle(entry, ledger.as_ref()).await?;
            refused += usize::from(entry.document.is_err());
            println!("{word:<12} {:<30} {detail}", entry.name);
            entry.notes.iter().for_each(|note| println!("{:<43} {note}", ""));
        }
        stop.cancel();
        let end = if self.apply { "" } else { "; nothing was written, repeat with --apply" };
        println!("{} entries, {refused} cannot be taken over{end}", found.len());
        Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn read(&self) -> anyhow::Result<Vec<Imported>> {
        if self.from.contains("://") {
            return app::foreign_schedules(&self.from, &self.prefix, self.timezone.as_deref()).await;
        }
        let text = if self.from == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
            text
        } else {
            std::fs::read_to_string(&self.from).with_context(|| format!("{} cannot be read", self.from))?
        };
        match celery::read(&text, self.timezone.as_deref(), clock::now()) {
            Ok(found) => Ok(found),
            Err(reason) => bail!("{} {reason}", self.from),
        }
    }

    /// Imports one entry, or only looks at it; returns what was done and a description of the entry.
    async fn settle(&self, entry: &Imported, ledger: Option<&SharedLedger>) -> anyhow::Result<(&'static str, String)> {
        let document = match &entry.document {
            Ok(document) => document,
            Err(reason) => return Ok(("cannot", reason.clone())),
        };
        let word = match ledger {
            Some(ledger) if self.apply => write(ledger, &entry.name, document).await?,
            // A ledger that does not answer must not prevent the preview.
            Some(ledger) if matches!(ledger.schedule(&entry.name).await, Ok(Some(_))) => "exists",
            _ => "would create",
        };
        Ok((word, document.get().to_owned()))
    }
}

async fn write(ledger: &SharedLedger, name: &str, document: &Json) -> anyhow::Result<&'static str> {
    let told = |found: Vec<::celery::task::Invalid>| anyhow::anyhow!("{name} does not fit: {found:?}");
    let document = Document::parse(document.get()).map_err(told)?;
    let definition = Definition::parse(document.rest.get(), Limits::default()).map_err(told)?;
    let schedule = new_schedule(name, &document, &definition, clock::now());
    match ledger.create_schedule(&schedule, false).await? {
        Created::Done => Ok("created"),
        Created::NameTaken | Created::SeededBefore => Ok("exists"),
    }
}
