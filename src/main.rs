//! Parses the command line and runs one role.

use std::process::ExitCode;

use clap::Parser;
use taskgate::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any TLS is configured: two providers could be built in, and none is chosen by itself.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("taskgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}
