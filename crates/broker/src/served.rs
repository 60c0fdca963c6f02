//! Messages of a queue that this program reads itself, on any broker.
//!
//! Invariant: a message leaves its queue only after [`Served::done`], so after a crash in between it comes again. Readers must
//! therefore handle a message that they have seen before.

use lapin::Acker;
use lapin::options::BasicAckOptions;
use tokio::sync::mpsc;

use crate::{Error, Lists};

/// A message, still in its queue or reserved there.
#[derive(Debug)]
pub struct Served {
    /// The envelope.
    pub payload: Vec<u8>,
    end: End,
    /// The reader of the queue continues when all copies of this are dropped.
    _busy: Option<mpsc::Sender<()>>,
}

enum End {
    List { lists: Lists, key: String },
    Acker(Acker),
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::List { .. } => "List",
            Self::Acker(_) => "Acker",
        })
    }
}

impl Served {
    pub(crate) fn of_list(payload: Vec<u8>, lists: Lists, key: String, busy: mpsc::Sender<()>) -> Self {
        Self { payload, end: End::List { lists, key }, _busy: Some(busy) }
    }

    pub(crate) fn of_channel(payload: Vec<u8>, acker: Acker) -> Self {
        Self { payload, end: End::Acker(acker), _busy: None }
    }

    /// Removes the message from the queue, because it is done.
    pub async fn done(self) -> Result<(), Error> {
        match self.end {
            End::List { lists, key } => lists.drop_from(&key, &self.payload).await,
            End::Acker(acker) => {
                // If the connection is gone, the message is delivered again.
                let _ = acker.ack(BasicAckOptions::default()).await;
                Ok(())
            }
        }
    }
}
