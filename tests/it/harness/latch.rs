//! Lets a test decide when a task ends: `demo.until` and `demo.until_late` run until their latch is opened.
//!
//! A task that sleeps for some seconds is over before a busy machine has looked at it, or makes every run of the test that long.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::process::folder;

/// A file that is not there yet. A worker may be killed and the task run again: an open latch stays open.
pub struct Latch(PathBuf);

impl Latch {
    pub fn closed() -> Self {
        Self(folder("latch").join("open"))
    }

    /// The arguments of a task that waits for it and then returns `value`.
    pub fn args(&self, value: impl Into<Value>) -> Value {
        json!([self.0, value.into()])
    }

    /// All tasks that wait for it continue.
    pub fn open(&self) {
        std::fs::write(&self.0, "").expect("the run's folder is writable");
    }
}
