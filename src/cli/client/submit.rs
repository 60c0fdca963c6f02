//! `taskgate submit`: a task by its name and arguments, or any signature from a file.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::At;
use super::connection::{Client, Failure};
use super::follow::follow;
use super::settle::{settle, watch};
use super::show::line;
use celery::task::json;

#[derive(Debug, Args)]
pub struct Submit {
    #[command(flatten)]
    pub at: At,
    /// Name of the task
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    task: Option<String>,
    /// Its arguments: JSON; whatever is not valid JSON is a string
    #[arg(allow_negative_numbers = true)]
    args: Vec<String>,
    /// A keyword argument, as name=value
    #[arg(short, long = "kwarg", value_name = "NAME=VALUE", allow_hyphen_values = true)]
    kwargs: Vec<String>,
    /// Queue of the task; default as the catalog and the routes say
    #[arg(short = 'Q', long)]
    queue: Option<String>,
    /// 0 is served first, 9 last
    #[arg(long)]
    priority: Option<u8>,
    /// Seconds to wait before it starts
    #[arg(long, value_name = "SECONDS", conflicts_with = "eta")]
    countdown: Option<f64>,
    /// Time at which it starts, such as 2026-11-20T18:00:00Z
    #[arg(long, value_name = "TIME")]
    eta: Option<String>,
    /// Do not start the task after this: seconds, or a time
    #[arg(long, value_name = "SECONDS|TIME")]
    expires: Option<String>,
    /// Id of the task; default a new one
    #[arg(long, value_name = "ID")]
    task_id: Option<String>,
    /// A label, as key=value
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Makes it safe to repeat this call
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// A signature, chain, group or chord as JSON; - for standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Wait for the end and print the result; the exit code says whether the task succeeded
    #[arg(long, conflicts_with = "watch")]
    wait: bool,
    /// Same as --wait, and show the task's progress
    #[arg(long)]
    watch: bool,
}

/// Fields that were not given are left out.
#[derive(Serialize)]
struct Signature<'a> {
    task: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    kwargs: BTreeMap<&'a str, Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    countdown: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
}

impl Submit {
    pub async fn run(&self, client: &Client) -> Result<ExitCode, Failure> {
        let body = match &self.file {
            Some(path) => read(path)?,
            None => self.signature()?,
        };
        let key = self.idempotency_key.as_deref().map(|key| ("idempotency-key", key));
        let answer = client.post("/v1/tasks", key.as_slice(), body).await?;
        let id = answer.text_of("task_id").or_else(|| answer.text_of("group_id"));
        let id = id.ok_or_else(|| Failure::Refused(format!("the answer names no task: {}", answer.text)))?;
        if self.watch {
            if !client.json {
                // Print the id first: a user who interrupts the wait can watch the task later.
                eprintln!("{id}");
            }
            return watch(client, &id).await;
        }
        if self.wait {
            return Ok(settle(client, &follow(client, &id, |_| {}).await?));
        }
        line(if client.json { &answer.text } else { &id });
        Ok(ExitCode::SUCCESS)
    }

    fn signature(&self) -> Result<String, Failure> {
        let pairs = |texts: &'_ [String]| -> Result<Vec<(String, String)>, Failure> {
            let pair = |text: &String| match text.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
                _ => Err(Failure::Here(format!("{text:?} is not of the form name=value"))),
            };
            texts.iter().map(pair).collect()
        };
        let (kwargs, labels) = (pairs(&self.kwargs)?, pairs(&self.labels)?);
        let signature = Signature {
            task: self.task.as_deref().unwrap_or_default(),
            args: self.args.iter().map(|text| value(text)).collect(),
            kwargs: kwargs.iter().map(|(name, text)| (name.as_str(), value(text))).collect(),
            queue: self.queue.as_deref(),
            priority: self.priority,
            countdown: self.countdown,
            eta: self.eta.as_deref(),
            expires: self.expires.as_deref().map(value),
            task_id: self.task_id.as_deref(),
            labels: labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        };
        Ok(serde_json::to_string(&signature).expect("texts and JSON are JSON"))
    }
}

/// JSON as it was written, so that numbers keep their digits; anything else becomes a string.
pub(super) fn value(text: &str) -> Box<RawValue> {
    let read = json::verbatim(text.trim().to_owned());
    read.unwrap_or_else(|_| json::written(serde_json::Value::from(text).to_string()))
}

pub(super) fn read(path: &std::path::Path) -> Result<String, Failure> {
    let mut text = String::new();
    let done = if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    done.map_err(|error| Failure::Here(format!("{}: {error}", path.display())))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_is_a_text_and_numbers_keep_their_digits() {
        for (given, sent) in [
            ("3", "3"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("{\"a\": [1.50]}", "{\"a\": [1.50]}"),
            ("hello", "\"hello\""),
            ("\"3\"", "\"3\""),
            ("", "\"\""),
            ("a \"b\"", "\"a \\\"b\\\"\""),
        ] {
            assert_eq!(value(given).get(), sent);
        }
    }
}
