//! `taskgate incidents`: lists open and closed incidents, acknowledges and mutes them.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::connection::{Client, Failure};
use super::list::{Column, show, text};
use super::{At, FAILED};
use runtime::uri::encoded;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Incidents {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Acknowledge an incident: you look after it
    Ack(Named),
    /// Mute an incident: send no notifications about it for a while
    Mute(Mute),
    /// Unmute an incident
    Unmute(Named),
    /// List closed incidents, newest first
    History(History),
}

#[derive(Debug, Args)]
struct Named {
    #[command(flatten)]
    at: At,
    /// Its id, as the list shows it
    id: String,
}

#[derive(Debug, Args)]
struct Mute {
    #[command(flatten)]
    at: At,
    /// Its id, as the list shows it
    id: String,
    /// How long
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    seconds: u32,
}

#[derive(Debug, Args)]
struct History {
    #[command(flatten)]
    at: At,
    /// How many, at most 500
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u16,
    /// The `next` of the previous page
    #[arg(long)]
    cursor: Option<String>,
}

impl Incidents {
    pub fn at(&self) -> &At {
        match &self.command {
            None => &self.at,
            Some(Command::Ack(named) | Command::Unmute(named)) => &named.at,
            Some(Command::Mute(mute)) => &mute.at,
            Some(Command::History(history)) => &history.at,
        }
    }

    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        match &self.command {
            None => list(client).await,
            Some(Command::Ack(named)) => {
                let answer = client.post(&format!("{}/ack", path(&named.id)), &[], "{}".to_owned()).await?;
                let by = answer.text_of("acknowledged_by").unwrap_or_default();
                client.tell(&answer, &format!("{}: {by} looks after it", named.id));
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::Mute(mute)) => {
                let body = json!({"seconds": mute.seconds}).to_string();
                let answer = client.post(&format!("{}/mute", path(&mute.id)), &[], body).await?;
                let until = client.when(&answer.text_of("muted_until").unwrap_or_default().into());
                client.tell(&answer, &format!("{}: nobody outside is told until {until}", mute.id));
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::Unmute(named)) => {
                let answer = client.delete(&format!("{}/mute", path(&named.id))).await?;
                client.tell(&answer, &format!("{}: the outside is told again", named.id));
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::History(history)) => history.run(client).await,
        }
    }
}

fn path(id: &str) -> String {
    format!("/v1/incidents/{}", encoded(id))
}

/// Fails when an incident is open, so that a script can check.
async fn list(client: &Client) -> Result<ExitCode, Failure> {
    let answer = client.get("/v1/incidents").await?;
    let columns: &[Column] = &[
        ("ID", &|incident| text(&incident["id"])),
        ("KIND", &|incident| text(&incident["kind"])),
        ("SUBJECT", &|incident| text(&incident["subject"])),
        ("SINCE", &|incident| client.when(&incident["since"])),
        ("LOOKED AFTER BY", &|incident| text(&incident["acknowledged_by"])),
        ("MUTED UNTIL", &|incident| client.when(&incident["muted_until"])),
        ("DETAIL", &|incident| text(&incident["detail"])),
    ];
    let open = show(client, &answer, "incidents", columns);
    Ok(if open > 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

impl History {
    async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let cursor = self.cursor.as_deref().map(|cursor| format!("&cursor={}", encoded(cursor))).unwrap_or_default();
        let answer = client.get(&format!("/v1/incidents/history?limit={}{cursor}", self.limit)).await?;
        let columns: &[Column] = &[
            ("ID", &|incident| text(&incident["id"])),
            ("KIND", &|incident| text(&incident["kind"])),
            ("SUBJECT", &|incident| text(&incident["subject"])),
            ("SINCE", &|incident| client.when(&incident["since"])),
            ("ENDED", &|incident| client.when(&incident["ended_at"])),
            ("LOOKED AFTER BY", &|incident| text(&incident["acknowledged_by"])),
            ("DETAIL", &|incident| text(&incident["detail"])),
        ];
        show(client, &answer, "incidents", columns);
        client.tell_next(&answer);
        Ok(ExitCode::SUCCESS)
    }
}
