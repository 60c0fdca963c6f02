//! Rebuilds messages of chord bodies: Redis lost the message, or the worker that counted the last part died before it sent it.
//!
//! A body gets the results of its header in the header's structure: a list, or nested lists where a member ends in a group. The structure
//! is known to the sender of the header; the results are in the ledger or, for members that store none, in the parts that the workers
//! counted, while Redis has them. No worker has a member any more at this point, so no worker is about to send the body, unless one
//! holds the claim; a late worker finds the chord ended.

use std::collections::HashMap;

use super::steps::{DEPTH, Next, planned};
use super::{Sweeper, Trouble};
use celery::continuation;
use celery::result::{ResultTuple, decode_saved_group};
use celery::task::{GroupId, Json, TaskId};
use celery::{Message, chord};
use ledger::{EdgeKind, Neighbour, Task};

/// How many enclosing headers are searched for the sender of a header.
const ANNOUNCERS: usize = 100;

const SHAPELESS: &str = "the shape of its header is not known any more";

/// The structure of a header's results.
enum Shape {
    Flat,
    Nested(ResultTuple),
}

impl Sweeper {
    /// The step after a header; `parent` is a member's message and `before` are all members.
    pub(super) async fn body(&self, task: &Task, before: &[Neighbour], parent: &Message) -> Result<Next, Trouble> {
        let (Some(body), Some(id)) = (&parent.embed.chord, &parent.group) else { return Ok(Next::Never(SHAPELESS)) };
        let plan = |value: &Json| self.plan(|sender| continuation::chord_body(parent, body, value, sender));
        let mut next = planned(task, None, plan);
        if !matches!(next, Next::Plan(_)) {
            let Some(shape) = self.shape(id, before).await? else { return Ok(Next::Never(SHAPELESS)) };
            let results = self.results(id, before).await?;
            next = planned(task, arranged(&shape, before, &results).as_ref(), plan);
        }
        let is_ours = !matches!(next, Next::Plan(_)) || self.backend.close_chord(id.as_str()).await?;
        Ok(if is_ours { next } else { Next::NotYet })
    }

    /// The known results of the members.
    async fn results(&self, id: &GroupId, before: &[Neighbour]) -> Result<HashMap<String, Json>, Trouble> {
        let ids: Vec<TaskId> = before.iter().map(|step| step.task.id.clone()).collect();
        let known = self.ledger.tasks_by_id(&ids).await?.into_iter();
        let mut results: HashMap<String, Json> =
            known.filter_map(|task| Some((task.id.to_string(), task.result?))).collect();
        if results.len() < ids.len() {
            for part in self.backend.counted_parts(id.as_str()).await?.into_iter().filter(|part| !part.has_failed()) {
                results.entry(part.task_id).or_insert(part.value);
            }
        }
        Ok(results)
    }

    /// The structure as the gateway sent it, or as a worker sent it. `None` when neither is known.
    async fn shape(&self, id: &GroupId, before: &[Neighbour]) -> Result<Option<Shape>, Trouble> {
        let group = self.ledger.group(id).await?;
        if let Some(structure) = group.as_ref().and_then(|group| group.structure.as_ref()) {
            return Ok(nested(structure.get()));
        }
        if group.is_some_and(|group| group.chord_size.is_some()) {
            return Ok(Some(Shape::Flat));
        }
        let mut member = before.first().map(|step| step.task.clone());
        for _ in 0..ANNOUNCERS {
            let Some(no) = member.take().map(|member| member.no) else { break };
            let before = self.ledger.predecessors(&[no]).await?;
            let sends = |neighbour: &Neighbour| !matches!(neighbour.kind, EdgeKind::LinkError | EdgeKind::After);
            let sender = before.into_iter().find(sends);
            let Some(sender) = sender.map(|sender| sender.task) else { break };
            if let Some(message) = self.message_of(&sender, DEPTH).await?
                && let Some(shape) = self.announced(id, &message)
            {
                return Ok(Some(shape));
            }
            member = Some(sender);
        }
        Ok(None)
    }

    /// The structure that a worker saved when it sent the steps after this message's task.
    fn announced(&self, id: &GroupId, message: &Message) -> Option<Shape> {
        let nothing = chord::body_argument([]);
        let after = self.plan(|sender| continuation::after_success(message, &nothing, sender));
        let body = message.embed.chord.as_deref();
        let body = body.and_then(|body| self.plan(|sender| continuation::chord_body(message, body, &nothing, sender)));
        let plan = [after, body]
            .into_iter()
            .flatten()
            .find(|plan| plan.chord_sizes.iter().any(|(known, _)| known == id.as_str()))?;
        match plan.saved_groups.iter().find(|(known, _)| known == id.as_str()) {
            Some((_, structure)) => nested(structure),
            None => Some(Shape::Flat),
        }
    }
}

fn nested(structure: &str) -> Option<Shape> {
    decode_saved_group(structure.as_bytes()).ok().map(Shape::Nested)
}

/// The body's argument. `None` when a result is missing.
fn arranged(shape: &Shape, before: &[Neighbour], results: &HashMap<String, Json>) -> Option<Json> {
    match shape {
        Shape::Nested(structure) => chord::nested(structure, &|id| results.get(id).cloned()),
        Shape::Flat => {
            let mut members: Vec<&Task> = before.iter().map(|step| &step.task).collect();
            members.sort_by_key(|member| member.group_index);
            let values: Option<Vec<&Json>> = members.iter().map(|member| results.get(member.id.as_str())).collect();
            Some(chord::body_argument(values?.into_iter().map(AsRef::as_ref)))
        }
    }
}
