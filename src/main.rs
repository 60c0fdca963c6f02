//! Parses the command line and runs one role.

use std::process::ExitCode;

use taskgate::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line cannot be understood (`EX_USAGE`); 1 and 2 are what the client says of a task and of a gateway.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    // Before any TLS is configured: two providers could be built in, and none is chosen by itself.
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
