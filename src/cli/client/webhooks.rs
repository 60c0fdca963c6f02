//! `taskgate webhooks`: lists and changes webhooks, and lists their deliveries.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::At;
use super::connection::{Client, Failure};
use super::list::{Column, show, text};
use super::show::line;
use runtime::uri::encoded;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Webhooks {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a webhook; prints its id and, only this once, its signing secret
    Create(Create),
    /// Remove a webhook
    Delete(Webhook),
    /// Disable a webhook
    Disable(Webhook),
    /// Enable a webhook again
    Enable(Webhook),
    /// List the deliveries of a webhook, newest first
    Deliveries(Webhook),
    /// Send a delivery once more
    Resend(Resend),
}

#[derive(Debug, Args)]
struct Webhook {
    #[command(flatten)]
    at: At,
    /// Its id
    id: String,
}

#[derive(Debug, Args)]
struct Create {
    #[command(flatten)]
    at: At,
    /// Address to call, https://…
    address: String,
    /// Events to send, such as `failed`; repeated or separated by commas; default every end of a task
    #[arg(long, value_delimiter = ',')]
    on: Vec<String>,
    /// Tasks to send events of, such as `mail.*`; default all
    #[arg(long, value_delimiter = ',')]
    task: Vec<String>,
    /// What the webhook is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

#[derive(Debug, Args)]
struct Resend {
    #[command(flatten)]
    at: At,
    /// Id of the webhook
    id: String,
    /// Id of the delivery
    delivery: String,
}

impl Webhooks {
    pub fn at(&self) -> &At {
        match &self.command {
            None => &self.at,
            Some(Command::Create(create)) => &create.at,
            Some(
                Command::Delete(webhook)
                | Command::Disable(webhook)
                | Command::Enable(webhook)
                | Command::Deliveries(webhook),
            ) => &webhook.at,
            Some(Command::Resend(resend)) => &resend.at,
        }
    }

    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        match &self.command {
            None => list(client).await,
            Some(Command::Create(create)) => create.run(client).await,
            Some(Command::Delete(webhook)) => {
                client.delete(&webhook.path()).await?;
                eprintln!("{}: deleted", webhook.id);
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::Disable(webhook)) => webhook.set(client, false).await,
            Some(Command::Enable(webhook)) => webhook.set(client, true).await,
            Some(Command::Deliveries(webhook)) => webhook.deliveries(client).await,
            Some(Command::Resend(resend)) => {
                let path =
                    format!("/v1/webhooks/{}/deliveries/{}/resend", encoded(&resend.id), encoded(&resend.delivery));
                let answer = client.post(&path, &[], "{}".to_owned()).await?;
                client.tell(&answer, &format!("{}: will be sent once more", resend.delivery));
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

async fn list(client: &Client) -> Result<ExitCode, Failure> {
    let answer = client.get("/v1/webhooks?limit=500").await?;
    let columns: &[Column] = &[
        ("ID", &|webhook| text(&webhook["id"])),
        ("ADDRESS", &|webhook| text(&webhook["url"])),
        ("ON", &|webhook| joined(&webhook["on"])),
        ("TASKS", &|webhook| joined(&webhook["tasks"])),
        ("STATE", &|webhook| if webhook["enabled"] == true { "enabled".into() } else { "disabled".into() }),
        ("WHY", &|webhook| text(&webhook["disabled_reason"])),
    ];
    show(client, &answer, "webhooks", columns);
    Ok(ExitCode::SUCCESS)
}

fn joined(list: &Value) -> String {
    list.as_array().map(|items| items.iter().map(text).collect::<Vec<_>>().join(",")).unwrap_or_default()
}

impl Webhook {
    fn path(&self) -> String {
        format!("/v1/webhooks/{}", encoded(&self.id))
    }

    async fn set(&self, client: &Client, enabled: bool) -> Result<ExitCode, Failure> {
        let answer = client.patch(&self.path(), json!({"enabled": enabled}).to_string()).await?;
        client.tell(&answer, &format!("{}: {}", self.id, if enabled { "enabled" } else { "disabled" }));
        Ok(ExitCode::SUCCESS)
    }

    async fn deliveries(&self, client: &Client) -> Result<ExitCode, Failure> {
        let answer = client.get(&format!("{}/deliveries?limit=100", self.path())).await?;
        let columns: &[Column] = &[
            ("ID", &|delivery| text(&delivery["id"])),
            ("TYPE", &|delivery| text(&delivery["type"])),
            ("TASK", &|delivery| text(&delivery["task_id"])),
            ("STATE", &|delivery| text(&delivery["state"])),
            ("ATTEMPTS", &|delivery| text(&delivery["attempts"])),
            ("ANSWER", &|delivery| text(&delivery["last_status"])),
            ("ERROR", &|delivery| text(&delivery["last_error"])),
            ("CREATED", &|delivery| client.when(&delivery["created_at"])),
        ];
        show(client, &answer, "deliveries", columns);
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let mut body = json!({"url": self.address});
        if !self.on.is_empty() {
            body["on"] = json!(self.on);
        }
        if !self.task.is_empty() {
            body["tasks"] = json!(self.task);
        }
        if let Some(description) = &self.description {
            body["description"] = description.as_str().into();
        }
        let answer = client.post("/v1/webhooks", &[], body.to_string()).await?;
        if client.json {
            line(&answer.text);
        } else {
            line(&format!(
                "{} {}",
                answer.text_of("id").unwrap_or_default(),
                answer.text_of("secret").unwrap_or_default()
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
