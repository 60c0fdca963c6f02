//! Listens to both feeds (results and worker events) all the time, on every replica.
//!
//! Messages between the death of a recorder and the start of its successor would be lost otherwise. So a standby replica remembers the
//! last seconds, and records them when it takes over; the ledger drops what was recorded before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::marks::Announced;
use super::{BATCH, event};
use broker::backend::{Heard, ResultBackend};
use broker::{Broker, Feed};
use celery::event::Event;

/// Capacity between the sockets and the ledger: about a second of the fastest feed. When it is full the sockets wait, and when
/// Redis then cuts them off, the gap is read again.
const FEED_CAPACITY: usize = 16_384;
/// How long events wait for a result.
const EVENTS_BREATH: Duration = Duration::from_millis(2);
/// How much is remembered, longer than the gap between two recorders: the lease, the successor's next attempt, and messages that the old
/// recorder had received but not written.
const KEPT: Duration = Duration::from_secs(5);
/// By this time a subscription is normally established.
const NEW: Duration = Duration::from_secs(1);
/// Limit of the remembered bytes; beyond it the oldest messages are dropped.
const KEPT_BYTES: usize = 16 << 20;

/// Event messages that are read together.
const MESSAGES: usize = 64;

/// A message from a socket.
pub(super) enum Socket {
    Result(Heard),
    Event(Feed),
    /// The events of a message, with its size in bytes.
    Events(Vec<Event>, usize),
    /// Earlier `task-received` events, repeated because their messages turned out to be marked as redelivered.
    Marked(Vec<Event>),
}

impl Socket {
    /// Decodes a message of events.
    fn decode(&mut self) {
        if let Self::Event(Feed::Message(payload)) = self {
            *self = Self::Events(event::decode(payload), payload.len());
        }
    }

    fn events(&self) -> &[Event] {
        if let Self::Events(events, _) = self { events } else { &[] }
    }

    /// Its size in bytes; `None` if it is not a message.
    fn size(&self) -> Option<usize> {
        match self {
            Self::Result(Heard::Record { payload, .. }) | Self::Event(Feed::Message(payload)) => Some(payload.len()),
            Self::Events(_, bytes) => Some(*bytes),
            Self::Result(Heard::Gap) | Self::Event(Feed::Gap) | Self::Marked(_) => None,
        }
    }
}

pub(super) struct Feeds {
    opened: Instant,
    heard: mpsc::Receiver<Socket>,
    kept: VecDeque<(Instant, Socket)>,
    bytes: usize,
    token: CancellationToken,
    _set: tokio::task::JoinSet<()>,
}

impl Feeds {
    /// Reads both sockets in separate tasks, which end with this value. While this replica is `active`, events are decoded as soon as they
    /// arrive: what must be looked up for them would be gone after even a short outage of the ledger.
    pub fn open(backend: &ResultBackend, broker: &Broker, active: Arc<AtomicBool>, stop: &CancellationToken) -> Self {
        let (sink, heard) = mpsc::channel(FEED_CAPACITY);
        let token = stop.child_token();
        let mut set = tokio::task::JoinSet::new();
        let (results_in, mut records) = mpsc::channel(256);
        let (events_in, mut events) = mpsc::channel(256);
        let (results, follow_results_until, recording) = (backend.clone(), token.clone(), Arc::clone(&active));
        set.spawn(async move { results.follow(results_in, recording, follow_results_until).await });
        let (follower, follow_until) = (broker.clone(), token.clone());
        set.spawn(async move { follower.follow_events(events_in, follow_until).await });
        let results_sink = sink.clone();
        set.spawn(async move {
            while let Some(heard) = records.recv().await {
                if results_sink.send(Socket::Result(heard)).await.is_err() {
                    break;
                }
            }
        });
        let broker = broker.clone();
        set.spawn(async move {
            let mut feeds = Vec::with_capacity(MESSAGES);
            while events.recv_many(&mut feeds, MESSAGES).await > 0 {
                let mut announced = Announced::default();
                for feed in feeds.drain(..) {
                    let mut message = Socket::Event(feed);
                    if active.load(Ordering::Relaxed) {
                        message.decode();
                        announced.add(message.events());
                    }
                    if sink.send(message).await.is_err() {
                        return;
                    }
                }
                let marked = match broker.lists() {
                    Some(lists) => announced.marked(lists).await,
                    None => Vec::new(),
                };
                if !marked.is_empty() && sink.send(Socket::Marked(marked)).await.is_err() {
                    return;
                }
            }
        });
        Self::of(heard, token, set)
    }

