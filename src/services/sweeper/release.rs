//! Chords whose header is complete and whose body nobody sent: the worker that counted the last part died before it did.
//!
//! The body is sent from here, once, where that can be claimed safely: every part was counted by workers that claim the body
//! (`.d` holds as many as `.j`), and nobody holds the claim (`.c`). A finisher that still lives finds the claim taken and gives up,
//! as it would for another worker. What cannot be claimed stays, and is an incident (`canvas_stuck`).

use std::collections::HashMap;
use std::time::Duration;

use metrics::counter;
use tracing::{info, warn};

use super::fleet::Fleet;
use super::{PAGE, Sweeper, Trouble};
use crate::backend::Claim;
use crate::broker::{Push, Target};
use crate::celery::continuation::{self, Continuation, Sender};
use crate::celery::result::{ResultTuple, decode_saved_group};
use crate::celery::{DecodeError, Decoded, Envelope, Message, Properties, Signature, chord, envelope};
use crate::clock;
use crate::store::{EdgeKind, Neighbour, News, Source, Task};
use crate::task::{Json, Phase, Priority, QueueName, TaskId};

/// After the last part a worker needs milliseconds to send the body.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body with the header's last member.
struct Candidate {
    body: Task,
    member: Task,
}

impl Sweeper {
    /// One pass over what waits.
    pub(super) async fn release_chords(&self) -> Result<(), Trouble> {
        let mut after = 0;
        loop {
            let waiting = self.ledger.unfinished(&[Phase::Waiting], after, PAGE).await?;
            let Some(last) = waiting.last() else { return Ok(()) };
            after = last.no;
            for candidate in self.candidates(waiting).await? {
                if self.is_nowhere(&candidate.body).await? {
                    self.release(&candidate).await?;
                }
            }
        }
    }

    async fn candidates(&self, waiting: Vec<Task>) -> Result<Vec<Candidate>, Trouble> {
        let numbers: Vec<i64> = waiting.iter().map(|task| task.no).collect();
        let mut before: HashMap<i64, Vec<Neighbour>> = HashMap::new();
        for step in self.ledger.predecessors(&numbers).await? {
            before.entry(step.of).or_default().push(step);
        }
        let now = clock::now();
        let candidate = |body: Task| {
            let steps = before.remove(&body.no)?;
            let over = |step: &Neighbour| {
                step.kind == EdgeKind::Next
                    && step.task.phase == Phase::Succeeded
                    && step.task.group_id.is_some()
                    && step.task.finished_at.is_some_and(|at| now.since(at) >= PATIENCE)
            };
            let complete = steps.iter().all(over);
            let member = steps.into_iter().next()?.task;
            complete.then_some(Candidate { body, member })
        };
        Ok(waiting.into_iter().filter_map(candidate).collect())
    }

    /// In no list, with no worker, and without a record: read in the order in which a message moves.
    async fn is_nowhere(&self, body: &Task) -> Result<bool, Trouble> {
        let queues: Vec<String> = body.queue.iter().cloned().collect();
        let present = self.broker.present(&queues).await?;
        if present.listed.contains(body.id.as_str()) || present.reserved.contains_key(body.id.as_str()) {
            return Ok(false);
        }
        let fleet = Fleet::ask(&self.ledger, &self.broker, &[body.id.as_str()]).await?;
        if fleet.held.contains_key(body.id.as_str()) || !fleet.all_answered(&self.patience()) {
            return Ok(false);
        }
        let records = self.backend.records(std::slice::from_ref(&body.id)).await?;
        Ok(records.into_iter().flatten().next().is_none())
    }

    async fn release(&self, candidate: &Candidate) -> Result<(), Trouble> {
        let Candidate { body, member } = candidate;
        let Some(group) = &member.group_id else { return Ok(()) };
        let Some((message, signature)) = self.body_of(member).await? else { return Ok(()) };
        let token = clock::random_id().simple().to_string();
        let Some(claim) = self.backend.claim_complete(group.as_str(), &token).await? else { return Ok(()) };
        let Some(results) = self.results(&claim).await? else { return Ok(()) };
        if !self.backend.prolong(&claim).await? {
            return Ok(());
        }
        if self.send_body(&message, &signature, &results).await? {
            self.backend.finish_chord(&claim).await?;
            counter!("taskgate_chords_released_total").increment(1);
            warn!(task.id = %body.id, group.id = %group, "the body {} of a complete chord was sent by nobody, it is sent now", body.id);
            let reason = Some("its header was complete and no worker had sent it".to_owned());
            let news = News { reason, ..News::new(body.id.clone(), Source::Ledger, Phase::Queued, clock::now()) };
            self.hub.publish(&self.ledger.learn(&[news], true).await?);
        }
        Ok(())
    }

