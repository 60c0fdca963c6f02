//! `taskgate serve`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tracing::info;

use super::Common;
use super::given::{Flag, configure};
use crate::app::{self, App};
use crate::config::{Auth, Config, Role};
use crate::http::{self, Edge};
use crate::lifecycle::{OnExit, Tasks, terminated};
use crate::telemetry;

/// SIGTERM ends a role within ten seconds: what did not end by then is cut.
const SHUTDOWN: Duration = Duration::from_secs(9);

#[derive(Debug, Args)]
pub struct Options {
    /// Address and port, as 0.0.0.0:8000
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

/// # Errors
/// When the configuration does not fit, or the address is taken.
pub fn run(common: &Common, options: &Options) -> anyhow::Result<ExitCode> {
    let listen = Flag { key: "http.listen", name: "listen", value: options.listen.clone() };
    let config = configure(Role::Serve, common, &[listen])?;
    if config.auth == Auth::Token {
        anyhow::bail!(
            "{}: tokens are required and none exists, so every request would be refused; say auth = \"none\" to let \
             everybody in who reaches {}",
            config.said.place("auth"),
            config.http.listen
        );
    }
    super::runtime()?.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let tasks = Tasks::default();
    let metrics = telemetry::metrics(&tasks);
    let ledger = app::open_ledger(&config, tasks.stop_token())?;
    let listen = config.http.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("{} cannot be listened on", config.said.place("http.listen")))?;
    let app = App::build(&config, ledger, tasks.clone())?;
    let edge = Edge::new(&config, app.gateway.clone(), app.catalog.clone(), tasks.clone(), metrics);
    let (router, patience) = (http::router(edge), config.http.header_timeout);
    tasks.spawn("http", OnExit::StopProcess, move |stop| http::serve(listener, router, patience, stop));
    let stop = tasks.stop_token();
    let asked = tokio::select! { () = terminated() => true, () = stop.cancelled() => false };
    tasks.shut_down(SHUTDOWN).await;
    info!("stopped");
    Ok(if asked { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
