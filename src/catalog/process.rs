//! How the executable of an entry runs: its environment, its resource limits, and what happens to values that look like options.

use std::path::PathBuf;

use super::Invalid;
use super::entry::Entry;
use super::template::{Part, Template};
use crate::config::{Error, RawProcess};

/// What to do with a value that begins with `-`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OptionWords {
    #[default]
    Refuse,
    /// `--` is put before the values.
    Separate,
    Allow,
}

#[derive(Debug, Clone, Default)]
pub struct Process {
    pub environment: Vec<(String, String)>,
    pub pass: Vec<String>,
    pub directory: Option<PathBuf>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes.
    pub output: Option<u64>,
    pub processes: Option<u32>,
    pub options: OptionWords,
}

impl Process {
    /// `place` is the entry's.
    ///
    /// # Errors
    /// When a value is invalid, or the entry has no command.
    pub(super) fn compile(raw: Option<RawProcess>, place: &str, has_command: bool) -> Result<Self, Error> {
        let Some(raw) = raw else { return Ok(Self::default()) };
        if !has_command {
            let harm = "it has no effect without a command";
            return Err(Error::pair(format!("{place}.process"), format!("{place}.command"), harm));
        }
        let options = match raw.options.as_ref().map(|text| text.0.as_str()) {
            None | Some("refuse") => OptionWords::Refuse,
            Some("separate") => OptionWords::Separate,
            Some("allow") => OptionWords::Allow,
            Some(other) => {
                let message = format!("{other:?} is neither refuse, separate nor allow");
                return Err(Error::value(format!("{place}.process.options"), message));
            }
        };
        let least = |key: &str, given: Option<u64>| match given {
            Some(0) => Err(Error::value(format!("{place}.process.{key}"), "must be at least 1")),
            given => Ok(given),
        };
        let processes = least("processes", raw.processes.map(|count| count.0))?;
        Ok(Self {
            environment: raw.environment.into_iter().map(|(name, value)| (name, value.0)).collect(),
            pass: raw.pass.0,
            directory: raw.directory.map(|text| PathBuf::from(text.0)),
            memory: least("memory", raw.memory.map(|bytes| bytes.0 as u64))?,
            output: least("output", raw.output.map(|bytes| bytes.0 as u64))?,
            processes: processes.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
            options,
        })
    }
}

impl Entry {
    /// Whether the argument at this position begins with fixed text of the entry, not with the caller's.
    pub fn owns(&self, position: usize) -> bool {
        match self.args.get(position) {
            Some(Template::Literal(_)) => true,
            Some(Template::Text(parts)) => matches!(parts.first(), Some(Part::Text(_))),
            Some(Template::Whole(_) | Template::Array(_) | Template::Object(_)) | None => false,
        }
    }

    /// Positional arguments that the command would take for options. `skipped` is the number of arguments before the given ones.
    pub(super) fn option_words(&self, args: &str, skipped: usize) -> Vec<Invalid> {
        if self.command.is_empty() || self.process.options != OptionWords::Refuse {
            return Vec::new();
        }
        let Ok(serde_json::Value::Array(values)) = serde_json::from_str(args) else { return Vec::new() };
        let is_option = |(at, value): &(usize, serde_json::Value)| {
            let begins =
                value.as_str().map_or_else(|| value.to_string().starts_with('-'), |text| text.starts_with('-'));
            begins && !self.owns(*at + skipped)
        };
        let refused = |(at, _): (usize, serde_json::Value)| {
            Invalid::new(format!("/args/{at}"), "begins with -, which the program would take for an option")
        };
        values.into_iter().enumerate().filter(is_option).map(refused).collect()
    }
}
