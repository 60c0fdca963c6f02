//! Shows a task's progress on a terminal: a bar if the progress is known, else a spinner; plain lines if it is not a terminal.
//!
//! It is written to standard error, so it is visible while the result goes to a file. Control characters from tasks are replaced.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;

use super::follow::Event;
use celery::task::json::Fields;
use celery::task::progress::Progress;

/// Steps of the bar: a task's total may be anything from 1 to millions, and a fraction.
const STEPS: u64 = 1_000;
const TICK: Duration = Duration::from_millis(120);

pub enum Show {
    /// A line of JSON on standard output for each event.
    Json,
    /// A line on standard error for each change.
    Lines(String),
    Bar(ProgressBar),
}

impl Show {
    /// Chooses the display that suits standard error.
    pub fn fitting(json: bool) -> Self {
        if json {
            return Self::Json;
        }
        let bar = ProgressBar::new(STEPS).with_style(wheel());
        // The bar is hidden on a terminal that cannot move its cursor.
        if !std::io::stderr().is_terminal() || bar.is_hidden() {
            return Self::Lines(String::new());
        }
        bar.enable_steady_tick(TICK);
        Self::Bar(bar)
    }

    pub fn see(&mut self, event: &Event) {
        match self {
            Self::Json => line(&event.data),
            Self::Lines(last) => {
                let text = sentence(event);
                if *last != text {
                    eprintln!("{text}");
                    *last = text;
                }
            }
            Self::Bar(bar) => draw(bar, event),
        }
    }

    /// Removes the bar from the terminal.
    pub fn end(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Prints a line to standard output. A closed pipe is not a failure.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.replace('\n', " "));
}

/// Replaces control characters, which a terminal would interpret.
pub fn shown(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

fn draw(bar: &ProgressBar, event: &Event) {
    let progress = progress(event);
    match progress.as_ref().and_then(Progress::fraction) {
        Some(fraction) => {
            bar.set_style(measured());
            bar.set_position((fraction * STEPS as f64) as u64);
        }
        None if bar.position() == 0 => bar.set_style(wheel()),
        None => {}
    }
    bar.set_message(sentence(event));
}

/// `PROGRESS 3/10: page 3`
fn sentence(event: &Event) -> String {
    let Ok(fields) = Fields::parse(&event.data) else { return String::new() };
    if let Some((completed, total)) = members(&fields) {
        return format!("{completed} of {total}");
    }
    let status = fields.text("status").unwrap_or_default();
    let Some(progress) = progress(event) else { return shown(&status) };
    let amount = match (progress.done, progress.total) {
        (Some(done), Some(total)) => format!(" {done}/{total}"),
        (Some(done), None) => format!(" {done}"),
        (None, _) => String::new(),
    };
    let message = progress.message.map(|text| format!(": {text}")).unwrap_or_default();
    shown(&format!("{status}{amount}{message}"))
}

/// How many members of a group are done, and how many there are; `None` for a task.
fn members<'a>(fields: &Fields<'a>) -> Option<(&'a str, &'a str)> {
    fields.get("group_id")?;
    fields.get("completed").map(RawValue::get).zip(fields.get("total").map(RawValue::get))
}

/// Reads the progress: of a task from `meta` (an event) or `progress` (a snapshot), of a group from the body itself.
fn progress(event: &Event) -> Option<Progress> {
    let fields = Fields::parse(&event.data).ok()?;
    if members(&fields).is_some() {
        let whole = celery::task::json::verbatim(event.data.clone()).ok()?;
        return Progress::read(&whole);
    }
    ["meta", "progress"].iter().find_map(|name| Progress::read(fields.get(name)?))
}

fn measured() -> ProgressStyle {
    style("{bar:30} {percent:>3} % {wide_msg}")
}

fn wheel() -> ProgressStyle {
    style("{spinner} {elapsed} {wide_msg}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is fixed").progress_chars("━━─")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(data: &str) -> String {
        sentence(&Event { id: None, kind: "progress".into(), data: data.into() })
    }

    #[test]
    fn an_event_is_said_in_a_few_words() {
        assert_eq!(said(r#"{"task_id": "a", "status": "STARTED", "meta": null}"#), "STARTED");
        let meta = r#"{"status": "PROGRESS", "meta": {"current": 3, "total": 10, "message": "page 3"}}"#;
        assert_eq!(said(meta), "PROGRESS 3/10: page 3");
        assert_eq!(said(r#"{"status": "PROGRESS", "progress": {"done": 0.5}}"#), "PROGRESS 0.5");
        assert_eq!(said(r#"{"group_id": "g", "completed": 2, "total": 5}"#), "2 of 5");
        let evil = r#"{"status": "PROGRESS", "meta": {"message": "\u001b[2Jgone\nand \u0007"}}"#;
        assert_eq!(said(evil), "PROGRESS: ?[2Jgone?and ?");
    }
}
