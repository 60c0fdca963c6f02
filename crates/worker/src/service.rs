//! Runs the parts of one worker and ends them in order: intake, dispatcher, results being stored, then the senders.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::acks::Acks;
use super::builder::Stop;
use super::children::Children;
use super::consumer::{Intake, Places};
use super::dispatcher::{Dispatcher, Input, Parts};
use super::events::{Events, loadavg, worker_state};
use super::execute::Kill;
use super::host::LocalHost;
use super::logs::LogSink;
use super::memory;
use super::records::RecordsRef;
use super::registry::Registry;
use super::results::Results;
use super::settings::Settings;
use super::shared::{Shared, SharedRef};
use super::transport::TransportRef;
use celery::event::{WorkerNews, WorkerState};

/// Most inputs (ends of tasks, batches of messages) that the dispatcher may be behind. Senders wait beyond it.
const INPUTS: usize = 1_024;
/// How long a cold stop waits until the ends of tasks are stored.
const LAST_WORDS: Duration = Duration::from_millis(1_500);
/// How long it then waits for the last events and acknowledgements, because the broker may be down.
const FAREWELL: Duration = Duration::from_secs(1);
/// The longest time between two passes that renew our own reservations and search for those of dead workers.
const LONGEST_RESTORE: Duration = Duration::from_secs(100);

pub(crate) struct Service {
    transport: TransportRef,
    records: RecordsRef,
    registry: Registry,
    settings: Settings,
}

/// The handles of a running worker, for its loops.
#[derive(Clone)]
pub(crate) struct Node {
    pub shared: SharedRef,
    pub sink: mpsc::Sender<Input>,
}

impl Service {
    pub fn new(transport: TransportRef, records: RecordsRef, registry: Registry, settings: Settings) -> Self {
        Self { transport, records, registry, settings }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a worker is a library's guest: it ends what it started before it returns"
    )]
    pub async fn run(self, stop: Stop) {
        let Self { transport, records, registry, settings } = self;
        let slots = settings.autoscale.map_or(settings.concurrency, |autoscale| autoscale.min);
        let (events, event_outbox) = Events::new(Arc::clone(&transport), &settings.hostname, settings.task_events);
        let (logs, log_outbox) = LogSink::new(events.clone(), settings.log_bytes);
        let hard_stop = CancellationToken::new();
        let (acks, acknowledger) = Acks::new(Arc::clone(&transport), hard_stop.clone());
        let (results, writer) = Results::new(Arc::clone(&records), settings.result_expires, hard_stop.clone());
        let (queues, queues_seen) = watch::channel(settings.queues.clone());
        let places = Arc::new(Places::new(settings.prefetch(slots)));
        let (order, warm_timeout) = (settings.queue_order, settings.warm_timeout);
        let children = Children::new(&settings, slots);
        let tasks = registry.into_tasks();
        if tasks.values().any(|task| children.takes(task)) {
            children.fill();
        }
        let shared = Arc::new(Shared {
            children,
            results,
            settings,
            transport: Arc::clone(&transport),
            records,
            events,
            logs,
            acks,
            active: Default::default(),
            processed: Default::default(),
            hard_stop: hard_stop.clone(),
        });
        let (sink, source) = mpsc::channel(INPUTS);
        let senders = TaskTracker::new();
        senders.spawn(event_outbox.run());
        senders.spawn(log_outbox.run());
        senders.spawn(acknowledger.run());
        senders.spawn(writer.run());
        let (tracker, loops) = (TaskTracker::new(), TaskTracker::new());
        let dispatcher = Dispatcher::new(Parts {
            shared: Arc::clone(&shared),
            tasks,
            queues,
            places: Arc::clone(&places),
            host: Arc::new(LocalHost(Arc::clone(&shared))),
            sink: sink.clone(),
            tracker: tracker.clone(),
            slots,
        });
        let dispatching = tokio::spawn(dispatcher.run(source));
        let node = Node { shared: Arc::clone(&shared), sink: sink.clone() };
        let loops_stop = CancellationToken::new();
        node.spawn_loops(&loops, &loops_stop, &stop);
        if shared.settings.mingle {
            stop.warm.run_until_cancelled(node.mingle()).await;
        }
        let intake = Intake::new(&transport, order, queues_seen, places, sink.clone());
        let intake_stop = stop.warm.clone();
        let taking = tokio::spawn(async move { intake.run(intake_stop).await });
        info!(worker.hostname = %shared.settings.hostname, concurrency = slots, "{} is ready", shared.settings.hostname);

        stop.warm.cancelled().await;
        let _ = sink.send(Input::Stop).await;
        shared.events.worker(WorkerNews::Offline, node.state());
        let cold = end_cold(stop, warm_timeout, node.clone());
        let cold = tokio::spawn(cold);
        let _ = taking.await;
        let _ = sink.send(Input::Drained).await;
        let _ = dispatching.await;
        tracker.close();
        tracker.wait().await;
        if tokio::time::timeout(FAREWELL, shared.children.close()).await.is_err() {
            warn!("some child processes did not end in time: they are killed");
        }
        loops_stop.cancel();
        cold.abort();
        loops.close();
        loops.wait().await;
        let hostname = shared.settings.hostname.clone();
        let farewell = async move {
            shared.acks.flush().await;
            drop((shared, node, sink));
            senders.close();
            senders.wait().await;
        };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            warn!("some events or acknowledgements did not reach the broker in time");
        }
        hard_stop.cancel();
        info!(worker.hostname = %hostname, "{hostname} has stopped");
    }
}

