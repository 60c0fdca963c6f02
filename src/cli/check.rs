//! `taskgate check`: one line for each finding; exit code 0 when nothing is a problem, 1 otherwise.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::Common;
use super::given::configure;
use crate::app;
use crate::catalog::Catalog;
use crate::check::{Facts, Weight, judge};
use crate::config::{Config, Role};

/// # Errors
/// When the configuration itself does not fit.
pub fn run(common: &Common) -> anyhow::Result<ExitCode> {
    let config = configure(Role::Check, common, &[])?;
    super::runtime()?.block_on(check(&config))
}

async fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::compile(config)?;
    let (lists, backend) = app::open_redis(config)?;
    let broker: broker::Broker = std::sync::Arc::new(lists);
    let stop = CancellationToken::new();
    let ledger = config.database.url.as_ref().map(|_| app::open_ledger(config, stop.clone())).transpose()?;
    let facts = Box::pin(Facts::gather(ledger.as_deref(), &broker, &backend)).await;
    stop.cancel();
    let findings = judge(config, &catalog, &facts);
    for finding in &findings {
        println!("{finding}");
    }
    let is_broken = findings.iter().any(|finding| finding.weight == Weight::Problem);
    Ok(if is_broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
