//! The client: what a terminal or a script asks of any gateway, over the same API as everybody else.
//!
//! Invariants: standard output has what was asked for and nothing else, so it can be piped; people are told the rest on standard
//! error. The exit code says what came of it: [`FAILED`], [`UNREACHABLE`], [`UNFINISHED`].

mod completions;
mod connection;
mod follow;
mod list;
mod revoke;
mod settle;
mod show;
mod submit;
mod timetable;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

pub use completions::Completions;
pub use connection::{Client, Failure};
pub use list::{Tasks, Workers};
pub use revoke::Revoke;
pub use settle::{Result, Watch};
pub use submit::Submit;
pub use timetable::{Act, List};

/// The task did not succeed, or the gateway refused.
const FAILED: u8 = 1;
/// Nobody answers there, or answers that it cannot now (502, 503, 504): the same call may work later.
const UNREACHABLE: u8 = 2;
/// `result` of a task that is not finished.
const UNFINISHED: u8 = 3;

/// Which gateway, and how it is told to others.
#[derive(Debug, Args)]
pub struct At {
    /// Address of the gateway
    #[arg(long, value_name = "URL", env = "TASKGATE_URL", default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Token, where the gateway asks for one
    #[arg(long, value_name = "TOKEN", env = "TASKGATE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Certificates (PEM) that are trusted besides the public ones
    #[arg(long, value_name = "FILE", env = "TASKGATE_CA")]
    ca: Option<PathBuf>,
    /// Print what the gateway answers, as JSON
    #[arg(long)]
    json: bool,
}

/// Does what was asked, and turns a failure into its words and its exit code.
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
        }
    }))
}
