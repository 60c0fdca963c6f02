//! Logs and metrics of a process: installed once, before anything is logged or counted.

pub mod names;
pub mod plain;

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use runtime::lifecycle::{OnExit, Tasks};

/// From half a millisecond to a minute.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Sizes of batches.
const COUNTS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 25.0, 100.0, 250.0, 1_000.0, 5_000.0];
/// How often histogram samples are aggregated; otherwise they would pile up.
const UPKEEP: Duration = Duration::from_secs(5);

/// Logs go to standard error. `RUST_LOG` wins over the configuration.
///
/// # Errors
/// When the filter cannot be read.
pub fn log(config: &Log) -> anyhow::Result<()> {
    let text = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty()).unwrap_or_else(|| config.filter.clone());
    // The AMQP client logs whole messages with their payloads, so it is silenced. We log its important events ourselves.
    let text = if text.contains("lapin") { text } else { format!("{text},lapin=off") };
    // The MCP library logs several lines for each request, and arguments of tools in some.
    let text = if text.contains("rmcp") { text } else { format!("{text},rmcp=error") };
    let filter = EnvFilter::try_new(&text).map_err(|error| anyhow::anyhow!("log.filter {text:?}: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call (tests) keeps the first subscriber.
    let _ = match config.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => builder.with_ansi(is_terminal()).with_target(false).fmt_fields(plain::fields()).try_init(),
    };
    Ok(())
}

/// Installs the metrics recorder; `None` when one is installed already.
pub fn metrics(tasks: &Tasks) -> Option<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| builder.set_buckets(&COUNTS))
        .ok()?
        .install_recorder()
        .ok()?;
    names::describe();
    let upkeep = handle.clone();
    tasks.spawn("metrics", OnExit::Nothing, move |stop| async move {
        while tokio::time::timeout(UPKEEP, stop.cancelled()).await.is_err() {
            upkeep.run_upkeep();
        }
    });
    Some(handle)
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none()
}
