//! `taskgate check`: one line for each finding; exit code 0 when nothing is a problem, 1 otherwise.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::Common;
use super::given::configure_fitting;
use super::serve::{nobody_may_call, refuse_open};
use crate::app;
use crate::catalog::Catalog;
use crate::check::{Facts, Finding, Weight, judge, judge_security};
use crate::config::{Auth, Config, Role};
use crate::telemetry::plain::one_line;
use ledger::SharedLedger;
use runtime::clock;

/// How long to wait for the list of tokens.
const LEDGER_PATIENCE: Duration = Duration::from_secs(5);
/// The newest tokens that are checked.
const CHECKED: i64 = 10_000;

#[derive(Debug, Args)]
pub struct Options {
    /// Instead, list what the configuration and the tokens leave open to attackers
    #[arg(long)]
    security: bool,
}

/// # Errors
/// When the configuration itself does not fit.
pub fn run(common: &Common, options: &Options) -> anyhow::Result<ExitCode> {
    let config = configure_fitting(Role::Check, common, &[], app::fits)?;
    let security = options.security;
    super::runtime()?.block_on(async { if security { leaves_open(&config).await } else { check(&config).await } })
}

async fn leaves_open(config: &Config) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::compile(config)?;
    let stop = CancellationToken::new();
    let ledger = config.database.url.as_ref().map(|_| app::open_ledger(config, stop.clone())).transpose()?;
    let tokens = match &ledger {
        Some(ledger) => tokio::time::timeout(LEDGER_PATIENCE, ledger.tokens(CHECKED)).await.ok().and_then(Result::ok),
        None => None,
    };
    stop.cancel();
    if tokens.is_none() {
        eprintln!("the ledger does not answer: its tokens were not checked");
    }
    Ok(told(&judge_security(config, &catalog, tokens.as_deref(), clock::now())))
}

async fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::compile(config)?;
    let (broker, backend) = (app::open_broker(config)?, app::open_backend(config)?);
    let stop = CancellationToken::new();
    let ledger = config.database.url.as_ref().map(|_| app::open_ledger(config, stop.clone())).transpose()?;
    let (topology, queue, stores) = (app::topology::of(config), &config.broker.default_queue, &config.stores);
    let facts = Box::pin(Facts::gather(ledger.as_deref(), &broker, &backend, &topology, queue, stores)).await;
    let mut findings = judge(config, &catalog, &facts);
    if config.auth == Auth::Token && config.users.is_empty() && nobody_has_a_token(ledger.as_ref()).await {
        findings.push(Finding { weight: Weight::Problem, text: nobody_may_call(config) });
    }
    // The same check as in serve, which may be started with --i-know.
    if let Err(reason) = refuse_open(config, false) {
        findings.push(Finding { weight: Weight::Problem, text: reason.to_string() });
    }
    stop.cancel();
    Ok(told(&findings))
}

/// Prints each finding on one line. Control characters are escaped, because names of workers and queues come from others.
fn told(findings: &[Finding]) -> ExitCode {
    for finding in findings {
        println!("{}", one_line(&finding.to_string()));
    }
    let is_broken = findings.iter().any(|finding| finding.weight == Weight::Problem);
    if is_broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Whether the ledger has no token. False when it does not answer or has no schema yet, which is a finding of its own.
async fn nobody_has_a_token(ledger: Option<&SharedLedger>) -> bool {
    let Some(ledger) = ledger else { return false };
    match tokio::time::timeout(LEDGER_PATIENCE, ledger.has_valid_token(clock::now())).await {
        Ok(Ok(somebody)) => !somebody,
        Ok(Err(_)) | Err(_) => false,
    }
}
