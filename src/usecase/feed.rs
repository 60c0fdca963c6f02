//! The feed of all events from a position on, for the stream of all events.
//!
//! While the ledger is down the feed is silent, and it continues afterwards; it never skips an event.

use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use futures_util::Stream;

use super::Gateway;
use ledger::{Error, Event, Filter};
use runtime::lifecycle::Backoff;

/// Events read from the ledger at a time, which bounds the buffer for a slow reader.
const PAGE: i64 = 200;
/// How often the feed is read without a signal of a commit: a lost signal delays events by at most this.
const PERIOD: Duration = Duration::from_secs(5);
const LEDGER_PAUSE: Duration = Duration::from_secs(2);

impl Gateway {
    /// The endless stream of events that match `filter`, after a position of the feed; `None` begins now.
    pub async fn feed(
        self: &Arc<Self>,
        filter: Filter,
        after: Option<i64>,
    ) -> Result<impl Stream<Item = Event> + use<>, Error> {
        let after = match after {
            Some(after) => after,
            None => self.ledger.feed_end().await?,
        };
        Ok(events(Arc::clone(self), filter, after))
    }
}

fn events(gateway: Arc<Gateway>, filter: Filter, mut after: i64) -> impl Stream<Item = Event> {
    stream! {
        let mut commits = gateway.hub.watch_all();
        let mut backoff = Backoff::new(LEDGER_PAUSE);
        loop {
            // Everything committed until now is read below.
            commits = commits.resubscribe();
            match gateway.ledger.feed(after, &filter, PAGE).await {
                Ok((events, end)) => {
                    backoff.reset();
                    let more = end > after;
                    for event in events {
                        yield event;
                    }
                    after = end.max(after);
                    if more {
                        continue;
                    }
                }
                Err(_) => {
                    tokio::time::sleep(backoff.pause()).await;
                    continue;
                }
            }
            let _ = tokio::time::timeout(PERIOD, commits.recv()).await;
        }
    }
}
