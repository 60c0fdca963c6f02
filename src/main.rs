//! Parses the command line and runs one role.

use std::process::ExitCode;

use taskgate::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for an invalid command line (`EX_USAGE`); client commands use 1 for a failed task and 2 for an unreachable gateway.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    // Choose the TLS provider before any TLS is configured: when two are compiled in, rustls does not choose by itself.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(refused) => {
            let _ = refused.print();
            return if refused.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("taskgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}
