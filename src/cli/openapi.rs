//! `taskgate openapi`: the part of the contract that does not depend on a configuration.

use std::io::Write;
use std::process::ExitCode;

use crate::edge::openapi;

/// # Errors
/// When standard output is closed.
pub fn run() -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(openapi::fixed().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
