//! Why a configuration is refused. Every message names the key as the user wrote it, and the file, variable or flag it came from.

use super::Said;

/// No message contains the value of a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the configuration file {path} cannot be read")]
    File { path: String, source: std::io::Error },
    #[error("{path}, line {line}: {message}")]
    Syntax { path: String, line: usize, message: String },
    #[error("unknown key {key}{}", hint(.nearest.as_deref(), .known))]
    UnknownKey { key: String, nearest: Option<String>, known: Vec<String> },
    #[error("{key}: {message}")]
    Value { key: String, message: String },
    #[error("{first} and {second} contradict each other: {harm}")]
    Pair { first: String, second: String, harm: String },
    #[error("the configuration has {} faults:{}", .0.len(), lines(.0))]
    Several(Vec<Error>),
}

impl Error {
    pub fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { key: key.into(), message: message.into() }
    }

    pub fn pair(first: impl Into<String>, second: impl Into<String>, harm: impl Into<String>) -> Self {
        Self::Pair { first: first.into(), second: second.into(), harm: harm.into() }
    }

    /// Adds to each key where its value came from, unless the key says so already.
    pub(super) fn located(self, said: &Said) -> Self {
        match self {
            Self::UnknownKey { key, nearest, known } => Self::UnknownKey { key: said.located(key), nearest, known },
            Self::Value { key, message } => Self::Value { key: said.located(key), message },
            Self::Pair { first, second, harm } => {
                Self::Pair { first: said.located(first), second: said.located(second), harm }
            }
            other @ (Self::File { .. } | Self::Syntax { .. } | Self::Several(_)) => other,
        }
    }
}

fn lines(faults: &[Error]) -> String {
    faults.iter().map(|fault| format!("\n  * {fault}")).collect()
}

fn hint(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None if known.is_empty() => String::new(),
        None => format!("; known here: {}", known.join(", ")),
    }
}
