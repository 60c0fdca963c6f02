//! `taskgate limits`: the keys that limit how many tasks run or start, and their limits.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::At;
use super::connection::{Client, Failure};
use super::list::{Column, show, text};
use runtime::uri::encoded;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Limits {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set the limits of a key from now on
    Set(Set),
    /// Go back to the limits that the tasks of a key name
    Reset(Reset),
}

#[derive(Debug, Args)]
struct Set {
    #[command(flatten)]
    at: At,
    /// The key, as submissions name it
    key: String,
    /// How many tasks of the key may run at the same time
    #[arg(long, value_name = "NUMBER")]
    max: Option<u32>,
    /// How many may start in which time, such as 10/s, 1/m or 5/d
    #[arg(long)]
    rate: Option<String>,
    /// Let no task of the key start
    #[arg(long)]
    paused: bool,
}

#[derive(Debug, Args)]
struct Reset {
    #[command(flatten)]
    at: At,
    /// The key, as submissions name it
    key: String,
}

impl Limits {
    pub fn at(&self) -> &At {
        match &self.command {
            None => &self.at,
            Some(Command::Set(set)) => &set.at,
            Some(Command::Reset(reset)) => &reset.at,
        }
    }

    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        match &self.command {
            None => list(client).await,
            Some(Command::Set(set)) => set.run(client).await,
            Some(Command::Reset(reset)) => {
                client.delete(&path(&reset.key)).await?;
                eprintln!("{}: the limits that its tasks name hold again", reset.key);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn path(key: &str) -> String {
    format!("/v1/limits/{}", encoded(key))
}

async fn list(client: &Client) -> Result<ExitCode, Failure> {
    let answer = client.get("/v1/limits?limit=500").await?;
    let columns: &[Column] = &[
        ("KEY", &|limit| text(&limit["key"])),
        ("MAX", &|limit| text(&limit["max"])),
        ("RATE", &|limit| text(&limit["rate"])),
        ("UNDER WAY", &|limit| text(&limit["under_way"])),
        ("WAITING", &|limit| text(&limit["waiting"])),
        ("NEXT", &|limit| client.when(&limit["next_at"])),
        ("STATE", &|limit| if limit["paused"] == true { "paused".into() } else { "active".into() }),
    ];
    show(client, &answer, "limits", columns);
    client.tell_next(&answer);
    Ok(ExitCode::SUCCESS)
}

impl Set {
    async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let mut body = json!({"paused": self.paused});
        if let Some(max) = self.max {
            body["max"] = max.into();
        }
        if let Some(rate) = &self.rate {
            body["rate"] = rate.as_str().into();
        }
        let answer = client.put(&path(&self.key), body.to_string()).await?;
        client.tell(&answer, &format!("{}: is set", self.key));
        Ok(ExitCode::SUCCESS)
    }
}
