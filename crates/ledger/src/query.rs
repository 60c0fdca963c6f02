//! The query of a list: filters and a keyset page.

use celery::task::Phase;
use runtime::clock::Time;

/// A task must match all conditions; an empty list means "any".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Celery states, also custom ones.
    pub status: Vec<String>,
    pub phase: Vec<Phase>,
    /// Task names.
    pub task: Vec<String>,
    /// Name patterns (`tasks.*`) of which one must match: the tasks that a limited token may see. `*` matches any text.
    pub task_patterns: Vec<String>,
    pub queue: Vec<String>,
    pub worker: Vec<String>,
    /// `key:value` pairs, all of which the task must have.
    pub labels: Vec<(String, String)>,
    pub root_id: Option<String>,
    pub group_id: Option<String>,
    pub schedule: Option<String>,
    /// Submitted at or after.
    pub from: Option<Time>,
    /// Submitted before.
    pub to: Option<Time>,
    /// Id prefix, or part of name, a label, error type or error message; case-insensitive except for ids. On a long history a page of
    /// search results may end early, even empty, with a cursor to continue.
    pub q: Option<String>,
    /// Part of an argument, as JSON or as Python shows it; case-insensitive. Only the beginning of large arguments is searched, and tasks with
    /// `redact` are not. A page searches one month of the history and ends early, with a cursor to continue.
    pub argument: Option<String>,
    /// Only `failed` and `lost` tasks that were not deleted or re-queued as dead letters.
    pub dead_letters: bool,
}

/// How much of a message is searched for an argument, in characters.
pub(crate) const SEARCHED_TEXT: i32 = 16 * 1024;
/// Begins the part of a message that follows its arguments.
pub(crate) const BEHIND_ARGUMENTS: &str = "{\"callbacks\":";

/// The ways in which JSON may write a part of an argument, in lower case: unchanged, and escaped to ASCII (Python's default).
pub(crate) fn spellings(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let written = serde_json::to_string(&text).unwrap_or_default();
    let plain = written.get(1..written.len().saturating_sub(1)).unwrap_or_default().to_owned();
    let mut units = [0; 2];
    let ascii = plain.chars().fold(String::new(), |mut ascii, letter| {
        if letter.is_ascii() {
            ascii.push(letter);
        } else {
            ascii.extend(letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
        ascii
    });
    let mut all = vec![text, plain, ascii];
    all.dedup();
    all
}

/// A position in the list: the number of the previous page's last task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub i64);

#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// 1 to 500.
    pub limit: i64,
    pub after: Option<Cursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_looked_for_as_json_may_write_it() {
        assert_eq!(spellings("Kim"), ["kim"]);
        assert_eq!(spellings("a\"b"), ["a\"b", "a\\\"b"]);
        assert_eq!(spellings("봉사"), ["봉사", "\\ubd09\\uc0ac"]);
        assert_eq!(spellings("😀"), ["😀", "\\ud83d\\ude00"]);
    }
}
