//! `taskgate dead-letters`: lists tasks that failed for good, sends them again, or dismisses them.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::connection::{Client, Failure};
use super::list::{Column, show, text};
use super::show::line;
use super::{At, FAILED};
use runtime::uri::encoded;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DeadLetters {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    filter: Filter,
    /// How many, at most 500
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u16,
    /// Where to go on: the `next` of the previous page
    #[arg(long)]
    cursor: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Which dead letters.
#[derive(Debug, Args)]
struct Filter {
    /// Name of the task
    #[arg(long)]
    task: Vec<String>,
    /// Name of the queue
    #[arg(short = 'Q', long)]
    queue: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send dead letters again: one by its id, or all that match
    Requeue(Requeue),
    /// Dismiss dead letters without sending them: one by its id, or all that match
    Dismiss(Dismiss),
}

#[derive(Debug, Args)]
struct Requeue {
    #[command(flatten)]
    at: At,
    /// Id of a task; without one those of --task and --queue are meant
    id: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// Every dead letter, when neither an id nor a filter is given
    #[arg(long)]
    all: bool,
    /// Send at most this many per second
    #[arg(long, value_name = "NUMBER")]
    max_per_second: Option<f64>,
    /// Only list what would be sent
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Dismiss {
    #[command(flatten)]
    at: At,
    /// Id of a task; without one those of --task and --queue are meant
    id: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// Every dead letter, when neither an id nor a filter is given
    #[arg(long)]
    all: bool,
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.task.is_empty() && self.queue.is_empty()
    }

    fn query(&self) -> String {
        let pairs = [("task", &self.task), ("queue", &self.queue)];
        let pairs = pairs.iter().filter(|(_, values)| !values.is_empty());
        pairs.map(|(name, values)| format!("&{name}={}", encoded(&values.join(",")).replace("%2C", ","))).collect()
    }

    fn json(&self) -> Value {
        let pairs = [("task", &self.task), ("queue", &self.queue)];
        let pairs = pairs.into_iter().filter(|(_, values)| !values.is_empty());
        Value::Object(pairs.map(|(name, values)| (name.to_owned(), json!(values))).collect::<Map<_, _>>())
    }
}

impl DeadLetters {
    pub fn at(&self) -> &At {
        match &self.command {
            None => &self.at,
            Some(Command::Requeue(requeue)) => &requeue.at,
            Some(Command::Dismiss(dismiss)) => &dismiss.at,
        }
    }

    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        match &self.command {
            None => self.list(client).await,
            Some(Command::Requeue(requeue)) => requeue.run(client).await,
            Some(Command::Dismiss(dismiss)) => dismiss.run(client).await,
        }
    }

    async fn list(&self, client: &Client) -> Result<ExitCode, Failure> {
        let cursor = self.cursor.as_deref().map(|cursor| format!("&cursor={}", encoded(cursor))).unwrap_or_default();
        let path = format!("/v1/dead-letters?limit={}{}{cursor}", self.limit, self.filter.query());
        let answer = client.get(&path).await?;
        let columns: &[Column] = &[
            ("ID", &|task| text(&task["task_id"])),
            ("TASK", &|task| text(&task["task"])),
            ("QUEUE", &|task| text(&task["queue"])),
            ("PHASE", &|task| text(&task["phase"])),
            ("ERROR", &|task| text(&task["error"]["type"])),
            ("FINISHED", &|task| client.when(&task["finished_at"])),
        ];
        show(client, &answer, "tasks", columns);
        client.tell_next(&answer);
        Ok(ExitCode::SUCCESS)
    }
}

/// Refuses a call without id, filter and `--all`: an omission must not mean every dead letter.
fn refused() -> ExitCode {
    eprintln!("which ones? name an id, --task or --queue, or say --all");
    ExitCode::from(FAILED)
}

impl Requeue {
    async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let answer = match &self.id {
            Some(id) => client.post(&format!("/v1/dead-letters/{}/requeue", encoded(id)), &[], "{}".to_owned()).await?,
            None if self.filter.is_empty() && !self.all => return Ok(refused()),
            None => {
                let mut body = json!({"filter": self.filter.json(), "dry_run": self.dry_run});
                if let Some(rate) = self.max_per_second {
                    body["max_per_second"] = rate.into();
                }
                client.post("/v1/dead-letters/requeue", &[], body.to_string()).await?
            }
        };
        if client.json || self.id.is_some() {
            line(&if client.json { answer.text } else { answer.text_of("task_id").unwrap_or_default() });
            return Ok(ExitCode::SUCCESS);
        }
        let number = |name| answer.member(name).map_or_else(|| "0".to_owned(), |value| value.get().to_owned());
        let rest = if answer.member("remaining").is_some_and(|value| value.get() == "true") {
            "; more remain, repeat it"
        } else {
            ""
        };
        line(&format!("{} matched, {} sent again{rest}", number("matched"), number("requeued")));
        Ok(ExitCode::SUCCESS)
    }
}

impl Dismiss {
    async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let path = match &self.id {
            Some(id) => format!("/v1/dead-letters/{}", encoded(id)),
            None if self.filter.is_empty() && !self.all => return Ok(refused()),
            None => format!("/v1/dead-letters?{}", self.filter.query().trim_start_matches('&')),
        };
        let answer = client.delete(path.trim_end_matches('?')).await?;
        if client.json {
            line(&answer.text);
        } else {
            let deleted = answer.member("deleted").map_or_else(|| "1".to_owned(), |value| value.get().to_owned());
            eprintln!("{deleted} put away");
        }
        Ok(ExitCode::SUCCESS)
    }
}
