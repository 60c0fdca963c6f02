//! `taskgate schedules`: the timetable of a gateway.

use std::process::ExitCode;

use clap::Args;

use super::At;
use super::connection::{Client, Failure, encoded};
use super::list::{Column, seconds_of, show, text};
use super::show::line;

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub at: At,
}

/// Something that is done to one schedule.
#[derive(Debug, Args)]
pub struct Act {
    #[command(flatten)]
    pub at: At,
    /// Its name
    name: String,
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
            ("NEXT", &|schedule| seconds_of(&schedule["next_run_at"])),
            ("LAST", &|schedule| seconds_of(&schedule["last_run_at"])),
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
