//! The command line: one subcommand for each role and each client command, each in a module of its own.

mod audit;
mod check;
mod client;
#[cfg(feature = "dev")]
mod dev;
#[cfg(feature = "export")]
mod export;
mod given;
mod groups;
mod healthcheck;
mod inbox;
mod migrate;
mod openapi;
mod password;
mod schedules;
mod serve;
mod token;
#[cfg(feature = "worker")]
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

/// The HTTP front door of a Celery fleet: the queue that can answer for every task.
#[derive(Debug, Parser)]
#[command(name = "taskgate", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command, before or after its name.
#[derive(Debug, Args)]
pub struct Common {
    /// Configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "TASKGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Log filter, in the syntax of RUST_LOG
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process, with nothing installed: for trying out and developing
    #[cfg(feature = "dev")]
    Dev(dev::Options),
    /// Serve the gateway: HTTP, relay, recorder, sweeper; any number of identical replicas
    Serve(serve::Options),
    /// Run tasks: the sample tasks and the catalog's commands, beside Python workers or alone
    #[cfg(feature = "worker")]
    Worker(worker::Options),
    /// Migrate the ledger's schema
    Migrate,
    /// Submit a task to a gateway
    Submit(Box<client::Submit>),
    /// Print the result of a task
    Result(client::Result),
    /// Follow a task to its end
    Watch(client::Watch),
    /// Revoke a task, and print what came of it
    Revoke(client::Revoke),
    /// Run an ended task again, or the failed members of a group
    Retry(client::Retry),
    /// Explain in a sentence why a task is in its present state
    Explain(client::Explain),
    /// List the tasks of a gateway, newest first
    Tasks(client::Tasks),
    /// Print what happens to tasks while it happens
    Events(client::Events),
    /// List tasks that failed for good, send them again, or dismiss them
    DeadLetters(client::DeadLetters),
    /// List the queues of a gateway; pause, resume, purge or inspect a queue
    Queues(client::Queues),
    /// List the keys that limit how many tasks run or start, and change them
    Limits(client::Limits),
    /// List webhooks and change them
    Webhooks(client::Webhooks),
    /// Show queues, workers, rates and incidents on one screen, refreshed every few seconds
    Top(client::Top),
    /// List open incidents (exit code 1 when there are any) or closed ones; acknowledge or mute one
    Incidents(client::Incidents),
    /// List the workers of a gateway
    Workers(client::Workers),
    /// List the schedules of a gateway, or import those of Celery beat, RedBeat or django-celery-beat
    Schedules(schedules::Options),
    /// Let transactions of an application's database submit tasks: install, status, remove
    Inbox(inbox::Options),
    /// Create, list and revoke the tokens that clients call with
    Token(token::Options),
    /// Read a password from standard input and print its hash for the configuration
    Password,
    /// List who did what; verify the hash chain of this audit log
    Audit(audit::Options),
    /// Write events and ended tasks into a Parquet file, for analytics
    #[cfg(feature = "export")]
    Export(export::Options),
    /// Print the API contract (OpenAPI 3.1)
    Openapi,
    /// Check that configuration, Redis, the ledger and the live workers fit together
    Check(check::Options),
    /// Check that a gateway on this machine is alive, for container health checks
    Healthcheck,
    /// Print a completion script for a shell
    Completions(client::Completions),
}

impl Cli {
    /// Parses a command line. The help lists the commands in groups.
    ///
    /// # Errors
    /// When the command line is invalid, or asks for help.
    pub fn read(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = groups::grouped(Self::command());
        let matches = command.try_get_matches_from_mut(line)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// Runs the chosen role to its end.
    ///
    /// # Errors
    /// Whatever stops it from starting; once it runs, failures are its own to handle.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { common, command } = self;
        match command {
            #[cfg(feature = "dev")]
            Command::Dev(options) => dev::run(&common, &options),
            Command::Serve(options) => serve::run(&common, &options),
            #[cfg(feature = "worker")]
            Command::Worker(options) => worker::run(&common, &options),
            Command::Migrate => migrate::run(&common),
            Command::Schedules(options) => schedules::run(&common, &options),
            Command::Password => password::run(),
            Command::Audit(options) => audit::run(&common, &options),
            Command::Inbox(options) => inbox::run(&options),
            Command::Token(options) => token::run(&common, &options),
            Command::Submit(submit) => client::run(&submit.at, async |client| submit.run(client).await),
            Command::Result(result) => client::run(&result.at, async |client| result.run(client).await),
            Command::Watch(watch) => client::run(&watch.at, async |client| watch.run(client).await),
            Command::Revoke(revoke) => client::run(&revoke.at, async |client| revoke.run(client).await),
            Command::Retry(retry) => client::run(&retry.at, async |client| retry.run(client).await),
            Command::Explain(explain) => client::run(&explain.at, async |client| explain.run(client).await),
            Command::Events(events) => client::run(&events.at, async |client| events.run(client).await),
            Command::DeadLetters(letters) => client::run(letters.at(), async |client| letters.run(client).await),
            Command::Queues(queues) => client::run(queues.at(), async |client| queues.run(client).await),
            Command::Limits(limits) => client::run(limits.at(), async |client| limits.run(client).await),
            Command::Webhooks(webhooks) => client::run(webhooks.at(), async |client| webhooks.run(client).await),
            Command::Incidents(incidents) => client::run(incidents.at(), async |client| incidents.run(client).await),
            Command::Top(top) => client::run(&top.at, async |client| top.run(client).await),
            Command::Tasks(tasks) => client::run(&tasks.at, async |client| tasks.run(client).await),
            Command::Workers(workers) => client::run(&workers.at, async |client| workers.run(client).await),
            Command::Completions(completions) => completions.run(Self::command()),
            #[cfg(feature = "export")]
            Command::Export(options) => export::run(&common, &options),
            Command::Openapi => openapi::run(),
            Command::Check(options) => check::run(&common, &options),
            Command::Healthcheck => healthcheck::run(&common),
        }
    }
}

/// A runtime with a thread for each processor.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// How long the end of the process waits for threads that still run blocking work.
const LEFT_BEHIND: std::time::Duration = std::time::Duration::from_millis(500);

/// Runs a long-lived role to its end, then waits only a short time for blocking work on other threads.
fn until_ended(role: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    let ended = runtime.block_on(role);
    runtime.shutdown_timeout(LEFT_BEHIND);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn check_help(command: &clap::Command, path: &str) {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{path}: {} has no sentence", argument.get_id());
        }
        for inner in command.get_subcommands() {
            let path = format!("{path} {}", inner.get_name());
            assert!(inner.get_about().is_some(), "{path} has no sentence");
            check_help(inner, &path);
        }
    }

    #[test]
    fn every_command_and_every_flag_has_a_sentence() {
        check_help(&Cli::command(), "taskgate");
    }

    #[test]
    fn the_configuration_may_stand_before_or_after_the_role() {
        for line in [["taskgate", "--config", "a.toml", "migrate"], ["taskgate", "migrate", "--config", "a.toml"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.common.config.as_deref(), Some(std::path::Path::new("a.toml")));
        }
    }
}
