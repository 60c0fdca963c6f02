//! `taskgate tasks` and `taskgate workers`: tables for people, JSON for scripts.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use serde_json::value::RawValue;

use super::connection::{Answer, Client, Failure};
use super::show::{line, shown};
use super::{At, Output};
use runtime::uri::encoded;

/// Maximum width of a cell: a long name must not push the rest off the screen.
const WIDEST: usize = 60;

#[derive(Debug, Args)]
pub struct Tasks {
    #[command(flatten)]
    pub at: At,
    /// Celery state, also a custom one; separated by commas or repeated, like all filters
    #[arg(long)]
    status: Vec<String>,
    /// accepted, held, waiting, queued, received, running, retrying, succeeded, failed, revoked, expired, skipped or lost
    #[arg(long)]
    phase: Vec<String>,
    /// Name of the task
    #[arg(long)]
    task: Vec<String>,
    /// Name of the queue
    #[arg(short = 'Q', long)]
    queue: Vec<String>,
    /// Name of the worker
    #[arg(long)]
    worker: Vec<String>,
    /// A label, as key:value
    #[arg(long)]
    label: Vec<String>,
    /// Prefix of an id, or part of name, label, error type or message
    #[arg(short, long)]
    query: Option<String>,
    /// Part of an argument, as JSON
    #[arg(long)]
    argument: Option<String>,
    /// How many, at most 500
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u16,
    /// Where to go on: the `next` of the previous page
    #[arg(long)]
    cursor: Option<String>,
}

#[derive(Debug, Args)]
pub struct Workers {
    #[command(flatten)]
    pub at: At,
}

impl Tasks {
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let lists = [
            ("status", &self.status),
            ("phase", &self.phase),
            ("task", &self.task),
            ("queue", &self.queue),
            ("worker", &self.worker),
            ("label", &self.label),
        ];
        let many = lists.iter().flat_map(|(name, values)| values.iter().map(move |value| (*name, value.as_str())));
        let single =
            [("q", self.query.as_deref()), ("argument", self.argument.as_deref()), ("cursor", self.cursor.as_deref())];
        let single = single.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let mut path = format!("/v1/tasks?limit={}", self.limit);
        for (name, value) in many.chain(single) {
            // Commas separate values, so they are not encoded.
            path.push_str(&format!("&{name}={}", encoded(value).replace("%2C", ",")));
        }
        let answer = client.get(&path).await?;
        let columns: &[Column] = &[
            ("ID", &|task| text(&task["task_id"])),
            ("TASK", &|task| text(&task["task"])),
            ("STATUS", &|task| text(&task["status"])),
            ("PHASE", &|task| text(&task["phase"])),
            ("QUEUE", &|task| text(&task["queue"])),
            ("SUBMITTED", &|task| client.when(&task["submitted_at"])),
            ("RUNTIME", &|task| task["runtime"].as_f64().map_or_else(String::new, |secs| format!("{secs:.3} s"))),
        ];
        show(client, &answer, "tasks", columns);
        client.tell_next(&answer);
        Ok(ExitCode::SUCCESS)
    }
}

impl Workers {
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let answer = client.get("/v1/workers").await?;
        let columns: &[Column] = &[
            ("WORKER", &|worker| text(&worker["hostname"])),
            ("STATUS", &|worker| text(&worker["status"])),
            ("ACTIVE", &|worker| text(&worker["active"])),
            ("PROCESSED", &|worker| text(&worker["processed"])),
            ("POOL", &|worker| text(&worker["pool"])),
            ("SLOTS", &|worker| text(&worker["concurrency"])),
            ("QUEUES", &|worker| {
                let queues = worker["queues"].as_array().map(Vec::as_slice).unwrap_or_default();
                queues.iter().map(text).collect::<Vec<_>>().join(",")
            }),
            ("SOFTWARE", &|worker| text(&worker["software"])),
        ];
        show(client, &answer, "workers", columns);
        Ok(ExitCode::SUCCESS)
    }
}

/// A column's title, and the function that gives an item's cell.
pub type Column<'a> = (&'a str, &'a dyn Fn(&Value) -> String);

/// Prints the list in `member` of the answer, or the whole answer, as `--output` says. Returns the number of items.
pub fn show(client: &Client, answer: &Answer, member: &str, columns: &[Column<'_>]) -> usize {
    let list = answer.member(member).unwrap_or_else(|| celery::task::json::written("[]".to_owned()));
    let items: Vec<&RawValue> = serde_json::from_str(list.get()).unwrap_or_default();
    match client.output {
        Output::Json => line(&answer.text),
        Output::Ndjson => items.iter().for_each(|item| line(item.get())),
        Output::Table => {
            let items: Vec<Value> = items.iter().filter_map(|item| serde_json::from_str(item.get()).ok()).collect();
            table(&items, columns).iter().for_each(|row| line(row));
        }
    }
    items.len()
}

/// Columns as wide as their widest cell, titles first.
fn table(items: &[Value], columns: &[Column<'_>]) -> Vec<String> {
    let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let cells = |item| columns.iter().map(|(_, cell)| fitting(&cell(item))).collect();
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(items.iter().map(cells)).collect();
    let width = |place: usize| rows.iter().map(|row| row[place].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let written = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(written).collect()
}

/// One line, without control characters, and not too long.
fn fitting(cell: &str) -> String {
    let cell = shown(cell);
    if cell.chars().count() <= WIDEST {
        return cell;
    }
    cell.chars().take(WIDEST - 1).chain(['…']).collect()
}

pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_as_wide_as_it_needs_to_be_and_obeys_nobody() {
        let columns: &[Column] = &[("NAME", &|item| text(&item["name"])), ("AT", &|item| text(&item["at"]))];
        let items = [
            json!({"name": "a\u{1b}[31m", "at": "2026-11-20T18:17:30Z"}),
            json!({"name": "x".repeat(100), "at": null}),
        ];
        let rows = table(&items, columns);
        assert_eq!(rows[1], format!("{:<60}  2026-11-20T18:17:30Z", "a?[31m"));
        assert_eq!(rows[2], format!("{}…", "x".repeat(59)));
    }
}
