//! `taskgate check`: one line for each finding; exit code 0 when nothing is a problem, 1 otherwise.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::Common;
use super::given::configure;
use crate::app;
use crate::catalog::Catalog;
use crate::check::{Facts, Finding, Weight, judge, judge_security};
use crate::config::{Config, Role};
use crate::telemetry::plain::one_line;
use runtime::clock;

/// For the list of tokens.
const LEDGER_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct Options {
    /// Say what this deployment leaves open instead, from its configuration and its tokens
    #[arg(long)]
    security: bool,
}

/// # Errors
/// When the configuration itself does not fit.
pub fn run(common: &Common, options: &Options) -> anyhow::Result<ExitCode> {
    let config = configure(Role::Check, common, &[])?;
    let security = options.security;
    super::runtime()?.block_on(async { if security { leaves_open(&config).await } else { check(&config).await } })
}

async fn leaves_open(config: &Config) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::compile(config)?;
    let stop = CancellationToken::new();
    let ledger = config.database.url.as_ref().map(|_| app::open_ledger(config, stop.clone())).transpose()?;
    let tokens = match &ledger {
        Some(ledger) => tokio::time::timeout(LEDGER_PATIENCE, ledger.tokens()).await.ok().and_then(Result::ok),
        None => None,
    };
    stop.cancel();
    if tokens.is_none() {
        eprintln!("the ledger cannot be asked for its tokens: nothing is said of them");
    }
    Ok(told(&judge_security(config, &catalog, tokens.as_deref(), clock::now())))
}

async fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::compile(config)?;
    let (broker, backend) = (app::open_broker(config)?, app::open_backend(config)?);
    let stop = CancellationToken::new();
    let ledger = config.database.url.as_ref().map(|_| app::open_ledger(config, stop.clone())).transpose()?;
    let facts = Box::pin(Facts::gather(ledger.as_deref(), &broker, &backend, &config.queues)).await;
    stop.cancel();
    let findings = judge(config, &catalog, &facts);
    Ok(told(&findings))
}

/// Prints what was found, a line each: names of workers and queues are other people's words.
fn told(findings: &[Finding]) -> ExitCode {
    for finding in findings {
        println!("{}", one_line(&finding.to_string()));
    }
    let is_broken = findings.iter().any(|finding| finding.weight == Weight::Problem);
    if is_broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
