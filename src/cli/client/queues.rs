//! `taskgate queues`: lists queues, pauses, resumes and purges them, and prints their messages.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::connection::{Client, Failure};
use super::list::{Column, show, text};
use super::show::line;
use super::{At, FAILED};
use runtime::uri::encoded;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Queues {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pause a queue: its tasks wait in the ledger, and its workers are told to stop consuming it
    Pause(Queue),
    /// Resume a paused queue
    Resume(Queue),
    /// Revoke every task that waits in a queue now
    Purge(Purge),
    /// Print the messages of a queue in the order of delivery
    Messages(Messages),
}

#[derive(Debug, Args)]
struct Queue {
    #[command(flatten)]
    at: At,
    /// Its name
    name: String,
}

#[derive(Debug, Args)]
struct Purge {
    #[command(flatten)]
    at: At,
    /// Its name
    name: String,
    /// Confirm that all its tasks are revoked; without this nothing is done
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Messages {
    #[command(flatten)]
    at: At,
    /// Name of the queue
    name: String,
    /// How many, at most 500
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u16,
}

impl Queues {
    pub fn at(&self) -> &At {
        match &self.command {
            None => &self.at,
            Some(Command::Pause(queue) | Command::Resume(queue)) => &queue.at,
            Some(Command::Purge(purge)) => &purge.at,
            Some(Command::Messages(messages)) => &messages.at,
        }
    }

    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        match &self.command {
            None => list(client).await,
            Some(Command::Pause(queue)) => change(client, &queue.name, "pause").await,
            Some(Command::Resume(queue)) => change(client, &queue.name, "resume").await,
            Some(Command::Purge(purge)) => purge.run(client).await,
            Some(Command::Messages(messages)) => messages.run(client).await,
        }
    }
}

async fn list(client: &Client) -> Result<ExitCode, Failure> {
    let answer = client.get("/v1/queues").await?;
    let columns: &[Column] = &[
        ("QUEUE", &|queue| text(&queue["name"])),
        ("WAITING", &|queue| text(&queue["waiting"])),
        ("HELD", &|queue| text(&queue["held"])),
        ("RESERVED", &|queue| text(&queue["reserved"])),
        ("CONSUMERS", &|queue| text(&queue["consumers"])),
        ("OLDEST", &|queue| queue["oldest_seconds"].as_f64().map_or_else(String::new, |age| format!("{age:.0} s"))),
        ("STATE", &|queue| if queue["paused"] == true { "paused".into() } else { "active".into() }),
        ("TROUBLE", &|queue| text(&queue["trouble"])),
    ];
    show(client, &answer, "queues", columns);
    Ok(ExitCode::SUCCESS)
}

async fn change(client: &Client, name: &str, verb: &str) -> Result<ExitCode, Failure> {
    let answer = client.post(&format!("/v1/queues/{}/{verb}", encoded(name)), &[], "{}".to_owned()).await?;
    if client.json {
        line(&answer.text);
    } else {
        eprintln!("{name}: {verb} is done");
    }
    Ok(ExitCode::SUCCESS)
}

impl Purge {
    async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        if !self.yes {
            eprintln!("every task that waits in {} would be revoked; say --yes if that is meant", self.name);
            return Ok(ExitCode::from(FAILED));
        }
        let answer = client.post(&format!("/v1/queues/{}/purge", encoded(&self.name)), &[], "{}".to_owned()).await?;
        if client.json {
            line(&answer.text);
        } else {
            line(answer.member("purged").as_ref().map_or("0", |purged| purged.get()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Messages {
    async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let path = format!("/v1/queues/{}/messages?limit={}", encoded(&self.name), self.limit);
        let answer = client.get(&path).await?;
        let columns: &[Column] = &[
            ("AT", &|message| text(&message["position"])),
            ("ID", &|message| text(&message["task_id"])),
            ("TASK", &|message| text(&message["task"])),
            ("PRIORITY", &|message| text(&message["priority"])),
            ("BYTES", &|message| text(&message["bytes"])),
            ("ETA", &|message| client.when(&message["eta"])),
            ("TROUBLE", &|message| text(&message["error"])),
        ];
        show(client, &answer, "messages", columns);
        Ok(ExitCode::SUCCESS)
    }
}
