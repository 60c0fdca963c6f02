//! `taskgate result` and `taskgate watch`: print the result of a task, or follow it to its end.

use std::process::ExitCode;

use clap::Args;

use super::connection::{Answer, Client, Failure};
use super::follow::follow;
use super::show::{Show, line, shown};
use super::{At, FAILED, UNFINISHED};
use runtime::uri::encoded;

/// Arguments of `taskgate result`.
#[derive(Debug, Args)]
pub struct Result {
    #[command(flatten)]
    pub at: At,
    /// Id of a task or a group
    id: String,
    /// Wait until it is finished
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
pub struct Watch {
    #[command(flatten)]
    pub at: At,
    /// Id of a task or a group
    id: String,
}

impl Result {
    pub async fn run(&self, client: &Client) -> std::result::Result<ExitCode, Failure> {
        let answer = if self.wait {
            follow(client, &self.id, |_| {}).await?
        } else {
            client.get(&format!("/result/{}", encoded(&self.id))).await?
        };
        Ok(settle(client, &answer))
    }
}

impl Watch {
    pub async fn run(&self, client: &Client) -> std::result::Result<ExitCode, Failure> {
        watch(client, &self.id).await
    }
}

/// Shows the progress of a task, then its result.
pub async fn watch(client: &Client, id: &str) -> std::result::Result<ExitCode, Failure> {
    let mut show = Show::fitting(client.json);
    let outcome = follow(client, id, |event| show.see(event)).await;
    show.end();
    Ok(settle(client, &outcome?))
}

/// Prints a result body: the return value, or what went wrong.
pub fn settle(client: &Client, answer: &Answer) -> ExitCode {
    let is = |name| answer.member(name).is_some_and(|value| value.get() == "true");
    let status = answer.text_of("status").unwrap_or_default();
    let is_success = is("successful") || status == "SUCCESS";
    if client.json {
        line(&answer.text);
    } else if is_success {
        line(answer.member("result").as_ref().map_or("null", |result| result.get()));
    } else if is("ready") {
        eprintln!("{}", ending(&status, answer));
    } else {
        eprintln!("{status}: not finished yet");
    }
    match (is_success, is("ready")) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(FAILED),
        (false, false) => ExitCode::from(UNFINISHED),
    }
}

/// `FAILURE: KeyError: 'boom'`, and the traceback if there is one.
fn ending(status: &str, answer: &Answer) -> String {
    let text = said(status, answer);
    text.lines().map(|line| shown(&line.replace('\t', "    "))).collect::<Vec<_>>().join("\n")
}

fn said(status: &str, answer: &Answer) -> String {
    let error = answer.member("error").and_then(|error| {
        let fields = celery::task::json::Fields::parse(error.get()).ok()?;
        Some(format!(": {}: {}", fields.text("type")?, fields.text("message").unwrap_or_default()))
    });
    let traceback = answer.text_of("traceback").map(|text| format!("\n{}", text.trim_end())).unwrap_or_default();
    format!("{status}{}{traceback}", error.unwrap_or_default())
}
