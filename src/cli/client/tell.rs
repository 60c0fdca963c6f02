//! `taskgate retry`, `explain`, `audit` and `events`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::At;
use super::connection::{Client, Failure};
use super::follow::watch_all;
use super::list::{Column, show, text};
use super::show::{line, shown};
use runtime::uri::encoded;

#[derive(Debug, Args)]
pub struct Retry {
    #[command(flatten)]
    pub at: At,
    /// Id of a task that has ended, or of a group
    id: String,
    /// Also if it has not ended: revoke it, then send it again
    #[arg(long)]
    restart: bool,
}

#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    pub at: At,
    /// Id of a task or a group
    id: String,
}

#[derive(Debug, Args)]
pub struct Acts {
    #[command(flatten)]
    pub at: At,
    /// How many, at most 500
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u16,
    /// Where to go on: the `next` of the previous page
    #[arg(long)]
    cursor: Option<String>,
}

#[derive(Debug, Args)]
pub struct Events {
    #[command(flatten)]
    pub at: At,
    /// Only of this task; repeated or separated by commas, like all filters
    #[arg(long)]
    task: Vec<String>,
    /// Only of this queue
    #[arg(short = 'Q', long)]
    queue: Vec<String>,
    /// Only changes to this phase
    #[arg(long)]
    phase: Vec<String>,
    /// Only from this worker
    #[arg(long)]
    worker: Vec<String>,
    /// Only of tasks with this label, as key:value
    #[arg(long)]
    label: Vec<String>,
    /// Stop after this many events
    #[arg(short = 'n', long, value_name = "NUMBER")]
    count: Option<usize>,
}

impl Retry {
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let path = format!("/v1/tasks/{}/retry", encoded(&self.id));
        let answer = client.post(&path, &[], json!({"restart": self.restart}).to_string()).await?;
        if client.json {
            line(&answer.text);
        } else if let Some(id) = answer.text_of("task_id") {
            line(&id);
        } else {
            let members = answer.member("members").and_then(|list| serde_json::from_str::<Vec<Value>>(list.get()).ok());
            let members = members.unwrap_or_default();
            members.iter().filter_map(|member| member["retried_as"].as_str()).for_each(line);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Explain {
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let answer = client.get(&format!("/v1/tasks/{}/explain", encoded(&self.id))).await?;
        if client.json {
            line(&answer.text);
            return Ok(ExitCode::SUCCESS);
        }
        line(&shown(&answer.text_of("sentence").unwrap_or_default()));
        let evidence = answer.member("evidence").and_then(|value| serde_json::from_str::<Value>(value.get()).ok());
        for (name, value) in
            evidence.iter().filter_map(Value::as_object).flatten().filter(|(_, value)| !value.is_null())
        {
            line(&shown(&format!("  {name}: {}", text(value))));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Acts {
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let cursor = self.cursor.as_deref().map(|cursor| format!("&cursor={}", encoded(cursor))).unwrap_or_default();
        let answer = client.get(&format!("/v1/audit?limit={}{cursor}", self.limit)).await?;
        let columns: &[Column] = &[
            ("AT", &|act| client.when(&act["at"])),
            ("WHO", &|act| text(&act["who"])),
            ("WHAT", &|act| text(&act["what"])),
            ("TARGET", &|act| text(&act["target"])),
            ("FROM", &|act| text(&act["from"])),
            ("VERDICT", &|act| text(&act["verdict"])),
        ];
        show(client, &answer, "audit", columns);
        client.tell_next(&answer);
        Ok(ExitCode::SUCCESS)
    }
}

impl Events {
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let lists = [
            ("task", &self.task),
            ("queue", &self.queue),
            ("phase", &self.phase),
            ("worker", &self.worker),
            ("label", &self.label),
        ];
        let given = lists.iter().filter(|(_, values)| !values.is_empty());
        let query: Vec<String> =
            given.map(|(name, values)| format!("{name}={}", encoded(&values.join(",")).replace("%2C", ","))).collect();
        let path = format!("/v1/events?{}", query.join("&"));
        let mut left = self.count.unwrap_or(usize::MAX);
        watch_all(client, path.trim_end_matches('?'), |event| {
            if client.json {
                line(&event.data);
            } else if let Ok(told) = serde_json::from_str::<Value>(&event.data) {
                line(&shown(&sentence(client, &told)));
            }
            left = left.saturating_sub(1);
            left > 0
        })
        .await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `18:17:30 0199… tasks.add running at w1@host`
fn sentence(client: &Client, event: &Value) -> String {
    let worker = event["worker"].as_str().map(|worker| format!(" at {worker}")).unwrap_or_default();
    let reason = event["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    let [id, task, phase] = ["task_id", "task", "phase"].map(|name| text(&event[name]));
    format!("{} {id} {task} {phase}{worker}{reason}", client.when(&event["at"]))
}
