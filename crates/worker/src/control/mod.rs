//! Remote control: receives commands from clients and other workers, runs them, and answers as Celery's workers do.
//!
//! A command is a typed call on the dispatcher; its arguments are bound like a task's, so a wrong call is answered with Python's
//! error. An unknown command is a `KeyError`; no message can crash the worker.

mod change;
mod inspect;
mod mingle;
mod revoke;
mod shown;
mod usage;

use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::arguments::bind;
use super::dispatcher::Dispatcher;
use super::service::Node;
use celery::control::{Reply, ReplyTo, Request};
use celery::task::Json;
use celery::{control, json};
use runtime::clock;
use runtime::lifecycle::Backoff;

/// A command's answer: its reply, or the `repr` of the exception that Celery would have raised.
type Answer = Result<Value, String>;
type Command = fn(&mut Dispatcher, &RawValue) -> Answer;

/// The longest pause between attempts to subscribe.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Node {
    /// Handles commands for as long as it is polled. The command `shutdown` cancels `warm`.
    pub async fn listen(self, warm: CancellationToken) {
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        loop {
            match self.shared.transport.requests(&self.shared.settings.hostname).await {
                Ok(mut requests) => {
                    if !backoff.is_fresh() {
                        info!("remote control works again");
                    }
                    backoff.reset();
                    while let Some(request) = requests.next().await {
                        self.heed(&request, &warm).await;
                    }
                }
                Err(error) if backoff.is_fresh() => warn!(error = %error, "remote control cannot subscribe: {error}"),
                Err(_) => {}
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn heed(&self, payload: &[u8], warm: &CancellationToken) {
        let request = match Request::decode(payload) {
            Ok(request) => request,
            Err(error) => return warn!(error = %error, "a remote-control request {error}: ignored"),
        };
        let clock = self.shared.events.lamport.hear(request.clock);
        if !request.is_for(&self.shared.settings.hostname) {
            return;
        }
        if request.method == "shutdown" {
            info!("asked to stop");
            return warm.cancel();
        }
        let (method, arguments) = (request.method, request.arguments);
        let Some(answer) = self.obey(method, arguments).await else { return };
        if let Some(to) = &request.reply {
            self.reply(to, clock, &answer).await;
        }
    }

    /// Runs a command and returns its answer; `None` when it has none.
    async fn obey(&self, method: String, arguments: Json) -> Option<Json> {
        if method == "hello" && mingle::is_from(&arguments, &self.shared.settings.hostname) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        self.ask(move |dispatcher| {
            let answered = match command(&method) {
                Some(command) => command(dispatcher, &arguments),
                None => Err(format!("KeyError('{method}')")),
            };
            drop(answer.send(answered));
        })
        .await?;
        Some(match answered.await.ok()? {
            Ok(value) => serde_json::value::to_raw_value(&value).unwrap_or_else(|_| json::null()),
            Err(problem) => control::error(&problem),
        })
    }

    async fn reply(&self, to: &ReplyTo, clock: i64, answer: &Json) {
        let reply = Reply {
            ticket: Some(to.ticket.clone()),
            clock,
            node: self.shared.settings.hostname.clone(),
            value: answer.clone(),
        };
        let message = reply.encode(to, &clock::random_id().to_string());
        if let Err(error) = self.shared.transport.reply(to, &message).await {
            warn!(error = %error, "a remote-control reply was not sent: {error}");
        }
    }
}

fn command(method: &str) -> Option<Command> {
    Some(match method {
        "ping" => |_, _| Ok(serde_json::json!({"ok": "pong"})),
        "active" => inspect::active,
        "reserved" => inspect::reserved,
        "scheduled" => inspect::scheduled,
        "query_task" => inspect::query_task,
        "revoked" => inspect::revoked,
        "registered" => inspect::registered,
        "active_queues" => inspect::active_queues,
        "stats" => inspect::stats,
        "conf" => inspect::conf,
        "report" => inspect::report,
        "clock" => inspect::clock,
        "hello" => mingle::hello,
        "revoke" => revoke::revoke,
        "terminate" => revoke::terminate,
        "revoke_by_stamped_headers" => revoke::revoke_by_stamped_headers,
        "rate_limit" => change::rate_limit,
        "time_limit" => change::time_limit,
        "add_consumer" => change::add_consumer,
        "cancel_consumer" => change::cancel_consumer,
        "pool_grow" => change::pool_grow,
        "pool_shrink" => change::pool_shrink,
        "pool_restart" => |_, _| Err("ValueError('Pool restarts not enabled')".to_owned()),
        "autoscale" => change::autoscale,
        "enable_events" => change::enable_events,
        "disable_events" => change::disable_events,
        "heartbeat" => change::heartbeat,
        _ => return None,
    })
}

/// Reads a command's arguments; a call that does not fit is a `TypeError`.
fn read<T: serde::de::DeserializeOwned>(method: &str, arguments: &RawValue) -> Result<T, String> {
    bind(method, &json::written("[]".into()), arguments).map_err(|failure| failure.exception.repr())
}
