//! Keeps the exchanges of the configuration in the broker, where workers and other producers look for them: at start, and again from
//! time to time, because Redis may lose its data without anybody noticing.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use broker::{Broker, Error, Exchange};
use runtime::lifecycle::Backoff;

/// Time between declarations. Each is one short command per exchange.
const PERIOD: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(2);

/// Declares the exchanges.
pub struct Exchanges {
    broker: Broker,
    tables: Vec<Exchange>,
}

impl Exchanges {
    pub fn new(broker: Broker, tables: Vec<Exchange>) -> Self {
        Self { broker, tables }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        if self.tables.is_empty() {
            stop.cancelled().await;
            return;
        }
        let mut backoff = Backoff::new(PAUSE);
        let mut declared = false;
        while !stop.is_cancelled() {
            let pause = match self.declare().await {
                Ok(()) => {
                    if !declared {
                        info!("{} exchanges are declared", self.tables.len());
                    }
                    declared = true;
                    backoff.reset();
                    PERIOD
                }
                Err(error) => {
                    if backoff.is_fresh() {
                        warn!(error = %error, "exchanges could not be declared, trying again");
                    }
                    backoff.pause()
                }
            };
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
        }
    }

    async fn declare(&self) -> Result<(), Error> {
        for table in &self.tables {
            self.broker.declare(table).await?;
        }
        Ok(())
    }
}
