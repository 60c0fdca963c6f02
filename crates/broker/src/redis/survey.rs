//! What Redis itself shows about a fleet: prefixes of its keys, and channels of its events. For `taskgate check`, when workers do not
//! answer or mask their settings.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_stream::StreamExt;

use super::{Broker, EVENT_EXCHANGE, Error, Link};
use celery::event::Event;

/// Maximum number of pages of a thousand keys each: only a sample.
const PAGES: usize = 50;

/// The workers that sent events while this listened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Workers on the channel that the options name.
    pub hosts: BTreeSet<String>,
    /// Other channels whose names look like event channels.
    pub elsewhere: BTreeSet<String>,
}

impl Broker {
    /// Listens for this time. Heartbeats come every two seconds by default.
    pub async fn overhear(&self, time: Duration) -> Result<Heard, Error> {
        let mut pubsub = self.link.pubsub().await?;
        pubsub.psubscribe(format!("*{EVENT_EXCHANGE}*")).await?;
        let ours = self.keys.fanout(EVENT_EXCHANGE, "");
        let mut heard = Heard::default();
        let mut messages = pubsub.on_message();
        let deadline = tokio::time::Instant::now() + time;
        while let Ok(Some(message)) = tokio::time::timeout_at(deadline, messages.next()).await {
            let channel = message.get_channel_name();
            let with_key = self.keys.transport().fanout_patterns;
            let is_ours = if with_key { channel.starts_with(&format!("{ours}/")) } else { channel == ours };
            if !is_ours {
                heard.elsewhere.insert(channel.to_owned());
                continue;
            }
            let events = Event::decode(message.get_payload_bytes()).unwrap_or_default();
            heard.hosts.extend(events.into_iter().map(|event| event.hostname));
        }
        Ok(heard)
    }

    /// The prefixes of kombu's own keys: the `global_keyprefix` of each fleet on this database.
    pub async fn prefixes(&self) -> Result<BTreeSet<String>, Error> {
        prefixes(&self.link, "_kombu.binding.").await
    }
}

/// The texts before `part` in the names of keys.
pub(crate) async fn prefixes(link: &Link, part: &str) -> Result<BTreeSet<String>, Error> {
    let (mut found, mut cursor) = (BTreeSet::new(), 0_u64);
    for _ in 0..PAGES {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(format!("*{part}*")).arg("COUNT").arg(1_000);
        let (next, page): (u64, Vec<String>) = link.call(&command).await?;
        found.extend(page.iter().filter_map(|key| key.split(part).next()).map(str::to_owned));
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    Ok(found)
}
