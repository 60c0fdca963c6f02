//! Reads the progress from `update_state`, in the spellings that tasks use.

use serde_json::value::RawValue;

use super::json::{self, Fields};

/// Progress, as a progress bar needs it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// How much is done, in the task's own units.
    pub done: Option<f64>,
    /// How much there is to do.
    pub total: Option<f64>,
    pub message: Option<String>,
}

const DONE: [&str; 6] = ["progress", "current", "done", "completed", "n", "percent"];
const MESSAGE: [&str; 5] = ["message", "status", "stage", "step", "detail"];

impl Progress {
    /// Reads a task's `meta`; `None` when it contains no progress.
    pub fn read(meta: &RawValue) -> Option<Self> {
        let fields = Fields::parse(meta.get()).ok()?;
        let done = DONE.iter().find_map(|name| Some((*name, fields.get(name).and_then(json::number)?)));
        let mut total = fields.get("total").and_then(json::number);
        if let (Some(("percent", _)), None) = (done, total) {
            total = Some(100.0);
        }
        let message = MESSAGE.iter().find_map(|name| fields.text(name));
        let progress = Self { done: done.map(|(_, done)| done), total, message };
        (progress != Self::default()).then_some(progress)
    }

    /// Between 0 and 1; `None` while the total is unknown.
    pub fn fraction(&self) -> Option<f64> {
        let (done, total) = (self.done?, self.total.filter(|total| *total > 0.0)?);
        Some((done / total).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(meta: &str) -> Option<Progress> {
        Progress::read(&json::verbatim(meta.to_owned()).unwrap())
    }

    #[test]
    fn the_usual_spellings_are_read() {
        let progress = read(r#"{"progress": 3, "total": 4, "message": "page 3"}"#).unwrap();
        assert_eq!((progress.fraction(), progress.message.as_deref()), (Some(0.75), Some("page 3")));
        assert_eq!(read(r#"{"current": 1, "total": 2, "status": "x"}"#).unwrap().fraction(), Some(0.5));
        assert_eq!(read(r#"{"percent": 150}"#).unwrap().fraction(), Some(1.0));
    }

    #[test]
    fn other_meta_is_no_progress() {
        assert_eq!(read("7"), None);
        assert_eq!(read(r#"{"pid": 1, "hostname": "h"}"#), None);
        assert_eq!(read(r#"{"done": 3}"#).unwrap().fraction(), None);
        assert_eq!(read(r#"{"done": 3, "total": 0}"#).unwrap().fraction(), None);
    }
}
