//! Drains an inbox: each call that an application's transaction committed becomes exactly one task.
//!
//! Every replica drains every inbox: a claimed call is locked, so two replicas never have the same call. A call is deleted only after
//! the ledger has its task; a gateway that dies in between leaves both, and the next claim finds the task by its id. Each inbox has its
//! own service, so a database that is down delays only its own calls.

use std::convert::Infallible;
use std::time::Duration;

use metrics::{counter, histogram};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::live::inboxes::Source;
use crate::usecase::SharedGateway;
use crate::usecase::inboxes::Taken;
use ledger::Error;
use runtime::clock;
use runtime::crash_points;
use runtime::lifecycle::Backoff;

/// Calls in one claim. Half of a claim with bodies of maximum size fits into a commit.
const BATCH: i64 = 100;
/// Longest pause between attempts to reach a database that is down.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The service that drains one inbox.
pub struct Drain {
    gateway: SharedGateway,
    /// The index of its inbox.
    place: usize,
}

/// The result of a pass.
enum Pass {
    /// There may be more.
    More,
    Idle,
    /// The calls cannot be taken now, for a reason other than the inbox.
    Held,
}

impl Drain {
    /// A service for each inbox of the gateway.
    pub fn all(gateway: &SharedGateway) -> Vec<Self> {
        let places = 0..gateway.inboxes.sources().len();
        places.map(|place| Self { gateway: gateway.clone(), place }).collect()
    }

    /// Runs until `stop`, and finishes its pass before it ends.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.drain(&stop) => {}
            never = self.hear() => match never {},
        }
    }

    async fn drain(&self, stop: &CancellationToken) {
        let (source, mut backoff) = (self.source(), Backoff::new(LONGEST_PAUSE));
        while !stop.is_cancelled() {
            let pause = match self.pass().await {
                Ok(pass) => {
                    if source.note_away(false) {
                        info!(inbox = %source.name, "the inbox of {} answers again", source.name);
                    }
                    match pass {
                        Pass::More => continue,
                        Pass::Idle => {
                            backoff.reset();
                            source.poll
                        }
                        Pass::Held => backoff.pause(),
                    }
                }
                Err(error) => {
                    if source.note_away(true) {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        warn!(error = %error, cause, inbox = %source.name, "the inbox of {} cannot be drained, trying again", source.name);
                    }
                    backoff.pause()
                }
            };
            tokio::select! { () = stop.cancelled() => {} () = source.woken() => {} () = tokio::time::sleep(pause) => {} }
        }
    }

    async fn pass(&self) -> Result<Pass, Error> {
        let claimed = self.source().inbox.claim(BATCH).await?;
        if claimed.calls.is_empty() {
            claimed.settle(&[]).await?;
            return Ok(Pass::Idle);
        }
        let taken = self.gateway.take(&claimed.calls).await?;
        crash_points::reach(crash_points::AFTER_TAKING);
        let now = clock::now();
        let (mut done, mut held) = (Vec::with_capacity(taken.len()), None);
        for (call, taken) in claimed.calls.iter().zip(taken) {
            match taken {
                Taken::Settled => {
                    histogram!("taskgate_inbox_seconds").record(now.since(call.enqueued_at).as_secs_f64());
                    done.push(call.no);
                }
                Taken::Later(error) => held = Some(error),
            }
        }
        counter!("taskgate_inbox_calls_total").increment(done.len() as u64);
        claimed.settle(&done).await?;
        match held {
            Some(error) => {
                debug!(error = %error, inbox = %self.source().name, "calls stay in their inbox: {error}");
                Ok(Pass::Held)
            }
            None => Ok(Pass::More),
        }
    }

    /// Wakes the drain at every commit of a call. Never returns.
    async fn hear(&self) -> Infallible {
        let source = self.source();
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        loop {
            let heard = source.inbox.listen(|| source.wake()).await;
            match heard {
                Ok(never) => match never {},
                Err(error) => {
                    debug!(error = %error, inbox = %source.name, "notifications of an inbox were interrupted, subscribing again")
                }
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    fn source(&self) -> &Source {
        &self.gateway.inboxes.sources()[self.place]
    }
}
