//! Moves steps from their queue into the ledger. A message that was taken before changes nothing, so a crash between the commit and the
//! acknowledgement is harmless.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use tracing::{info, warn};

use super::Waits;
use broker::Served;
use celery::task::json as vocabulary;
use celery::task::pause::{OnTimeout, Pause};
use celery::task::{Phase, TaskId};
use celery::{Decoded, Envelope, Message};
use ledger::{Adoption, Error, NewWait, News, Source, Task, WaitState};
use runtime::clock::{self, Time};

/// The gateway's name in place of a worker's.
const WORKER: &str = "taskgate";
/// The status of a step that waits.
const WAITING: &str = "WAITING";

/// A step with the message that brought it.
struct Arrived {
    pause: Pause,
    decoded: Decoded,
}

impl Arrived {
    fn id(&self) -> &TaskId {
        &self.decoded.message.id
    }
}

impl Waits {
    /// Records all steps, then removes them from the queue.
    pub(super) async fn take(&self, batch: &mut Vec<Served>) -> Result<(), Error> {
        let now = clock::now();
        let arrived: Vec<Arrived> = batch.iter().filter_map(|served| read(&served.payload)).collect();
        let ids: Vec<TaskId> = arrived.iter().map(|call| call.id().clone()).collect();
        let known = by_id(self.parts.ledger.standing(&ids).await?);
        let waits: Vec<NewWait> = arrived.iter().map(|call| self.wait(call, known.get(call.id()), now)).collect();
        self.parts.ledger.begin_waits(&waits).await?;
        // A revoke that found no wait is in the ledger by now; a later revoke ends the wait itself.
        let known = by_id(self.parts.ledger.standing(&ids).await?);
        for call in &arrived {
            self.note(call, known.get(call.id()), now).await?;
        }
        let news: Vec<News> =
            arrived.iter().zip(&waits).map(|(call, wait)| news(&call.decoded.message, wait)).collect();
        self.parts.hub.publish(&self.parts.ledger.learn(&news, true).await?);
        for served in batch.drain(..) {
            if let Err(error) = served.done().await {
                info!(error = %error, "the message of a step that waits stays in its queue and is read again");
            }
        }
        Ok(())
    }

    fn wait(&self, call: &Arrived, task: Option<&Task>, now: Time) -> NewWait {
        let message = &call.decoded.message;
        let limit = self.parts.keep;
        let span = call.pause.seconds().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let (schema, on_timeout) = match &call.pause {
            Pause::Wait(wait) => (wait.schema.clone(), wait.on_timeout),
            Pause::Sleep(_) => (None, OnTimeout::Skip),
        };
        NewWait {
            task_id: message.id.clone(),
            is_sleep: matches!(call.pause, Pause::Sleep(_)),
            name: call.pause.name().to_owned(),
            since: now,
            expires_at: now.plus(span.unwrap_or(limit).min(limit)),
            schema,
            on_timeout,
            input: vocabulary::elements(&message.args).and_then(|args| args.first().map(|first| (*first).to_owned())),
            token: task.and_then(|task| task.options.token.clone()),
            headers: call.decoded.headers.clone(),
            body: call.decoded.body.clone(),
        }
    }

    /// Records a step with its message, from which a lost next step can be rebuilt. A step that was revoked before its turn ends at once.
    async fn note(&self, call: &Arrived, task: Option<&Task>, now: Time) -> Result<(), Error> {
        let id = call.id();
        let message = ledger::Message { headers: Some(call.decoded.headers.clone()), body: call.decoded.body.clone() };
        self.parts.ledger.keep_message(id, &message).await?;
        let is_revoked = |task: &Task| task.phase == Phase::Revoked || task.revoke_requested_at.is_some();
        if task.is_some_and(is_revoked) {
            self.parts.ledger.end_wait(id, WaitState::Revoked, None, now).await?;
            self.parts.wake.ended.nudge();
        }
        Ok(())
    }
}

fn by_id(tasks: Vec<Task>) -> HashMap<TaskId, Task> {
    tasks.into_iter().map(|task| (task.id.clone(), task)).collect()
}

fn read(payload: &[u8]) -> Option<Arrived> {
    let found = Envelope::decode(payload).and_then(Decoded::from_envelope);
    let decoded = match found {
        Ok(decoded) => decoded,
        Err(error) => {
            warn!("a message in the queue of steps that wait {error}; it is dropped");
            return None;
        }
    };
    let pause = Pause::of(decoded.message.task.as_str(), &decoded.message.kwargs);
    if pause.is_none() {
        let id = &decoded.message.id;
        warn!(task.id = %id, "{id} ({}) is not a step that waits, and is dropped", decoded.message.task);
    }
    Some(Arrived { pause: pause?, decoded })
}

fn news(message: &Message, wait: &NewWait) -> News {
    let meta = json!({"wait": wait.name, "expires_at": wait.expires_at.rfc3339()}).to_string();
    News {
        status: Some(WAITING.to_owned()),
        worker: Some(WORKER.to_owned()),
        meta: vocabulary::verbatim(meta).ok(),
        adoption: Some(Adoption {
            name: Some(message.task.as_str().to_owned()),
            queue: Some(celery::task::pause::QUEUE.to_owned()),
            root_id: message.root_id.clone(),
            parent_id: message.parent_id.clone(),
            group_id: message.group.clone(),
            ..Adoption::default()
        }),
        ..News::new(message.id.clone(), Source::Ledger, Phase::Running, wait.since)
    }
}
