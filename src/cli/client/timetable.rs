//! `taskgate schedules`: lists, creates and changes the schedules of a gateway.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::At;
use super::connection::{Client, Failure};
use super::list::{Column, show, text};
use super::show::line;
use super::submit::{read, value};
use runtime::uri::encoded;

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub at: At,
}

/// Arguments of a command about one schedule.
#[derive(Debug, Args)]
pub struct Act {
    #[command(flatten)]
    pub at: At,
    /// Its name
    name: String,
}

#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    pub at: At,
    /// Its name
    #[arg(required_unless_present = "file")]
    name: Option<String>,
    /// Name of the task
    #[arg(required_unless_present = "file")]
    task: Option<String>,
    /// Its arguments: JSON; whatever is not valid JSON is a string
    #[arg(allow_negative_numbers = true)]
    args: Vec<String>,
    /// Crontab with five fields, such as "0 */2 * * *"
    #[arg(long, group = "rhythm")]
    cron: Option<String>,
    /// Interval in seconds
    #[arg(long, value_name = "SECONDS", group = "rhythm")]
    every: Option<f64>,
    /// Fire once, at this time, such as 2026-11-20T18:00:00Z
    #[arg(long = "once-at", value_name = "TIME", group = "rhythm")]
    once_at: Option<String>,
    /// Time zone of --cron, such as Asia/Seoul; default UTC
    #[arg(long, value_name = "ZONE", requires = "cron")]
    timezone: Option<String>,
    /// Queue of its tasks
    #[arg(short = 'Q', long)]
    queue: Option<String>,
    /// Create it paused: it fires only after `schedules resume`
    #[arg(long)]
    paused: bool,
    /// The whole document as JSON; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rhythm", "queue", "paused", "name"])]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Delete {
    #[command(flatten)]
    pub at: At,
    /// Its name
    name: String,
}

impl Create {
    /// Prints the first time at which it fires.
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let body = match &self.file {
            Some(path) => read(path)?,
            None => self.document(),
        };
        let answer = client.post("/v1/schedules", &[], body).await?;
        let next = answer.text_of("next_run_at").map(|at| client.when(&at.into())).unwrap_or_default();
        client.tell(&answer, &format!("{}: fires {next}", answer.text_of("name").unwrap_or_default()));
        Ok(ExitCode::SUCCESS)
    }

    fn document(&self) -> String {
        let args: Vec<Box<RawValue>> = self.args.iter().map(|text| value(text)).collect();
        let mut members = Map::new();
        let texts = [
            ("name", &self.name),
            ("task", &self.task),
            ("cron", &self.cron),
            ("at", &self.once_at),
            ("timezone", &self.timezone),
            ("queue", &self.queue),
        ];
        for (name, text) in texts {
            members.extend(text.as_ref().map(|text| (name.to_owned(), Value::from(text.as_str()))));
        }
        members.extend(self.every.map(|every| ("every".to_owned(), json!(every))));
        members.extend(Some(("paused".to_owned(), json!(self.paused))).filter(|_| self.paused));
        let members = Value::Object(members).to_string();
        // The arguments stay text, so that numbers keep their digits: `serde_json::Value` would change them.
        let args = serde_json::to_string(&args).expect("JSON texts are JSON");
        format!("{},\"args\":{args}}}", members.trim_end_matches('}'))
    }
}

impl Delete {
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        client.delete(&format!("/v1/schedules/{}", encoded(&self.name))).await?;
        eprintln!("{}: deleted", self.name);
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let answer = client.get("/v1/schedules?limit=500").await?;
        let columns: &[Column] = &[
            ("NAME", &|schedule| text(&schedule["name"])),
            ("TASK", &|schedule| {
                let canvas = ["chain", "group", "chord"].into_iter().find(|form| !schedule[*form].is_null());
                canvas.map_or_else(|| text(&schedule["task"]), str::to_owned)
            }),
            ("WHEN", &|schedule| {
                let said = ["cron", "every", "at"].into_iter().find(|form| !schedule[*form].is_null());
                said.map_or_else(String::new, |form| format!("{form} {}", text(&schedule[form])))
            }),
            ("ZONE", &|schedule| text(&schedule["timezone"])),
            ("STATE", &|schedule| if schedule["paused"] == true { "paused".into() } else { "active".into() }),
            ("NEXT", &|schedule| client.when(&schedule["next_run_at"])),
            ("LAST", &|schedule| client.when(&schedule["last_run_at"])),
        ];
        show(client, &answer, "schedules", columns);
        Ok(ExitCode::SUCCESS)
    }
}

impl Act {
    /// `verb`: `pause`, `resume` or `run`.
    pub async fn run(&self, client: &Client, verb: &str) -> Result<ExitCode, Failure> {
        let path = format!("/v1/schedules/{}/{verb}", encoded(&self.name));
        let answer = client.post(&path, &[], "{}".to_owned()).await?;
        if client.json {
            line(&answer.text);
        } else if let Some(id) = answer.text_of("task_id").filter(|_| verb == "run") {
            line(&id);
        } else {
            eprintln!("{}: {verb} is done", self.name);
        }
        Ok(ExitCode::SUCCESS)
    }
}
