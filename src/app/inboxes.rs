//! Which inboxes a gateway drains: the ledger's own, when it is in PostgreSQL, and those of `[[inboxes]]`.

use std::time::Duration;

use anyhow::Context;

use crate::config::{Config, Secret};
use crate::live::inboxes::Source;
use ledger::inbox::Inbox;

const OWN_POLL: Duration = Duration::from_secs(1);

/// # Errors
/// When an address cannot be understood.
pub(super) fn sources(config: &Config, ledger: &str) -> anyhow::Result<Vec<Source>> {
    let own = config.database.url.as_ref().filter(|_| ledger == "postgres").map(|url| (url, OWN_POLL));
    let others = config.inboxes.iter().map(|inbox| (&inbox.url, inbox.poll));
    let mut urls: Vec<&Secret> = Vec::new();
    let mut sources = Vec::new();
    for (url, poll) in own.into_iter().chain(others) {
        // The ledger's own inbox may be listed too; it is drained only once.
        if urls.contains(&url) {
            continue;
        }
        urls.push(url);
        let inbox = Inbox::open(url.reveal()).with_context(|| format!("the inbox {url}"))?;
        sources.push(Source::new(url.to_string(), inbox, poll));
    }
    Ok(sources)
}
