//! The client commands: they call any gateway over its public API.
//!
//! Invariants: standard output holds only what was asked for, so it can be piped; everything else goes to standard error. The exit
//! code says how it ended: [`FAILED`], [`UNREACHABLE`], [`UNFINISHED`].

mod completions;
mod connection;
mod dead_letters;
mod follow;
mod incidents;
mod limits;
mod list;
mod profile;
mod queues;
mod revoke;
mod settle;
mod show;
mod submit;
mod tell;
mod timetable;
mod top;
mod webhooks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

pub use completions::Completions;
pub use connection::{Client, Failure};
pub use dead_letters::DeadLetters;
pub use incidents::Incidents;
pub use limits::Limits;
pub use list::{Tasks, Workers};
pub use queues::Queues;
pub use revoke::Revoke;
pub use settle::{Result, Watch};
pub use submit::Submit;
pub use tell::{Acts, Events, Explain, Retry};
pub use timetable::{Act, Create, Delete, List};
pub use top::Top;
pub use webhooks::Webhooks;

/// The task did not succeed, or the gateway refused.
const FAILED: u8 = 1;
/// The gateway does not answer, or answers that it cannot now (502, 503, 504): the same call may work later.
const UNREACHABLE: u8 = 2;
/// `result` of a task that is not finished.
const UNFINISHED: u8 = 3;
/// The command line is invalid, for example the address (`EX_USAGE`).
const USAGE: u8 = 64;

/// Heading of these flags in each command's help, below the command's own flags.
const HEADING: &str = "Gateway and output";

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// What the gateway answers, on one line
    Json,
    /// A line of JSON for each item of a list
    Ndjson,
}

/// Which gateway to call, and how to print its answer.
#[derive(Debug, Args)]
pub struct At {
    /// Address of the gateway; default the profile's, else http://127.0.0.1:8000
    #[arg(long, value_name = "URL", env = "TASKGATE_URL", help_heading = HEADING)]
    url: Option<String>,
    /// Token, if the gateway requires one
    #[arg(long, value_name = "TOKEN", env = "TASKGATE_TOKEN", hide_env_values = true, help_heading = HEADING)]
    token: Option<String>,
    /// Certificates (PEM) to trust besides the public ones
    #[arg(long, value_name = "FILE", env = "TASKGATE_CA", help_heading = HEADING)]
    ca: Option<PathBuf>,
    /// Section of ~/.config/taskgate/profiles.toml with url, token and ca
    #[arg(long, value_name = "NAME", env = "TASKGATE_PROFILE", help_heading = HEADING)]
    profile: Option<String>,
    /// How to print the answer
    #[arg(short, long, value_enum, env = "TASKGATE_OUTPUT", default_value = "table", hide_possible_values = true, help_heading = HEADING)]
    output: Output,
    /// Print the gateway's answer, same as --output json
    #[arg(long, help_heading = HEADING)]
    json: bool,
    /// Show times in UTC instead of this machine's zone
    #[arg(long, help_heading = HEADING)]
    utc: bool,
}

/// Runs a command, and turns a failure into its message and its exit code.
pub fn run<T>(at: &At, work: T) -> anyhow::Result<ExitCode>
where
    T: AsyncFnOnce(&Client) -> std::result::Result<ExitCode, Failure>,
{
    let outcome = super::runtime()?.block_on(async {
        let client = Client::new(at)?;
        work(&client).await
    });
    Ok(outcome.unwrap_or_else(|failure| {
        eprintln!("taskgate: {failure}");
        match failure {
            Failure::Unreachable(_) => ExitCode::from(UNREACHABLE),
            Failure::Refused(_) | Failure::Here(_) => ExitCode::from(FAILED),
            Failure::Usage(_) => ExitCode::from(USAGE),
        }
    }))
}
