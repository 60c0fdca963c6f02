//! Messages of a queue that this program reads itself, whatever the broker.
//!
//! Invariant: a message leaves its queue only after [`Served::done`], so a crash in between brings it again. Who reads must
//! therefore take a message it has seen before.

use lapin::Acker;
use lapin::options::BasicAckOptions;
use tokio::sync::mpsc;

use crate::{Error, Lists};

/// One message, still in its queue or reserved there.
#[derive(Debug)]
pub struct Served {
    /// The envelope.
    pub payload: Vec<u8>,
    end: End,
    /// Whoever reads the queue goes on when all copies of this are gone.
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

    /// The message is dealt with: it leaves the queue.
    pub async fn done(self) -> Result<(), Error> {
        match self.end {
            End::List { lists, key } => lists.drop_from(&key, &self.payload).await,
            End::Acker(acker) => {
                // When its connection is gone it comes again.
                let _ = acker.ack(BasicAckOptions::default()).await;
                Ok(())
            }
        }
    }
}