/// Ends running tasks at a cold stop, or when a warm stop has lasted too long; then stops waiting for servers.
async fn end_cold(stop: Stop, warm_timeout: Option<Duration>, node: Node) {
    let lasted = async {
        match warm_timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! { () = stop.cold.cancelled() => {} () = lasted => {} }
    let kill = |dispatcher: &mut Dispatcher| drop(dispatcher.kill(Kill::Shutdown, |_| true));
    let _ = node.sink.send(Input::Ask(Box::new(kill))).await;
    tokio::time::sleep(LAST_WORDS).await;
    warn!("stopping hard: results that are not stored by now are lost");
    node.shared.hard_stop.cancel();
}

impl Node {
    fn spawn_loops(&self, loops: &TaskTracker, stop: &CancellationToken, worker: &Stop) {
        loops.spawn(stop.clone().run_until_cancelled_owned(self.clone().heartbeat()));
        loops.spawn(stop.clone().run_until_cancelled_owned(self.clone().keep_reservations()));
        loops.spawn(stop.clone().run_until_cancelled_owned(self.clone().listen(worker.warm.clone())));
        if self.shared.settings.autoscale.is_some() {
            loops.spawn(stop.clone().run_until_cancelled_owned(self.clone().autoscale()));
        }
    }

    /// The worker's state, for events.
    pub fn state(&self) -> WorkerState {
        let frequency = self.shared.settings.heartbeat.unwrap_or(Duration::from_secs(2));
        WorkerState {
            active: i64::try_from(self.shared.active.load(Ordering::Relaxed)).ok(),
            processed: i64::try_from(self.shared.processed.load(Ordering::Relaxed)).ok(),
            loadavg: Some(loadavg()),
            memory_kib: i64::try_from(memory::family_kib(std::process::id())).ok(),
            ..worker_state(frequency)
        }
    }

    async fn heartbeat(self) {
        self.shared.events.worker(WorkerNews::Online, self.state());
        let Some(interval) = self.shared.settings.heartbeat else { return };
        let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(100)));
        loop {
            ticks.tick().await;
            self.shared.events.worker(WorkerNews::Heartbeat, self.state());
        }
    }

    /// Renews our own reservations and restores those of dead workers, well within the visibility timeout.
    async fn keep_reservations(self) {
        let timeout = self.shared.settings.visibility_timeout;
        let period = (timeout / 4).clamp(Duration::from_millis(250), LONGEST_RESTORE);
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(tags) = self.ask(|dispatcher| dispatcher.reserved_tags()).await else { return };
            match self.shared.transport.keep(&tags, timeout).await {
                Ok(0) => {}
                Ok(restored) => warn!(messages = restored, "{restored} messages of dead workers were put back"),
                Err(error) => {
                    warn!(error = %error, "reservations were not renewed, or those of dead workers not restored: {error}");
                }
            }
        }
    }

    /// Calls the dispatcher; `None` when it has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Dispatcher) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let ask = move |dispatcher: &mut Dispatcher| drop(answer.send(question(dispatcher)));
        self.sink.send(Input::Ask(Box::new(ask))).await.ok()?;
        answered.await.ok()
    }
}
