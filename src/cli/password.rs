//! `taskgate password`: hashes a password for the configuration.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, anyhow};

use crate::guard::passwords;

/// Reads one line and prints its hash.
///
/// # Errors
/// When there is no line, or the password is empty or too long.
pub fn run() -> anyhow::Result<ExitCode> {
    let input = std::io::stdin();
    if input.is_terminal() {
        eprintln!(
            "Type the password, then Enter (it is shown as you type; `taskgate password < FILE` reads it from a file):"
        );
    }
    let mut line = String::new();
    input.lock().read_line(&mut line).context("the password cannot be read")?;
    let hash = passwords::hash(line.trim_end_matches(['\r', '\n'])).map_err(|wrong| anyhow!(wrong))?;
    println!("{hash}");
    Ok(ExitCode::SUCCESS)
}
