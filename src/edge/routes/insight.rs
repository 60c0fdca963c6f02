//! Why a task is in its phase.

use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::result::unknown;
use crate::edge::answer::{Answer, OfTask, Refused};
use crate::edge::extract::{Caller, IdPath};
use crate::edge::state::Edge;
use crate::guard::namespace;
use crate::usecase::together::GroupExplanation;
use celery::task::TaskId;

/// How many unfinished members of a group get a sentence each.
const EXPLAINED: usize = 20;

/// Why a task is in its present state.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplanationView {
    task_id: String,
    phase: String,
    /// The explanation for people.
    #[schema(example = "It has waited 12 s in crawl behind 3 messages.")]
    sentence: String,
    /// The facts behind the sentence; they depend on the phase.
    #[schema(value_type = Object)]
    evidence: Map<String, Value>,
}

/// Why a task is in its present state
///
/// For a task: a sentence, with the facts behind it: its position in the queue, which workers serve it, what it waits for, who runs
/// it and since when. For a group: the number of members in each phase, and a sentence for each of the first unfinished ones.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/explain", tag = "tasks", operation_id = "explain_task",
    params(("id" = String, Path, description = "A task's or a group's id")),
)]
pub async fn explain_task(
    State(edge): State<Edge>,
    caller: Caller,
    IdPath(id): IdPath,
) -> Result<Answer<ExplanationView>, Refused<(OfTask, ledger::Error)>> {
    caller.must_see(&edge, &id).await?;
    if let Some(group) = edge.gateway.group_of(&id).await?
        && let Some(explained) = edge.gateway.explain_group(&caller.visibility(), &group, EXPLAINED).await?
    {
        return Ok(Answer::of(&of_group(&id, explained)));
    }
    let Some(explained) = edge.gateway.explain(&caller.visibility(), &id).await? else {
        return Err(unknown(id.as_str()).into());
    };
    let view = ExplanationView {
        task_id: explained.task_id.to_string(),
        phase: explained.phase.as_str().to_owned(),
        // A caller's own keys are shown without the namespace's prefix.
        sentence: match caller.namespace().map(namespace::prefix) {
            Some(prefix) => explained.sentence.replace(&prefix, ""),
            None => explained.sentence,
        },
        evidence: in_own_words(explained.evidence, caller.namespace()),
    };
    Ok(Answer::of(&view))
}

fn of_group(id: &TaskId, explained: GroupExplanation) -> ExplanationView {
    let member = |(id, sentence): &(TaskId, String)| json!({"task_id": id.as_str(), "sentence": sentence});
    let mut evidence = serde_json::Map::new();
    evidence.insert("phases".to_owned(), json!(explained.phases));
    evidence.insert("members".to_owned(), explained.members.iter().map(member).collect());
    ExplanationView {
        task_id: id.to_string(),
        phase: explained.phase.as_str().to_owned(),
        sentence: explained.sentence,
        evidence,
    }
}

/// Shows a caller's own keys without the namespace's prefix.
fn in_own_words(mut evidence: Map<String, Value>, namespace: Option<&str>) -> Map<String, Value> {
    if let Some(Value::String(key)) = evidence.get_mut("key")
        && let Some(word) = namespace::word(namespace, key)
    {
        *key = word.to_owned();
    }
    evidence
}
