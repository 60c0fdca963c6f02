//! `taskgate check`: whether configuration, Redis, the ledger and the live workers fit together.
//!
//! [`facts`] asks; [`rules`] judges and is pure. No key and no row is written, except for the reply list of remote control.

mod facts;
mod fleet;
mod reach;
mod rules;
mod security;
mod stores;

use std::fmt;

pub use facts::{Facts, WorkerFacts, Writes};
pub use rules::judge;
pub use security::judge_security;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Fits.
    Fine,
    /// May be intended.
    Warning,
    /// Tasks will not run, or their results will not be seen.
    Problem,
}

/// One sentence about how things fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub weight: Weight,
    pub text: String,
}

impl Finding {
    fn new(weight: Weight, text: impl Into<String>) -> Self {
        Self { weight, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.weight {
            Weight::Fine => "ok",
            Weight::Warning => "warning",
            Weight::Problem => "problem",
        };
        write!(f, "{word:<8} {}", self.text)
    }
}
