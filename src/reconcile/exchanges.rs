//! Declares the configured exchanges and queues in the broker, where workers and other producers look for them: at start, and again
//! periodically, because Redis may lose its data and a queue may be deleted unnoticed.
//!
//! An existing queue or exchange with other arguments is not changed; the broker's error about it is logged once.

use std::collections::HashSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use broker::{Broker, Error, Exchange};
use celery::task::QueueName;
use runtime::lifecycle::Backoff;

/// Pause between declarations, which take a short command for each exchange and queue.
const PERIOD: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(2);

/// The exchanges and queues to declare.
#[derive(Debug, Default)]
pub struct Topology {
    pub exchanges: Vec<Exchange>,
    /// Queues with their arguments, a JSON object each.
    pub queues: Vec<(QueueName, String)>,
}

/// The service that declares them.
pub struct Exchanges {
    broker: Broker,
    topology: Topology,
    /// Names of existing ones with other arguments.
    differs: HashSet<String>,
}

impl Exchanges {
    pub fn new(broker: Broker, topology: Topology) -> Self {
        Self { broker, topology, differs: HashSet::new() }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        if self.topology.exchanges.is_empty() && self.topology.queues.is_empty() {
            stop.cancelled().await;
            return;
        }
        let mut backoff = Backoff::new(PAUSE);
        let mut declared = false;
        while !stop.is_cancelled() {
            let pause = match self.declare().await {
                Ok(()) => {
                    if !declared {
                        let (exchanges, queues) = (self.topology.exchanges.len(), self.topology.queues.len());
                        info!("{exchanges} exchanges and {queues} queues are declared");
                    }
                    declared = true;
                    backoff.reset();
                    PERIOD
                }
                Err(error) => {
                    if backoff.is_fresh() {
                        warn!(error = %error, "exchanges and queues could not be declared, trying again");
                    }
                    backoff.pause()
                }
            };
            tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(pause) => {} }
        }
    }

    async fn declare(&mut self) -> Result<(), Error> {
        for (queue, arguments) in &self.topology.queues {
            let made = self.broker.declare_queue(queue, arguments).await;
            note(&mut self.differs, &format!("queue {queue}"), made)?;
        }
        for exchange in &self.topology.exchanges {
            let made = self.broker.declare(exchange).await;
            note(&mut self.differs, &format!("exchange {}", exchange.name), made)?;
        }
        Ok(())
    }
}

/// Records a refusal, which concerns only this exchange or queue.
fn note(differs: &mut HashSet<String>, what: &str, made: Result<(), Error>) -> Result<(), Error> {
    match made {
        Err(Error::Refused { text, .. }) => {
            if differs.insert(what.to_owned()) {
                warn!("the {what} is not declared as configured; if it exists, it is used as it is: {text}");
            }
            Ok(())
        }
        Ok(()) => {
            differs.remove(what);
            Ok(())
        }
        Err(other) => Err(other),
    }
}
