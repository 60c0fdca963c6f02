//! Merges flags over `TASKGATE_*` over the file over `DATABASE_URL` and `CELERY_*`, and remembers where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Error, TOP_KEYS, catalogs, faults, lines};
use celery::spelling::nearest;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Variable(String),
    File(PathBuf),
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "from {name}"),
            Self::File(path) => write!(f, "in {}", path.display()),
            Self::Flag(name) => write!(f, "from --{name}"),
        }
    }
}

/// What a role is started with, besides the file's content. The environment is passed in, not read, so that tests do not depend on it.
#[derive(Debug, Clone, Default)]
pub struct Given {
    pub file: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
    /// Dotted key, name of the flag, value.
    pub flags: Vec<(String, String, String)>,
}

/// All values, merged; the source with the highest precedence wins.
#[derive(Clone, Default)]
pub struct Said {
    pub table: Table,
    pub(super) sources: BTreeMap<String, Source>,
    /// Line numbers of the file's keys, such as `tasks[0].endpoint`.
    pub(super) lines: BTreeMap<String, usize>,
}

/// Prints no values: passwords are among them.
impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Said").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// Variables of other tools and the keys that they set; the last variable that is set wins.
const FOREIGN: [(&str, &str); 8] = [
    ("DATABASE_URL", "database.url"),
    ("REDIS_URL", "broker.url"),
    ("BROKER_URL", "broker.url"),
    ("CELERY_BROKER_URL", "broker.url"),
    ("RESULT_BACKEND", "backend.url"),
    ("CELERY_RESULT_BACKEND", "backend.url"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"),
    ("OTEL_SERVICE_NAME", "telemetry.service_name"),
];

/// `TASKGATE_*` variables that other parts of the program read, so they are not keys of the configuration.
const NOT_KEYS: [&str; 4] = ["config", "url", "token", "ca"];

impl Said {
    /// # Errors
    /// When the file cannot be read or is not TOML, or a variable names no known key.
    pub fn gather(given: &Given) -> Result<Self, Error> {
        let mut said = Self::default();
        for (variable, key) in FOREIGN {
            if let Some((_, text)) = given.environment.iter().find(|(name, text)| name == variable && !text.is_empty())
            {
                said.put(key, Value::String(text.clone()), &Source::Variable(variable.to_owned()));
            }
        }
        if let Some(path) = &given.file {
            let text = read(path)?;
            said.lines = lines::of(&text);
            said.merge("", parse(path, &text)?, &Source::File(path.clone()));
        }
        for (name, text) in &given.environment {
            if let Some(key) = key_of(name)? {
                said.put(&key, value_of(text), &Source::Variable(name.clone()));
            }
        }
        for (key, flag, text) in &given.flags {
            said.put(key, value_of(text), &Source::Flag(flag.clone()));
        }
        catalogs::add(&mut said, given.file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")))?;
        Ok(said)
    }

    /// # Errors
    /// When the text is not TOML.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let mut said = Self::default();
        let path = Path::new("taskgate.toml");
        said.lines = lines::of(text);
        said.merge("", parse(path, text)?, &Source::File(path.to_owned()));
        Ok(said)
    }

    /// Whether any source sets this key, or a key below it.
    pub fn has(&self, key: &str) -> bool {
        self.source(key).is_some()
    }

    pub fn source(&self, key: &str) -> Option<&Source> {
        let below = format!("{key}.");
        self.sources
            .get(key)
            .or_else(|| self.sources.iter().find(|(said, _)| said.starts_with(&below)).map(|(_, source)| source))
    }

    /// The key with its source, for messages: `http.listen (from TASKGATE_HTTP__LISTEN)`, `http.listen (in taskgate.toml, line 3)`.
    pub fn place(&self, key: &str) -> String {
        match self.source(key).and_then(|_| self.whereabouts(key)) {
            Some(place) => format!("{key} ({place})"),
            None => format!("{key} (default)"),
        }
    }

    /// As [`Said::place`], for a key in a message: a key that names its source already, or that no source sets, stays as it is.
    pub(super) fn located(&self, key: String) -> String {
        if [" (from ", " (in ", " (default)"].iter().any(|word| key.contains(word)) {
            return key;
        }
        match self.whereabouts(&faults::bare(&key)) {
            Some(place) => format!("{key} ({place})"),
            None => key,
        }
    }

    /// The key's source and line; the enclosing table's, if the key has none of its own.
    fn whereabouts(&self, key: &str) -> Option<String> {
        let source = outwards(key).find_map(|key| self.source(key))?;
        let line = outwards(key).find_map(|key| self.lines.get(key)).filter(|_| matches!(source, Source::File(_)));
        Some(match line {
            Some(line) => format!("{source}, line {line}"),
            None => source.to_string(),
        })
    }

    fn merge(&mut self, prefix: &str, table: Table, source: &Source) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match value {
                // Patterns in routes contain dots, so the table is kept as one value.
                Value::Table(inner) if key != "routes" && prefix.is_empty() => self.merge(&key, inner, source),
                other => self.put(&key, other, source),
            }
        }
    }

    fn put(&mut self, key: &str, value: Value, source: &Source) {
        self.sources.insert(key.to_owned(), source.clone());
        match key.split_once('.') {
            None => {
                self.table.insert(key.to_owned(), value);
            }
            Some((section, name)) => {
                let section = self.table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(section) = section {
                    section.insert(name.to_owned(), value);
                }
            }
        }
    }
}

pub(super) fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File { path: path.display().to_string(), source })
}

/// The key and what encloses it: `tasks[0].name`, `tasks[0]`, `tasks`.
fn outwards(key: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(key), |key| key.rfind(['.', '[']).map(|end| &key[..end]))
}

/// Parses TOML. The error does not show the faulty line: it may contain a password.
pub(super) fn parse(path: &Path, text: &str) -> Result<Table, Error> {
    let shown = path.display().to_string();
    text.parse::<Table>().map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let line = text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1);
        Error::Syntax { path: shown, line, message: error.message().to_owned() }
    })
}

/// `TASKGATE_HTTP__LISTEN` is `http.listen`. Variables with one part that name no key are ignored: Kubernetes sets
/// `TASKGATE_PORT` and the like for a service called taskgate.
fn key_of(variable: &str) -> Result<Option<String>, Error> {
    let Some(rest) = variable.strip_prefix("TASKGATE_") else { return Ok(None) };
    let lower = rest.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split("__").collect();
    let known = TOP_KEYS.contains(&parts[0]);
    match parts.as_slice() {
        [only] if known && !NOT_KEYS.contains(only) => Ok(Some((*only).to_owned())),
        [_] => Ok(None),
        [_, _] if known => Ok(Some(parts.join("."))),
        [section, ..] => Err(Error::UnknownKey {
            key: format!("{section} (from {variable})"),
            nearest: nearest(section, &TOP_KEYS).map(str::to_owned),
            known: TOP_KEYS.iter().map(|key| (*key).to_owned()).collect(),
        }),
        [] => Ok(None),
    }
}

/// Lists and tables are JSON; everything else is text, which the key's type parses.
fn value_of(text: &str) -> Value {
    let trimmed = text.trim();
    if trimmed.starts_with(['[', '{'])
        && let Ok(json) = serde_json::from_str::<serde_json::Value>(trimmed)
        && let Ok(value) = Value::try_from(json)
    {
        return value;
    }
    Value::String(text.to_owned())
}
