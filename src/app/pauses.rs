//! Builds the service for canvas steps that wait.

use super::{open_records, origin};
use crate::config::Config;
use crate::live::hub::Hub;
use crate::roles::waits::{Parts, Waits};
use crate::usecase::Wake;
use broker::Broker;
use ledger::SharedLedger;

pub(super) fn service(
    config: &Config,
    ledger: &SharedLedger,
    broker: &Broker,
    hub: &Hub,
    holder: &str,
) -> (Waits, Wake) {
    let wake = Wake::default();
    let waits = Waits::new(Parts {
        ledger: ledger.clone(),
        broker: broker.clone(),
        // With results over the broker there are no stored result records.
        backend: open_records(config).ok(),
        hub: hub.clone(),
        wake: wake.clone(),
        holder: holder.to_owned(),
        origin: origin(),
        result_expires: config.backend.result_expires,
        keep: config.ledger.keep,
    });
    (waits, wake)
}
