//! Carries out one run from start to end, concurrently with others, here or in a child process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Input, Key};
use crate::children::Lease;
use crate::execute::Execution;
use crate::finish::Finish;
use crate::request::Outcome;
use crate::shared::SharedRef;
use celery::event::TaskNews;

pub(super) struct Running {
    pub shared: SharedRef,
    pub sink: mpsc::Sender<Input>,
    pub key: Key,
    /// Whether its message is acknowledged after the run.
    pub late: bool,
    /// The id of the process that runs it: this one, until a child takes it.
    pub pid: Arc<AtomicU32>,
}

impl Running {
    pub async fn carry_out(self, execution: Execution) {
        let context = execution.context.clone();
        let request = Arc::clone(&context.run().request);
        if !self.late {
            self.shared.acks.ack(request.origin.tag.as_deref()).await;
        }
        let leased = self.lease(&execution).await;
        self.shared.events.task(&request.message.id, || TaskNews::Started);
        let mut finish = Finish::new(Arc::clone(&self.shared), request);
        finish.started(self.pid.load(Ordering::Relaxed)).await;
        let clock = Instant::now();
        let outcome = self.run(leased, execution).await;
        let runtime = clock.elapsed();
        finish.handler_ended();
        let _ = self.sink.send(Input::Ran(self.key)).await;
        let done = finish.ended(&context, outcome, runtime, self.late).await;
        let _ = self.sink.send(Input::Settled { key: self.key, done }).await;
    }

    /// A child process, if the task runs in one.
    async fn lease(&self, execution: &Execution) -> Option<Lease> {
        if !self.shared.children.takes(&execution.context.run().request.task) {
            return None;
        }
        let leased = self.shared.children.lease().await;
        if let Ok(leased) = &leased {
            self.pid.store(leased.pid(), Ordering::Relaxed);
        }
        Some(leased)
    }

    async fn run(&self, leased: Option<Lease>, mut execution: Execution) -> Outcome {
        match leased {
            None => execution.run_here().await,
            Some(Ok(leased)) => self.shared.children.carry_out(leased, &mut execution).await,
            Some(Err(outcome)) => outcome,
        }
    }
}
