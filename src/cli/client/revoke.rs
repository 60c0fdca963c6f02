//! `taskgate revoke`: revokes a task and prints what came of it.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::connection::{Client, Failure};
use super::show::line;
use super::{At, FAILED};
use runtime::uri::encoded;

#[derive(Debug, Args)]
pub struct Revoke {
    #[command(flatten)]
    pub at: At,
    /// Id of the task
    id: String,
    /// Also stop the task if it runs
    #[arg(long)]
    terminate: bool,
    /// Signal that stops it
    #[arg(long, value_name = "NAME", requires = "terminate")]
    signal: Option<String>,
    /// Reason, for the task's history
    #[arg(long)]
    reason: Option<String>,
}

impl Revoke {
    /// Returns a failure when it was too late.
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let mut body = json!({"terminate": self.terminate});
        if let Some(signal) = &self.signal {
            body["signal"] = signal.as_str().into();
        }
        if let Some(reason) = &self.reason {
            body["reason"] = reason.as_str().into();
        }
        let path = format!("/v1/tasks/{}/revoke", encoded(&self.id));
        let answer = client.post(&path, &[], body.to_string()).await?;
        let verdict = answer.text_of("verdict").unwrap_or_default();
        if client.json {
            line(&answer.text);
        } else {
            line(&format!("{verdict}: {}", answer.text_of("detail").unwrap_or_default()));
        }
        Ok(if verdict == "too_late" { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
    }
}
