//! `process` of a `[[tasks]]` entry as written. The catalog compiles it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::{Bytes, Count, Text, Words};

/// `process` of an entry as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawProcess {
    /// Variables and their values.
    pub environment: BTreeMap<String, Text>,
    /// Names of the worker's environment variables that the process inherits.
    pub pass: Words,
    /// Working directory, relative to the worker's. Default: an empty directory of its own.
    pub directory: Option<Text>,
    /// Default 1 GiB.
    pub memory: Option<Bytes>,
    /// Default 16 MiB.
    pub output: Option<Bytes>,
    /// Default 64.
    pub processes: Option<Count>,
    /// `refuse` (default), `separate` or `allow`.
    pub options: Option<Text>,
}