    fn of(heard: mpsc::Receiver<Socket>, token: CancellationToken, set: tokio::task::JoinSet<()>) -> Self {
        Self { opened: Instant::now(), heard, kept: VecDeque::new(), bytes: 0, token, _set: set }
    }

    /// Whether it has just begun to listen, so that other replicas may remember more.
    pub fn is_new(&self) -> bool {
        self.opened.elapsed() < NEW
    }

    /// Remembers messages until the sockets end.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub async fn listen(&mut self) {
        while let Some(message) = self.heard.recv().await {
            self.keep(message);
        }
    }

    fn keep(&mut self, message: Socket) {
        let Some(size) = message.size() else { return };
        self.kept.push_back((Instant::now(), message));
        self.bytes += size;
        let is_old = |(at, _): &(Instant, Socket)| at.elapsed() > KEPT;
        while self.bytes > KEPT_BYTES || self.kept.front().is_some_and(is_old) {
            let Some((_, oldest)) = self.kept.pop_front() else { break };
            self.bytes -= oldest.size().unwrap_or(0);
        }
    }

    /// The messages of the last seconds, in order; they are returned only once.
    pub fn kept(&mut self) -> Vec<Socket> {
        self.bytes = 0;
        self.kept.drain(..).filter(|(at, _)| at.elapsed() <= KEPT).map(|(_, message)| message).collect()
    }

    /// Waits for messages and adds them to the batch; 0 when the sockets have ended.
    ///
    /// # Cancel safety
    /// A dropped call has added nothing.
    pub async fn hear(&mut self, batch: &mut Vec<Socket>) -> usize {
        self.heard.recv_many(batch, BATCH).await
    }

    /// Lets a batch with only events wait a moment for the result that often follows, so that a short task needs one commit instead of
    /// three. Results and custom states are never delayed.
    pub async fn linger(&mut self, batch: &mut Vec<Socket>) {
        let until = Instant::now() + EVENTS_BREATH;
        while batch.len() < BATCH
            && batch.iter().all(|message| matches!(message, Socket::Event(_) | Socket::Events(..)))
        {
            let room = BATCH - batch.len();
            match tokio::time::timeout_at(until, self.heard.recv_many(batch, room)).await {
                Ok(count) if count > 0 => {}
                _ => break,
            }
        }
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feeds() -> (Feeds, mpsc::Sender<Socket>) {
        let (sink, heard) = mpsc::channel(16);
        (Feeds::of(heard, CancellationToken::new(), tokio::task::JoinSet::new()), sink)
    }

    fn message(bytes: usize) -> Socket {
        Socket::Event(Feed::Message(vec![0; bytes]))
    }

    #[tokio::test]
    async fn what_was_said_while_nobody_recorded_is_told_once() {
        let (mut feeds, sink) = feeds();
        for message in [Socket::Event(Feed::Gap), message(1), message(2)] {
            assert!(sink.send(message).await.is_ok());
        }
        drop(sink);
        feeds.listen().await;
        let sizes = |told: Vec<Socket>| told.iter().filter_map(Socket::size).collect::<Vec<_>>();
        assert_eq!(sizes(feeds.kept()), [1, 2]);
        assert_eq!(sizes(feeds.kept()), [0; 0]);
    }

    #[test]
    fn of_too_much_the_newest_is_remembered() {
        let (mut feeds, _sink) = feeds();
        for _ in 0..5 {
            feeds.keep(message(KEPT_BYTES / 4));
        }
        assert_eq!((feeds.kept.len(), feeds.bytes), (4, KEPT_BYTES));
    }
}
