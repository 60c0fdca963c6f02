//! Replicas notify each other of commits: one NOTIFY per batch, with the ids of the changed tasks.
//!
//! The listener has a dedicated connection. After every gap (it is new, or was lost) it sends [`Changed::Gap`], so that a missed
//! notification costs only a read and never an event.
//!
//! A replica that is alone sends none: each would wake its own listener, which costs PostgreSQL a tenth of a publication. [`Others`]
//! knows whether it is alone: every listener holds a shared advisory lock, and greets the others when it begins to listen. Whoever is
//! greeted notifies from then on, and greets back, because commits that were under way are not notified.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgListener;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::pooled::{Pool, Tx};
use crate::{Changed, Error};
use celery::task::TaskId;

const CHANNEL: &str = "taskgate";
const LISTEN: &str = "LISTEN \"taskgate\"";
const NOTIFY: &str = "select pg_notify('taskgate', $1)";
/// Held by each listener until its connection ends.
const PRESENT: &str = "select pg_advisory_lock_shared(7310319, 5)";
const HOW_MANY: &str = "select count(*) from pg_locks where locktype = 'advisory' and classid = 7310319 and objid = 5 and granted \
     and database = (select oid from pg_database where datname = current_database())";
/// Begins a line that is not an id, because ids contain no control characters. Alone it greets all; before a replica's name, that one.
const GREETING: char = '\u{1}';

/// Maximum payload: PostgreSQL accepts less than 8,000 bytes.
const MAX_PAYLOAD: usize = 7_900;

/// How often the listener checks its connection, and whether there are other replicas.
const LOOK_PERIOD: Duration = Duration::from_secs(15);
/// When a new replica is greeted again, because a commit that was under way when it came was not notified: a statement may run for ten
/// seconds.
const AGAIN: [Duration; 3] = [Duration::from_millis(50), Duration::from_secs(1), Duration::from_secs(13)];
/// New replicas that are greeted again at the same time; more are greeted once.
const MOST_NEW: usize = 64;
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

/// What another replica says.
#[derive(Debug)]
enum Heard {
    Changed(Changed),
    /// It has begun to listen, and does not know what changed before.
    Greeting(String),
}

/// Reads a payload; `None` if it is from this replica, or for another one.
fn read(replica: &str, payload: &str) -> Option<Heard> {
    let mut lines = payload.split('\n');
    let from = lines.next().filter(|from| *from != replica)?;
    if let Some(to) = payload.split('\n').nth(1).and_then(|line| line.strip_prefix(GREETING)) {
        return match to {
            "" => Some(Heard::Greeting(from.to_owned())),
            to => (to == replica).then_some(Heard::Changed(Changed::Any)),
        };
    }
    let ids: Result<Vec<TaskId>, _> = lines.map(TaskId::parse).collect();
    Some(Heard::Changed(match ids {
        Ok(ids) if !ids.is_empty() && payload.lines().nth(1) != Some("*") => Changed::Tasks(Arc::from(ids)),
        _ => Changed::Any,
    }))
}

/// Whether other replicas listen, as far as this one knows. True while it does not listen itself: then it does not know.
pub(super) struct Others(AtomicBool);

