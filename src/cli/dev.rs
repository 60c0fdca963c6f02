//! `taskgate dev`: starts all roles in one process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::Common;
use super::given::{Flag, configure_fitting};
use super::serve::{listen, refuse_open, serve_until_stopped};
use crate::app::{self, App};
use crate::config::{Config, Role};
use crate::dev::Dev;
use crate::edge::{self, Edge};
use crate::samples::{DATA, Samples};
use crate::telemetry;
use runtime::lifecycle::{OnExit, Tasks};
use runtime::private;
use taskgate_worker::{Registry, Stop, UnknownTask};

/// How long a stop waits for running tasks: the process has to end within ten seconds.
const WORKER_STOP: Duration = Duration::from_secs(6);

#[derive(Debug, Args)]
pub struct Options {
    /// Address and port; default 127.0.0.1:8000
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Listen beyond this machine without tokens: anyone who reaches the address may do everything
    #[arg(long)]
    i_know: bool,
    /// Directory of the ledger and the samples' files
    #[arg(long, value_name = "DIRECTORY", default_value = DATA)]
    data: PathBuf,
    /// Base address of the sample notice board; default: the one served here
    #[arg(long, value_name = "URL", env = "SAMPLE_SITE_URL")]
    sample_site: Option<String>,
}

/// # Errors
/// When the configuration is invalid, the directory cannot be created, or an address is in use.
pub fn run(common: &Common, options: &Options) -> anyhow::Result<ExitCode> {
    let listen = Flag { key: "http.listen", name: "listen", value: options.listen.clone() };
    let config = configure_fitting(Role::Dev, common, &[listen], app::fits)?;
    refuse_open(&config, options.i_know)?;
    private::files();
    if taskgate_worker::is_child() {
        let address = config.http.listen;
        let child = app::worker(&config, samples(address, &options.data, options))?;
        super::runtime()?.block_on(child.run(Stop::default()));
        return Ok(ExitCode::SUCCESS);
    }
    super::until_ended(dev(config, common.config.as_deref(), options))
}

async fn dev(config: Config, file: Option<&Path>, options: &Options) -> anyhow::Result<ExitCode> {
    let tasks = Tasks::default();
    let metrics = telemetry::metrics(&tasks);
    let listener = listen(&config).await?;
    let address = listener.local_addr()?;
    let dev = Dev::prepare(config, &options.data, &tasks).await?;
    let app = App::build(&dev.config, dev.ledger(&tasks)?, tasks.clone())?;
    spawn_worker(&dev, samples(address, dev.data(), options), &tasks)?;
    dev.announce(address, file)?;
    let edge = Edge::new(&dev.config, app.behind, tasks.clone(), metrics);
    let router = edge::router(edge).merge(crate::dev::sample_site::router());
    let ended = serve_until_stopped(&dev.config, router, listener, &tasks).await;
    dev.stop().await;
    ended
}

/// Starts the worker of `taskgate worker` in this process.
fn spawn_worker(dev: &Dev, registry: Registry, tasks: &Tasks) -> anyhow::Result<()> {
    let worker = app::worker(&dev.config, registry)?;
    let worker = worker.task_events(true).mingle(false).warm_timeout(Some(WORKER_STOP));
    // On a broker that others use, what is unknown here goes back to the queue for their workers.
    let unknown = if dev.config.said.has("broker.url") { UnknownTask::Requeue } else { UnknownTask::Fail };
    let worker = worker.unknown_task(unknown);
    tasks.spawn("worker", OnExit::StopProcess, |stop| worker.run(Stop { warm: stop, ..Stop::default() }));
    Ok(())
}

fn samples(listen: SocketAddr, data: &Path, options: &Options) -> Registry {
    let mut registry = Registry::new();
    let own = || format!("http://127.0.0.1:{}/sample-site", listen.port());
    let site = options.sample_site.clone().unwrap_or_else(own);
    Samples::new(site, data).register(&mut registry);
    registry
}
