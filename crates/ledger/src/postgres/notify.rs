//! Replicas notify each other of commits: one NOTIFY per batch, with the ids of the changed tasks.
//!
//! The listener has a dedicated connection. After every gap (it is new, or was lost) it sends [`Changed::Gap`], so that a missed
//! notification costs only a read and never an event.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::pooled::{Pool, Tx};
use crate::{Changed, Error};
use celery::task::TaskId;

const CHANNEL: &str = "taskgate";
const NOTIFY: &str = "select pg_notify('taskgate', $1)";

/// Maximum payload: PostgreSQL accepts less than 8,000 bytes.
const MAX_PAYLOAD: usize = 7_900;

/// Silence after which the listener checks its connection.
const QUIET: Duration = Duration::from_secs(15);
/// How often watchers read behind a pooler, where notifications do not arrive.
const CHECK_PERIOD: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The payload for a transaction with events of these tasks: `replica`, then an id per line, or `*` for too many. Ids contain no
/// control characters. `None` without tasks.
pub(super) fn payload<'a>(replica: &str, ids: impl Iterator<Item = &'a TaskId>) -> Option<String> {
    let mut text = replica.to_owned();
    let mut last: Option<&TaskId> = None;
    for id in ids {
        if last == Some(id) {
            continue;
        }
        last = Some(id);
        text.push('\n');
        text.push_str(id.as_str());
        if text.len() > MAX_PAYLOAD {
            return Some(any(replica));
        }
    }
    last.map(|_| text)
}

/// A payload that does not name the changed tasks.
pub(super) fn any(replica: &str) -> String {
    format!("{replica}\n*")
}

/// The same for tasks that changed without an event.
pub(super) fn payload_of(replica: &str, ids: &[TaskId]) -> Option<String> {
    if ids.is_empty() {
        return None;
    }
    let lines = ids.iter().map(TaskId::as_str);
    let text = std::iter::once(replica).chain(lines).collect::<Vec<_>>().join("\n");
    Some(if text.len() > MAX_PAYLOAD { format!("{replica}\n*") } else { text })
}

/// Sends the notification when the transaction commits.
pub(super) async fn notify(tx: &mut Tx, payload: &str) -> Result<(), Error> {
    sqlx::query(NOTIFY).bind(payload).execute(&mut **tx).await?;
    Ok(())
}

/// Reads a payload; `None` if this replica sent it.
fn read(replica: &str, payload: &str) -> Option<Changed> {
    let mut lines = payload.split('\n');
    if lines.next() == Some(replica) {
        return None;
    }
    let ids: Result<Vec<TaskId>, _> = lines.map(TaskId::parse).collect();
    match ids {
        Ok(ids) if !ids.is_empty() && payload.lines().nth(1) != Some("*") => Some(Changed::Tasks(Arc::from(ids))),
        _ => Some(Changed::Any),
    }
}

pub(super) struct Listener {
    pub pool: Pool,
    pub replica: Arc<str>,
    pub changed: broadcast::Sender<Changed>,
}

impl Listener {
    /// Listens until `stop`; reconnects after every loss, with growing pauses.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            if self.pool.is_pooled().await.is_ok_and(|pooled| pooled) {
                return self.look_again_and_again(stop).await;
            }
            let heard = tokio::select! {
                () = stop.cancelled() => return,
                heard = self.listen() => heard,
            };
            if heard.connected {
                pause = FIRST_PAUSE;
                warn!(error = %heard.error, "listening to other replicas was interrupted, connecting again");
            } else {
                debug!(error = %heard.error, "cannot listen to other replicas yet");
            }
            let _ = self.changed.send(Changed::Gap);
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(pause) => {} }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Makes watchers read periodically: behind a pooler, LISTEN would end with its transaction.
    async fn look_again_and_again(&self, stop: CancellationToken) {
        info!(
            "the ledger is reached through a connection pooler, so commits of other replicas are polled for every second; set \
             database.direct_url to the server's own address to be notified of them at once"
        );
        while !stop.is_cancelled() {
            let _ = self.changed.send(Changed::Any);
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(CHECK_PERIOD) => {} }
        }
    }

    async fn listen(&self) -> Interrupted {
        let mut connected = false;
        let error = match self.try_listen(&mut connected).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        Interrupted { connected, error }
    }

    async fn try_listen(&self, connected: &mut bool) -> Result<std::convert::Infallible, sqlx::Error> {
        let mut listener = PgListener::connect_with(self.pool.connections()).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        *connected = true;
        let _ = self.changed.send(Changed::Gap);
        loop {
            match tokio::time::timeout(QUIET, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    if let Some(changed) = read(&self.replica, notification.payload()) {
                        let _ = self.changed.send(changed);
                    }
                }
                Ok(Ok(None)) => return Err(sqlx::Error::PoolClosed),
                Ok(Err(error)) => return Err(error),
                Err(_) => alive(&mut listener).await?,
            }
        }
    }
}

struct Interrupted {
    connected: bool,
    error: sqlx::Error,
}

async fn alive(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    let ping = sqlx::query("select 1").execute(listener);
    match tokio::time::timeout(LONGEST_PAUSE, ping).await {
        Ok(done) => done.map(|_| ()),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_does_not_hear_itself() {
        assert!(read("a", "a\nx").is_none());
        assert!(
            matches!(read("b", "a\nx\ny z"), Some(Changed::Tasks(ids)) if ids.len() == 2 && ids[1].as_str() == "y z")
        );
        assert!(matches!(read("b", "a\n*"), Some(Changed::Any)));
        assert!(matches!(read("b", ""), Some(Changed::Any)));
    }
}