    /// The body travels in the messages of its header. `None` when a worker made them: then the ledger never saw it.
    async fn body_of(&self, member: &Task) -> Result<Option<(Message, Signature)>, Trouble> {
        let Some(message) = self.ledger.message(&member.id).await? else { return Ok(None) };
        let Some(headers) = message.headers else { return Ok(None) };
        let envelope = Envelope {
            headers,
            content_type: Some("application/json".to_owned()),
            body: message.body.into_bytes(),
            properties: Properties::transient("", "", ""),
        };
        let Ok(decoded) = Decoded::from_envelope(envelope) else { return Ok(None) };
        let body = decoded.message.embed.chord.clone();
        Ok(body.map(|body| (decoded.message, *body)))
    }

    /// The values of the header, in its shape. `None` when a part is missing or has failed.
    async fn results(&self, claim: &Claim) -> Result<Option<Json>, Trouble> {
        if let Some(saved) = self.backend.saved_group(claim).await? {
            let Ok(structure) = decode_saved_group(&saved) else { return Ok(None) };
            return self.nested_results(&structure).await;
        }
        let parts = self.backend.parts(claim).await?;
        let well = parts.iter().all(|part| !part.has_failed());
        Ok(well.then(|| chord::body_argument(parts.iter().map(|part| &*part.value))))
    }

    async fn nested_results(&self, structure: &ResultTuple) -> Result<Option<Json>, Trouble> {
        let mut values: HashMap<String, Json> = HashMap::new();
        for leaf in chord::leaves(structure) {
            let Ok(id) = TaskId::parse(leaf) else { return Ok(None) };
            let Some(value) = self.ledger.task(&id).await?.and_then(|task| task.result) else { return Ok(None) };
            values.insert(leaf.to_owned(), value);
        }
        Ok(chord::nested(structure, &|id: &str| values.get(id).cloned()))
    }

    /// Whether everything is in Redis now. Each message has its marker, so a repetition sends none twice.
    async fn send_body(&self, member: &Message, body: &Signature, results: &Json) -> Result<bool, Trouble> {
        let plan = match self.continuation(member, body, results) {
            Ok(plan) => plan,
            Err(error) => {
                info!(error = %error, "a chord's body cannot be sent");
                return Ok(false);
            }
        };
        for (group, structure) in &plan.saved_groups {
            self.backend.save_group(group, structure).await?;
        }
        for (group, size) in &plan.chord_sizes {
            self.backend.announce_chord(group, *size).await?;
        }
        let pushes: Vec<Push> = plan.sends.iter().filter_map(push).collect();
        self.broker.publish(&pushes, None).await?;
        Ok(!pushes.is_empty())
    }
}

impl Sweeper {
    fn continuation(&self, member: &Message, body: &Signature, results: &Json) -> Result<Continuation, DecodeError> {
        let mut ids = || TaskId::from(clock::new_id());
        let now = jiff::Timestamp::from_microsecond(clock::now().as_micros()).unwrap_or_default();
        let mut sender = Sender { now, origin: &self.holder, default_queue: "celery", ids: &mut ids };
        continuation::chord_body(member, body, results, &mut sender)
    }
}

/// Every signature of ours names its queue.
fn push(send: &continuation::Send) -> Option<Push> {
    let queue = QueueName::parse(&send.routing_key).ok()?;
    let id = &send.message.id;
    let tag = id.delivery_tag(1);
    let properties = Properties::task(id.as_str(), &send.routing_key, send.priority, &tag);
    let envelope = envelope(&send.message.headers(), &send.message.body(), &properties);
    Some(Push { target: Target::Queue(queue, Priority::clamped(send.priority.into())), envelope, tag })
}
