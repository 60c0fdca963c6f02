//! The audit log: seals rows of acts whose outcome was never written, and verifies the hash chain of all rows.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use ledger::{Act, Error, NewAct, Seal, SharedLedger, audit};
use runtime::clock;

const PERIOD: Duration = Duration::from_secs(60);
/// After this time a row without an outcome is sealed; no request takes that long.
const OVERDUE: Duration = Duration::from_secs(300);
const PAGE: i64 = 500;
/// The verdict of an act whose outcome is unknown.
const UNKNOWN: &str = "unknown";

/// Runs until `stop`. All replicas do this; each row is sealed only once.
pub async fn run(ledger: SharedLedger, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = seal_overdue(&ledger).await {
            warn!(%error, "rows of the audit log could not be sealed, trying again");
        }
        tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(PERIOD) => {} }
    }
}

/// A row that cannot be sealed does not stop the others. Returns the last error.
async fn seal_overdue(ledger: &SharedLedger) -> Result<(), Error> {
    let (now, mut outcome) = (clock::now(), Ok(()));
    for open in ledger.open_acts(now.minus(OVERDUE), PAGE).await? {
        let detail = "the gateway ended or lost its ledger before the verdict was written";
        let seal = Seal { at: now, status: None, verdict: UNKNOWN.to_owned(), detail: Some(detail.to_owned()) };
        outcome = ledger.seal_act(&open.act, &seal).await.map(drop).and(outcome);
    }
    outcome
}

/// Runs a command's change of the ledger, and records it as an act of the user who runs the command.
///
/// # Errors
/// When `work` fails, or its row cannot be written.
pub async fn by_command<T>(
    ledger: &SharedLedger,
    act: NewAct,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let done = audit::within(act.clone(), work).await;
    let verdict = if done.is_ok() { "done" } else { "failed" };
    let seal = Seal { at: clock::now(), status: None, verdict: verdict.to_owned(), detail: None };
    let sealed = ledger.seal_act(&act, &seal).await;
    // The failure of the work is more useful than the failure to record it.
    let done = done?;
    sealed?;
    Ok(done)
}

/// The result of verifying the chain.
#[derive(Debug, PartialEq, Eq)]
pub enum Verified {
    /// The chain is intact: its number of rows, and the hash of the last one.
    Whole { rows: i64, head: String },
    /// The first row that does not match.
    Broken { at: i64, why: String },
}

/// Verifies the whole chain. `known` is the hash of a row that was once the last: an attacker who rewrites the chain from the start
/// cannot reproduce it.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn verify(ledger: &SharedLedger, known: Option<&str>) -> Result<Verified, Error> {
    let (last, head) = ledger.chain_head().await?;
    let (mut place, mut previous) = (0, Vec::new());
    let mut is_met = known.is_none();
    loop {
        let rows = ledger.chain(place, PAGE).await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            match link(row, place, &previous) {
                Ok(hash) => {
                    is_met |= known.is_some_and(|known| known.eq_ignore_ascii_case(&hex(&hash)));
                    (place, previous) = (place + 1, hash);
                }
                Err(why) => return Ok(Verified::Broken { at: place + 1, why }),
            }
        }
    }
    // Rows may have been sealed since the head was read.
    if place < last || (place == last && previous != head) {
        let why = format!("the chain ends there, and its head says {last} rows");
        return Ok(Verified::Broken { at: place + 1, why });
    }
    if !is_met {
        return Ok(Verified::Broken {
            at: place,
            why: "no row of the chain has the hash that --head gives".to_owned(),
        });
    }
    Ok(Verified::Whole { rows: place, head: hex(&previous) })
}

/// The hash of the row after `place`.
fn link(row: &Act, place: i64, previous: &[u8]) -> Result<Vec<u8>, String> {
    let sealed = row.sealed.as_ref().ok_or_else(|| "the row is not sealed".to_owned())?;
    if sealed.chain_no != place + 1 {
        return Err("the row is missing".to_owned());
    }
    if audit::hash(previous, sealed.chain_no, &row.act, &sealed.seal) != sealed.hash {
        return Err(format!("the row of {} ({}) was changed, or the one before it", row.act.who, row.act.what));
    }
    Ok(sealed.hash.clone())
}

/// Formats a hash for display.
pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
