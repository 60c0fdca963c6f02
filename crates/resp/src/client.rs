//! The state of a connected client: its settings, its subscriptions, and the bytes to send to it.
//!
//! Everything lives on the server's one thread, so cells are enough. The connection loop alone reads and writes the
//! socket; others append to the outbox and wake it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use indexmap::IndexSet;
use tokio::sync::Notify;

use super::{
    keyspace::Millis,
    reply::{self, Protocol, Reply},
};

/// The hard limit of Redis's `client-output-buffer-limit pubsub 32mb 8mb 60`: a slower reader is disconnected.
const SUBSCRIBER_HARD_LIMIT: usize = 32 * 1024 * 1024;
const SUBSCRIBER_SOFT_LIMIT: usize = 8 * 1024 * 1024;
const SUBSCRIBER_SOFT_TIME: Duration = Duration::from_secs(60);

/// Whether and how the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Open,
    /// It ends when the outbox is written.
    AfterFlush,
    Now,
}

/// The mode that `CLIENT REPLY` has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    On,
    Off,
    SkipNext,
    SkipThis,
}

/// Commands between `MULTI` and `EXEC`.
#[derive(Debug, Default)]
pub struct Transaction {
    pub queue: Vec<Vec<Bytes>>,
    /// A command was refused, so `EXEC` will be refused too.
    pub broken: bool,
}

#[derive(Debug)]
pub struct Client {
    pub id: u64,
    pub address: String,
    pub connected_at: Millis,
    pub name: RefCell<Bytes>,
    pub library: RefCell<(Bytes, Bytes)>,
    pub last_command: Cell<&'static str>,
    pub db: Cell<usize>,
    /// The client has sent the server's password.
    pub has_password: Cell<bool>,
    pub protocol: Cell<Protocol>,
    pub replies: Cell<Replies>,
    pub channels: RefCell<IndexSet<Bytes>>,
    pub patterns: RefCell<IndexSet<Bytes>>,
    pub transaction: RefCell<Option<Transaction>>,
    pub watched: RefCell<Vec<(usize, Bytes)>>,
    pub watched_changed: Rc<Cell<bool>>,
    /// The number of the wait in which this client is blocked.
    pub blocked: Cell<Option<u64>>,
    pub blocked_until: Cell<Option<Instant>>,
    pub ending: Cell<Ending>,
    pub outbox: RefCell<BytesMut>,
    behind_since: Cell<Option<Instant>>,
    wake: Notify,
}

impl Client {
    pub fn new(id: u64, address: String, connected_at: Millis) -> Self {
        Self {
            id,
            address,
            connected_at,
            name: RefCell::default(),
            library: RefCell::default(),
            last_command: Cell::new("NULL"),
            db: Cell::new(0),
            has_password: Cell::new(false),
            protocol: Cell::default(),
            replies: Cell::new(Replies::On),
            channels: RefCell::default(),
            patterns: RefCell::default(),
            transaction: RefCell::default(),
            watched: RefCell::default(),
            watched_changed: Rc::default(),
            blocked: Cell::new(None),
            blocked_until: Cell::new(None),
            ending: Cell::new(Ending::Open),
            outbox: RefCell::default(),
            behind_since: Cell::new(None),
            wake: Notify::new(),
        }
    }

    pub fn subscriptions(&self) -> usize {
        self.channels.borrow().len() + self.patterns.borrow().len()
    }

    /// Begins an array whose elements follow as separate answers.
    pub fn begin_array(&self, len: usize) {
        if self.replies.get() == Replies::On {
            reply::begin_array(&mut self.outbox.borrow_mut(), len);
        }
    }

    /// Appends an answer to this client's own command, unless it wants none.
    pub fn answer(&self, reply: &Reply) {
        if self.replies.get() == Replies::On {
            self.append(reply);
        }
    }

    fn append(&self, reply: &Reply) {
        reply.encode(self.protocol.get(), &mut self.outbox.borrow_mut());
    }

    /// Ends a blocked wait with its answer.
    pub fn unblock(&self, reply: &Reply) {
        self.blocked.set(None);
        self.blocked_until.set(None);
        self.answer(reply);
        self.wake.notify_one();
    }

    /// Appends a published message; a client that reads too slowly is disconnected.
    pub fn deliver(&self, message: &Reply) {
        if self.ending.get() == Ending::Now {
            return;
        }
        self.append(message);
        if self.is_too_far_behind() {
            tracing::warn!(client.id = self.id, "closing client {}: it reads its subscriptions too slowly", self.id);
            self.close(Ending::Now);
        }
        self.wake.notify_one();
    }

    fn is_too_far_behind(&self) -> bool {
        let waiting = self.outbox.borrow().len();
        if waiting <= SUBSCRIBER_SOFT_LIMIT {
            self.behind_since.set(None);
            return false;
        }
        let now = Instant::now();
        let since = self.behind_since.get().unwrap_or(now);
        self.behind_since.set(Some(since));
        waiting > SUBSCRIBER_HARD_LIMIT || now.duration_since(since) > SUBSCRIBER_SOFT_TIME
    }

    pub fn close(&self, how: Ending) {
        if self.ending.get() != Ending::Now {
            self.ending.set(how);
        }
        self.wake.notify_one();
    }

    /// Completes when another client has changed the outbox, the wait or the ending.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}
