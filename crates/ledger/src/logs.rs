//! Task logs: lines of each attempt in the order of arrival, numbered consecutively within the task.
//!
//! [`append`] decides which lines of an event are new; it is pure and shared by both databases. A worker may send an event twice, so known
//! lines are dropped. A message may be delivered twice, so a second run is recognised by its first line. Lines may get lost, and an attempt
//! may print for ever, so gaps and the size limit become notes.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Error;
use super::rows::clean;
use celery::task::TaskId;
use celery::task_log::{LogLine, TaskLog};
use runtime::clock::Time;

/// The level of notes, which taskgate adds to the log.
const NOTE: &str = "NOTE";

/// A line, or a note about missing lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Position within the attempt; null for a note.
    #[serde(rename = "s")]
    pub seq: Option<i64>,
    /// Microseconds since 1970.
    #[serde(rename = "a")]
    pub at: i64,
    #[serde(rename = "l")]
    pub level: String,
    #[serde(rename = "t")]
    pub text: String,
}

/// Lines of an attempt that arrived together.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Number of the first line within the task, from 1.
    pub first_no: i64,
    /// 0 for the first.
    pub attempt: i32,
    pub lines: Vec<Line>,
}

/// The state of an attempt's log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// The number of the next new line.
    pub next_seq: i64,
    /// Bytes of text so far.
    pub bytes: i64,
    /// When the first line of the present run was logged.
    pub began_at: i64,
    /// Whether the limit was reached: nothing more is kept.
    pub closed: bool,
}

/// The lines that an event adds to an attempt, and the new state; `None` when the event has nothing new.
pub fn append(before: Option<&Standing>, news: &TaskLog, most: i64, now: Time) -> Option<(Vec<Line>, Standing)> {
    let mut standing = before.cloned().unwrap_or_default();
    if standing.closed {
        return None;
    }
    let began_at = news.lines.first().map_or(0, |line| micros(line.at));
    let is_again = news.seq == 0 && standing.next_seq > 0 && !news.lines.is_empty() && began_at != standing.began_at;
    let mut lines = Vec::new();
    let note = |lines: &mut Vec<Line>, text: String| {
        lines.push(Line { seq: None, at: now.0, level: NOTE.to_owned(), text });
    };
    if is_again {
        standing.next_seq = 0;
        note(&mut lines, "the task runs again".to_owned());
    }
    if news.seq == 0 && standing.next_seq == 0 {
        standing.began_at = began_at;
    }
    let missing = news.seq - standing.next_seq;
    if missing > 0 {
        note(&mut lines, format!("{missing} lines were lost between the worker and the gateway"));
        standing.next_seq = news.seq;
    }
    for (seq, line) in (news.seq..).zip(&news.lines).filter(|(seq, _)| *seq >= standing.next_seq) {
        // Its line end counts too, so that empty lines reach the bound.
        let size = i64::try_from(line.text.len()).map_or(i64::MAX, |text| text.saturating_add(1));
        if standing.bytes.saturating_add(size) > most {
            note(
                &mut lines,
                format!("the log ends here: logs.max_bytes ({most} bytes) is reached, and what follows is not kept"),
            );
            standing.closed = true;
            return Some((lines, standing));
        }
        standing.bytes += size;
        lines.push(kept(seq, line));
    }
    let end = news.seq.saturating_add(i64::try_from(news.lines.len()).unwrap_or(i64::MAX));
    let after = end.saturating_add(news.dropped);
    let dropped = after - standing.next_seq.max(end);
    standing.next_seq = standing.next_seq.max(after);
    if dropped > 0 {
        note(&mut lines, format!("the worker dropped {dropped} lines, because too many waited to be sent"));
    }
    (!lines.is_empty()).then_some((lines, standing))
}

fn kept(seq: i64, line: &LogLine) -> Line {
    Line {
        seq: Some(seq),
        at: micros(line.at),
        level: clean(&line.level).into_owned(),
        text: clean(&line.text).into_owned(),
    }
}

/// Converts a time from a worker, whose clock cannot be trusted, so the value is checked.
fn micros(seconds: f64) -> i64 {
    let latest = 253_402_300_799.0;
    (seconds.clamp(0.0, latest) * 1e6) as i64
}

#[async_trait]
pub trait Logs: Send + Sync {
    /// Appends the new lines of each event, and returns which tasks got new lines. Lines of unknown tasks are dropped. At most `most` bytes
    /// of text are kept for an attempt.
    async fn append_logs(&self, news: &[TaskLog], most: i64, now: Time) -> Result<Vec<TaskId>, Error>;

    /// The pieces with lines above number `after`, in order, at most `limit`.
    async fn log_pieces(&self, task_no: i64, after: i64, limit: i64) -> Result<Vec<Piece>, Error>;

    /// Removes up to `limit` pieces from before this time.
    async fn prune_logs(&self, before: Time, limit: i64) -> Result<i64, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(5);

    fn news(seq: i64, texts: &[&str], dropped: i64) -> TaskLog {
        let line = |(place, text): (usize, &&str)| LogLine {
            at: (seq as f64) + place as f64,
            level: "INFO".to_owned(),
            text: (*text).to_owned(),
        };
        let lines = texts.iter().enumerate().map(line).collect();
        TaskLog { uuid: TaskId::parse("t").unwrap(), retries: 0, seq, lines, dropped }
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn an_event_that_comes_again_adds_what_is_new_of_it() {
        let (lines, standing) = append(None, &news(0, &["a", "b"], 0), 100, NOW).unwrap();
        assert_eq!(texts(&lines), ["a", "b"]);
        assert_eq!(append(Some(&standing), &news(0, &["a", "b"], 0), 100, NOW), None);
        let (lines, standing) = append(Some(&standing), &news(0, &["a", "b", "c"], 0), 100, NOW).unwrap();
        assert_eq!((texts(&lines), standing.next_seq, standing.bytes), (vec!["c"], 3, 6));
    }

    #[test]
    fn what_is_not_there_is_told() {
        let (lines, standing) = append(None, &news(2, &["c"], 4), 100, NOW).unwrap();
        assert_eq!(
            texts(&lines),
            [
                "2 lines were lost between the worker and the gateway",
                "c",
                "the worker dropped 4 lines, because too many waited to be sent"
            ]
        );
        assert_eq!(standing.next_seq, 7);
        let (lines, _) = append(Some(&standing), &news(7, &["h"], 0), 100, NOW).unwrap();
        assert_eq!(texts(&lines), ["h"]);
    }

    #[test]
    fn a_second_run_of_the_same_attempt_begins_anew() {
        let (_, standing) = append(None, &news(0, &["a", "b"], 0), 100, NOW).unwrap();
        let mut again = news(0, &["a", "b"], 0);
        again.lines[0].at = 99.0;
        let (lines, standing) = append(Some(&standing), &again, 100, NOW).unwrap();
        assert_eq!(texts(&lines), ["the task runs again", "a", "b"]);
        assert_eq!((standing.next_seq, standing.bytes), (2, 8), "its text counts on");
    }

    #[test]
    fn at_the_bound_the_log_says_so_and_ends() {
        let (lines, standing) = append(None, &news(0, &["1234", "5678", "x"], 0), 10, NOW).unwrap();
        assert_eq!(lines.len(), 3);
        assert!(lines[2].text.starts_with("the log ends here: logs.max_bytes (10 bytes)"), "{}", lines[2].text);
        assert_eq!(append(Some(&standing), &news(3, &["y"], 0), 10, NOW), None);
    }
}