impl Default for Others {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Others {
    pub fn listen(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, listen: bool) {
        self.0.store(listen, Ordering::Release);
    }
}

pub(super) struct Listener {
    pub pool: Pool,
    pub replica: Arc<str>,
    pub others: Arc<Others>,
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
                () = stop.cancelled() => return self.others.set(true),
                heard = self.listen() => heard,
            };
            self.others.set(true);
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
        answered(sqlx::query(PRESENT).execute(&mut listener)).await?;
        answered(listener.listen(CHANNEL)).await?;
        *connected = true;
        let _ = self.changed.send(Changed::Gap);
        self.greet(&mut listener, "").await?;
        self.look_around(&mut listener).await?;
        let mut look_at = Instant::now() + LOOK_PERIOD;
        let mut greetings: VecDeque<(Instant, String)> = VecDeque::new();
        loop {
            let next = greetings.front().map_or(look_at, |(at, _)| look_at.min(*at));
            match tokio::time::timeout_at(next, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => match read(&self.replica, notification.payload()) {
                    Some(Heard::Changed(changed)) => drop(self.changed.send(changed)),
                    Some(Heard::Greeting(from)) => {
                        self.others.set(true);
                        let _ = self.changed.send(Changed::Any);
                        greet_again(&mut greetings, &from);
                        self.greet(&mut listener, &from).await?;
                    }
                    None => {}
                },
                Ok(Ok(None)) => return Err(sqlx::Error::PoolClosed),
                Ok(Err(error)) => return Err(error),
                Err(_) if look_at <= Instant::now() => {
                    look_at = Instant::now() + LOOK_PERIOD;
                    self.look_around(&mut listener).await?;
                }
                Err(_) => {
                    if let Some((_, to)) = greetings.pop_front() {
                        self.greet(&mut listener, &to).await?;
                    }
                }
            }
        }
    }

    /// Greets one replica, or all: whoever hears it reads what may have changed.
    async fn greet(&self, listener: &mut PgListener, to: &str) -> Result<(), sqlx::Error> {
        let greeting = sqlx::query(NOTIFY).bind(format!("{}\n{GREETING}{to}", self.replica)).execute(&mut *listener);
        answered(greeting).await?;
        remain(listener).await
    }

    /// Counts the listeners. Greetings that arrive meanwhile are read afterwards, so a new replica is not overlooked.
    async fn look_around(&self, listener: &mut PgListener) -> Result<(), sqlx::Error> {
        let count: i64 = answered(sqlx::query(HOW_MANY).fetch_one(&mut *listener)).await?.try_get(0)?;
        self.others.set(count > 1);
        remain(listener).await
    }
}

/// Listens again, which changes nothing: `pg_stat_activity` shows the last statement of a connection, and operators look there for who
/// listens.
async fn remain(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    answered(sqlx::raw_sql(LISTEN).execute(listener)).await.map(|_| ())
}

/// Plans further greetings of a new replica, in the order of their times.
fn greet_again(greetings: &mut VecDeque<(Instant, String)>, to: &str) {
    if greetings.len() >= AGAIN.len() * MOST_NEW {
        return;
    }
    let now = Instant::now();
    greetings.extend(AGAIN.map(|pause| (now + pause, to.to_owned())));
    greetings.make_contiguous().sort_by_key(|(at, _)| *at);
}

/// A connection that does not answer is broken.
async fn answered<T>(query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(LONGEST_PAUSE, query).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

struct Interrupted {
    connected: bool,
    error: sqlx::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_does_not_hear_itself() {
        assert!(read("a", "a\nx").is_none());
        assert!(
            matches!(read("b", "a\nx\ny z"), Some(Heard::Changed(Changed::Tasks(ids))) if ids.len() == 2 && ids[1].as_str() == "y z")
        );
        assert!(matches!(read("b", "a\n*"), Some(Heard::Changed(Changed::Any))));
        assert!(matches!(read("b", ""), Some(Heard::Changed(Changed::Any))));
    }

    #[test]
    fn a_greeting_is_for_all_or_for_one() {
        assert!(matches!(read("b", "a\n\u{1}"), Some(Heard::Greeting(from)) if from == "a"));
        assert!(read("a", "a\n\u{1}").is_none());
        assert!(matches!(read("b", "a\n\u{1}b"), Some(Heard::Changed(Changed::Any))));
        assert!(read("c", "a\n\u{1}b").is_none());
    }

    #[test]
    fn a_new_replica_is_greeted_again_until_every_statement_has_ended() {
        let mut greetings = VecDeque::new();
        greet_again(&mut greetings, "a");
        greet_again(&mut greetings, "b");
        assert!(greetings.iter().is_sorted_by_key(|(at, _)| *at));
        (0..1_000).for_each(|_| greet_again(&mut greetings, "c"));
        assert_eq!(greetings.len(), AGAIN.len() * MOST_NEW);
    }
}
