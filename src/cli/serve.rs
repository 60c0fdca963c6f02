//! `taskgate serve`: runs a gateway until it is told to stop.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::Common;
use super::given::{Flag, configure_fitting};
use crate::app::{self, App};
use crate::config::{Auth, Config, Role};
use crate::edge::{self, Edge, Router};
use crate::telemetry;
use ledger::SharedLedger;
use runtime::clock;
use runtime::lifecycle::{OnExit, Tasks, terminated};

/// SIGTERM ends a role within ten seconds; what has not ended after this time is aborted.
const SHUTDOWN: Duration = Duration::from_secs(9);

/// How long the start waits for the ledger's answer to whether there are tokens.
const LEDGER_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct Options {
    /// Address and port, such as 0.0.0.0:8000
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Listen beyond this machine without tokens: anyone who reaches the address may do everything
    #[arg(long)]
    i_know: bool,
    /// What this process does: everything, or only answer reads, from a replica of the ledger
    #[arg(long, value_name = "ROLE", default_value = "all")]
    role: Part,
    /// With `--role read`: the gateway to which clients that want to write are referred, such as https://tasks.example
    #[arg(long, value_name = "URL")]
    writer: Option<String>,
}

/// What a gateway does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    All,
    Read,
}

/// # Errors
/// When the configuration is invalid, or the address is in use.
pub fn run(common: &Common, options: &Options) -> anyhow::Result<ExitCode> {
    let listen = Flag { key: "http.listen", name: "listen", value: options.listen.clone() };
    let writer = Flag { key: "http.writer", name: "writer", value: options.writer.clone() };
    let mut config = configure_fitting(Role::Serve, common, &[listen, writer], app::fits)?;
    refuse_open(&config, options.i_know)?;
    // A replica gets its schema from its primary.
    config.database.migrate &= options.role == Part::All;
    super::until_ended(serve(config, options.role))
}

async fn serve(config: Config, part: Part) -> anyhow::Result<ExitCode> {
    let tasks = Tasks::default();
    let metrics = telemetry::metrics(&tasks);
    let listener = listen(&config).await?;
    let ledger = app::claim_ledger(&config, tasks.stop_token())?;
    // People who log in need no token.
    if config.auth == Auth::Token && config.users.is_empty() {
        somebody_may_call(&config, &ledger).await?;
    }
    let app = match part {
        Part::All => App::build(&config, ledger, tasks)?,
        Part::Read => App::reading(&config, ledger, tasks)?,
    };
    let edge = Edge::new(&config, app.behind, app.tasks.clone(), metrics);
    serve_until_stopped(&config, edge::router(edge), listener, &app.tasks).await
}

/// Refuses to listen beyond this machine without tokens, unless `--i-know` confirms it.
///
/// # Errors
/// When the address can be reached from other machines and `auth` is none.
pub fn refuse_open(config: &Config, i_know: bool) -> anyhow::Result<()> {
    let address = config.http.listen;
    if i_know || config.auth != Auth::None || address.ip().is_loopback() {
        return Ok(());
    }
    anyhow::bail!(
        "{}: {address} can be reached from other machines, and auth = \"none\" lets everyone do everything there; set auth = \"token\", \
         listen on 127.0.0.1, or add --i-know if it is meant so",
        config.said.place("http.listen")
    )
}

/// Refuses to start a gateway that has no valid token and so would refuse every request. When the ledger does not answer, the
/// gateway starts: the tokens are there when the ledger is back.
async fn somebody_may_call(config: &Config, ledger: &SharedLedger) -> anyhow::Result<()> {
    let somebody = async {
        if config.database.migrate {
            ledger.migrate().await?;
        }
        ledger.has_valid_token(clock::now()).await
    };
    match tokio::time::timeout(LEDGER_PATIENCE, somebody).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => anyhow::bail!(nobody_may_call(config)),
        Ok(Err(_)) | Err(_) => {
            warn!("the ledger does not answer yet, so it is unknown whether there are tokens");
            Ok(())
        }
    }
}

/// Why a start without a valid token is refused.
pub fn nobody_may_call(config: &Config) -> String {
    format!(
        "{}: tokens are required and no valid one exists, so every request would be refused; create one with `taskgate token \
         create --name NAME --scope submit,read`, or say auth = \"none\" to let everybody in who reaches {}",
        config.said.place("auth"),
        config.http.listen
    )
}

/// Binds before anything else starts, so that a port in use is reported clearly.
///
/// # Errors
/// When the address is in use or does not belong to this machine.
pub async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    let address = config.http.listen;
    TcpListener::bind(address).await.map_err(|error| {
        let is_taken = error.kind() == ErrorKind::AddrInUse;
        let advice = || format!("; --listen {}:PORT chooses another port", host_of(address));
        let advice = if is_taken { advice() } else { String::new() };
        let place = config.said.place("http.listen");
        anyhow::Error::new(error).context(format!("{place}: {address} cannot be listened on{advice}"))
    })
}

/// The host of an address, as it is written before a port.
fn host_of(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

/// Serves the edge until a signal arrives, or until a service that the process needs has ended.
///
/// # Errors
/// When the certificate cannot be read.
pub async fn serve_until_stopped(
    config: &Config,
    router: Router,
    listener: TcpListener,
    tasks: &Tasks,
) -> anyhow::Result<ExitCode> {
    let server = edge::Server::new(&config.http)?;
    // Signals are handled before the first answer: a client that sees it may stop the process softly.
    let terminated = terminated();
    tasks.spawn("http", OnExit::StopProcess, move |stop| edge::serve(listener, router, server, stop));
    let stop = tasks.stop_token();
    let asked = tokio::select! { () = terminated => true, () = stop.cancelled() => false };
    tasks.shut_down(SHUTDOWN).await;
    info!("stopped");
    Ok(if asked { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
