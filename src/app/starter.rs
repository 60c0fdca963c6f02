//! Starts services only when the ledger's schema is up to date.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config;
use crate::tell::health;
use crate::tell::traces::Traces;
#[cfg(feature = "otel")]
use crate::tell::traces::{Courier, Exporter, Historian};
use ledger::SharedLedger;
use runtime::lifecycle::{Backoff, OnExit, Tasks};

/// Pause between attempts to migrate the schema.
const MIGRATION_PAUSE: Duration = Duration::from_secs(2);

/// Starts services only when the ledger's schema is up to date.
pub(super) struct Starter {
    pub tasks: Tasks,
    pub prepared: CancellationToken,
}

impl Starter {
    pub fn prepare(&self, ledger: SharedLedger, migrate: bool, health: health::Handle) {
        let prepared = self.prepared.clone();
        self.tasks.spawn("migration", OnExit::Nothing, move |stop| prepare(ledger, migrate, health, prepared, stop));
    }

    /// Starts the trace exporter, if a collector is configured.
    #[cfg(feature = "otel")]
    pub fn trace(&self, telemetry: &config::Telemetry, ledger: &SharedLedger, holder: String) -> Traces {
        let Some(exporter) = Exporter::new(telemetry, &holder) else { return Traces::default() };
        let (traces, finished) = Traces::new(telemetry.sample);
        let courier = Courier::new(finished, exporter.clone());
        let historian = Historian::new(ledger.clone(), exporter, holder, telemetry.sample);
        self.tasks.spawn("courier", OnExit::Nothing, move |stop| courier.run(stop));
        self.service("historian", move |stop| historian.run(stop));
        traces
    }

    /// Built without tracing; a configuration that asks for it was refused before.
    #[cfg(not(feature = "otel"))]
    pub fn trace(&self, _telemetry: &config::Telemetry, _ledger: &SharedLedger, _holder: String) -> Traces {
        Traces::default()
    }

    pub fn service<F, W>(&self, name: &'static str, work: W)
    where
        W: FnOnce(CancellationToken) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let prepared = self.prepared.clone();
        self.tasks.spawn(name, OnExit::StopProcess, move |stop| async move {
            tokio::select! { () = prepared.cancelled() => {} () = stop.cancelled() => return }
            work(stop).await;
        });
    }
}

/// Waits for the ledger and migrates its schema (or, with `migrate` off, waits until it answers).
async fn prepare(
    ledger: SharedLedger,
    migrate: bool,
    health: health::Handle,
    prepared: CancellationToken,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(MIGRATION_PAUSE);
    while !stop.is_cancelled() {
        let outcome = if migrate { ledger.migrate().await } else { ledger.ping().await };
        match outcome {
            Ok(()) => {
                info!("the ledger ({}) is ready", ledger.kind());
                prepared.cancel();
                return;
            }
            Err(error) => {
                health.ledger_is_not_ready(error.told());
                if backoff.is_fresh() || !error.is_transient() {
                    warn!(error = %error, cause = ?std::error::Error::source(&error).map(ToString::to_string), "the ledger is not ready, trying again");
                }
                let pause = backoff.pause();
                tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
            }
        }
    }
}
