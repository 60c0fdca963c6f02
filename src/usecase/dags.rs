//! DAGs: sends the parts that no worker can send, and runs again what failed with all that follows it.
//!
//! A part is sent when all it waits for has succeeded: its places are filled from the results in the ledger, its messages are made by
//! the rules of a submission, and the ledger removes its row and puts them into the outbox in one transaction. So any number of replicas
//! may try, and a crash at any point leaves it either unsent or in the outbox.
//!
//! A place that its result does not have ends the task as failed, and so what follows it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::Gateway;
use super::admission::foreign_name;
use super::limits::at_once;
use super::offload::read_result;
use super::retry::RetryError;
use super::revoke::{RevokeError, RevokeRequest, Revoked};
use super::submit::{Idempotency, SubmitError, SubmitRequest, Submitted, trace_headers};
use super::submitted::summary;
use super::way::due_at;
use crate::guard::tokens::Visibility;
use celery::plan::{self, Read, StoredPart};
use celery::task::dag::{results, split, within};
use celery::task::reader::Reader;
use celery::task::{Dag, GroupId, Json, Phase, Signature, Submission, TaskId, json};
use ledger::{Error, Failure, Message, News, ReadyPart, Release, Source, Task, UniqueKey};
use runtime::clock::{self, Time};

/// Parts sent in one pass.
const PAGE: i64 = 100;
/// A success may be known before its result is.
const RESULT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a result in a store is waited for before the part is left to a later pass.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// What a pass over the parts found.
#[derive(Debug)]
pub(crate) struct Stepped {
    /// The number after which there may be more whose turn has come.
    pub rest: Option<i64>,
    /// Some wait for their turn.
    pub waits: bool,
    /// The numbers of those that the ledger could not send, and why.
    pub broken: Vec<(i64, Error)>,
}

/// Why the tasks of a part have failed.
struct Unfit {
    kind: &'static str,
    detail: String,
}

impl Gateway {
    /// Sends a page of the parts whose turn has come, those after this number. An error of the ledger about one part does not stop
    /// the others.
    pub(crate) async fn step_dags(&self, after: i64) -> Result<Stepped, Error> {
        let ready = self.ledger.ready_parts(after, PAGE).await?;
        let (mut has_sent, mut broken, mut failure) = (false, Vec::new(), None);
        let mut away = HashSet::new();
        for part in &ready {
            match self.send_part(part, &mut away).await {
                Ok(is_sent) => has_sent |= is_sent,
                Err(error) if !error.is_transient() => broken.push((part.no, error)),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if has_sent {
            self.relay.nudge();
        }
        failure.map_or(Ok(()), Err)?;
        let is_full = i64::try_from(ready.len()).is_ok_and(|count| count == PAGE);
        let rest = ready.last().filter(|_| is_full).map(|last| last.no);
        Ok(Stepped { rest, waits: rest.is_some() || self.ledger.has_parts().await?, broken })
    }

    /// Forgets parts that will never be sent, and documents of DAGs that are pruned.
    pub(crate) async fn tidy_dags(&self) -> Result<(), Error> {
        self.ledger.drop_parts(PAGE).await?;
        self.ledger.forget_dags(clock::now().minus(self.keep), PAGE).await?;
        Ok(())
    }

    /// Whether the part is done with. It is tried again later while a result is on its way, or the store that has it is away.
    async fn send_part(&self, part: &ReadyPart, away: &mut HashSet<String>) -> Result<bool, Error> {
        let now = clock::now();
        let Some(stored) = StoredPart::parse(&part.document) else {
            warn!(part = part.no, "a part of a DAG cannot be read any more; it is dropped");
            return self.ledger.release_part(part.no, &[], now).await.map(|_| true);
        };
        let mut known = self.known_to(&stored).await?;
        let read = || stored.reads.values().flat_map(|read| &read.ids);
        if read().any(|id| is_on_its_way(known.get(id), now)) {
            return Ok(false);
        }
        if !self.restore_all(read(), &mut known, away).await {
            return Ok(false);
        }
        let releases = match self.releases(&stored, &known, now) {
            Ok(releases) => releases,
            Err(Unfit { kind, detail }) => {
                self.fail_part(&stored, kind, &detail, now).await?;
                Vec::new()
            }
        };
        let events = self.ledger.release_part(part.no, &releases, now).await?;
        debug!(part = part.no, tasks = events.len(), "sent a part of a DAG");
        self.hub.publish(&events);
        Ok(true)
    }

    /// Its own tasks, and those whose results it reads.
    async fn known_to(&self, part: &StoredPart) -> Result<HashMap<String, Task>, Error> {
        let names = part.reads.values().flat_map(|read| &read.ids).chain(&part.entries);
        let ids: Vec<TaskId> = names.filter_map(|id| TaskId::parse(id).ok()).collect();
        let tasks = self.ledger.tasks_by_id(&ids).await?;
        Ok(tasks.into_iter().map(|task| (task.id.to_string(), task)).collect())
    }

    /// Reads the results that lie in a store. False when that store is away; it is then not asked again in the same pass. A result that is
    /// gone for good is removed.
    async fn restore_all(
        &self,
        ids: impl Iterator<Item = &String>,
        known: &mut HashMap<String, Task>,
        away: &mut HashSet<String>,
    ) -> bool {
        for id in ids {
            let Some(task) = known.get_mut(id) else { continue };
            let Some((store, reference)) = self.kept_result(task) else { continue };
            if away.contains(&reference.store) {
                return false;
            }
            match tokio::time::timeout(STORE_PATIENCE, read_result(store, &reference)).await {
                Ok(Ok(result)) => task.result = result,
                Ok(Err(error)) if error.is_missing() => task.result = None,
                Ok(Err(error)) => {
                    info!(task.id = %task.id, %error, "a part of a DAG waits for the result of {id}: {}", error.told());
                    away.insert(reference.store);
                    return false;
                }
                Err(_) => {
                    info!(task.id = %task.id, "a part of a DAG waits for the result of {id}: the store is too slow");
                    away.insert(reference.store);
                    return false;
                }
            }
        }
        true
    }

    fn releases(&self, part: &StoredPart, known: &HashMap<String, Task>, now: Time) -> Result<Vec<Release>, Unfit> {
        let failed = |kind, detail| Unfit { kind, detail };
        let signature =
            part.filled(&|name| value_of(part, known, name)).map_err(|detail| failed("TemplateError", detail))?;
        if !part.reads.is_empty() {
            self.check_rules(&Submission::of(signature.clone()))
                .map_err(|error| failed("ValidationError", told(error)))?;
        }
        let entry = part.entries.iter().find_map(|id| known.get(id));
        let headers = trace_headers(entry.and_then(|task| task.options.traceparent.as_deref()));
        let plan = plan::release(part, signature, &self.context(&headers, now), &|task| self.defaults(task))
            .map_err(|wrong| failed("ValidationError", told(SubmitError::Invalid(wrong))))?;
        let release = |planned: plan::PlannedNode| {
            let headers = planned.headers?;
            Some(Release {
                due_at: due_at(&planned.node.task, now),
                expires_at: planned.expires_at.map(|at| Time(at.as_microsecond())),
                message: Message { headers: Some(headers), body: planned.body },
                id: planned.node.id,
            })
        };
        Ok(plan.nodes.into_iter().filter_map(release).collect())
    }

    async fn fail_part(&self, part: &StoredPart, kind: &str, detail: &str, now: Time) -> Result<(), Error> {
        let ids = part.entries.iter().filter_map(|id| TaskId::parse(id).ok());
        let news: Vec<News> = ids
            .map(|id| News {
                failure: Some(Failure { kind: kind.to_owned(), message: detail.to_owned() }),
                reason: Some("its arguments could not be made".to_owned()),
                ..News::new(id, Source::Ledger, Phase::Failed, now)
            })
            .collect();
        self.hub.publish(&self.ledger.learn(&news, true).await?);
        Ok(())
    }

    /// Runs again what ended badly in a DAG, and all that follows it, as a new DAG that reads the results of what succeeded.
    ///
    /// # Cancel safety
    /// A dropped call may have submitted it.
    pub async fn resume_dag(
        &self,
        visibility: &Visibility,
        id: &TaskId,
        token: Option<String>,
        repeatable: Option<Idempotency>,
    ) -> Result<Submitted, RetryError> {
        let refused = |why| RetryError::NotReplayable { id: id.clone(), why };
        let root = self.root_of(id).await?.ok_or_else(|| RetryError::Unknown(id.clone()))?;
        let document = self.ledger.dag(&root).await?;
        let dag = document.as_deref().and_then(Reader::stored_dag).ok_or_else(|| refused("it belongs to no DAG"))?;
        if foreign_name(&Signature::Dag(dag.clone()), visibility).is_some() {
            return Err(refused("its DAG has tasks that the token may not submit"));
        }
        self.check_backlog()?;
        let tasks = self.tasks_of_dag(&dag).await?;
        let again = to_run_again(&dag, &tasks);
        if again.is_empty() {
            return Err(refused("nothing in its DAG has ended badly"));
        }
        let now = clock::now();
        let (rest, old_ids) = rest_of(dag, &again);
        let mut request = SubmitRequest::new(Submission::of(Signature::Dag(rest)));
        request.token = token;
        let signature = request.submission.signature.clone();
        let plan = self.plan(signature, None, now)?;
        let outcome = plan.outcome.clone();
        let mut rows = self.rows(plan, request, now);
        for task in &mut rows.tasks {
            if let Some(old) = old_ids.get(&task.id).and_then(|id| tasks.get(id)) {
                task.labels.clone_from(&old.labels);
                task.options.clone_from(&old.options);
                if task.options.limits.is_some() && task.phase == Phase::Accepted {
                    (task.phase, task.due_at) = (Phase::Held, Some(at_once(now)));
                }
                task.retry_of = Some(old.id.clone());
            }
        }
        let submitted = summary(outcome, &rows.tasks);
        rows.idempotency = repeatable.map(|given| self.idempotency_key(given, &submitted, now));
        rows.unique = Some(UniqueKey {
            key: format!("resume:{root}"),
            until: Some(now.plus(self.keep)),
            task_id: rows.tasks[0].root_id.clone(),
            replaces: None,
        });
        match self.commit.commit(rows).await? {
            Ok(_) => {
                self.dags.nudge();
                Ok(submitted)
            }
            Err(ledger::Conflict::Joined(_)) => Err(refused("its DAG was resumed already: resume that one")),
            Err(conflict) => Err(RetryError::Submit(super::retry::refused(conflict))),
        }
    }

    /// The root of the canvas that a task or a group belongs to.
    async fn root_of(&self, id: &TaskId) -> Result<Option<TaskId>, Error> {
        if let Some(task) = self.ledger.task(id).await? {
            return Ok(Some(task.root_id.unwrap_or(task.id)));
        }
        let Ok(group) = GroupId::parse(id.as_str()) else { return Ok(None) };
        Ok(self.ledger.group(&group).await?.map(|group| group.root_id))
    }

    async fn tasks_of_dag(&self, dag: &Dag) -> Result<HashMap<TaskId, Task>, Error> {
        let mut ids = Vec::new();
        dag.nodes.iter().for_each(|node| node.signature.visit(&mut |task| ids.extend(task.task_id.clone())));
        let tasks = self.ledger.standing(&ids).await?;
        Ok(tasks.into_iter().map(|task| (task.id.clone(), task)).collect())
    }

    /// Tasks of earlier DAGs that the rest of one follows; the graph of the rest shows them too.
    pub(super) async fn kept_tasks(&self, root: &TaskId) -> Result<Vec<Task>, Error> {
        let document = self.ledger.dag(root).await?;
        let Some(dag) = document.as_deref().and_then(Reader::stored_dag) else { return Ok(Vec::new()) };
        let mut ids = Vec::new();
        for node in dag.nodes.iter().filter(|node| node.kept) {
            node.signature.visit(&mut |task| ids.extend(task.task_id.clone()));
        }
        self.ledger.standing(&ids).await
    }

    /// Revokes one task; of the root of a DAG also all that has not run, in so far as the caller sees it.
    ///
    /// # Errors
    /// As [`Gateway::revoke`].
    pub async fn revoke_with_dag(
        &self,
        id: &TaskId,
        visibility: &Visibility,
        request: &RevokeRequest,
    ) -> Result<Revoked, RevokeError> {
        if self.ledger.dag(id).await?.is_none() {
            return self.revoke(id, request).await;
        }
        let (mut tasks, _) = self.ledger.graph(id).await?.ok_or_else(|| RevokeError::Unknown(id.clone()))?;
        let has_not_run = |task: &Task| !task.phase.is_final() && (task.phase != Phase::Running || request.terminate);
        tasks.retain(|task| task.id != *id && has_not_run(task));
        let others = self.revoke_each(tasks, visibility, request).await?;
        let mut revoked = self.revoke(id, request).await?;
        if !others.is_empty() {
            revoked.detail.push_str(&format!("; {} more tasks of its DAG were revoked", others.len()));
        }
        Ok(revoked)
    }
}

/// It has succeeded, and its result may still come.
fn is_on_its_way(task: Option<&Task>, now: Time) -> bool {
    task.is_some_and(|task| task.result.is_none() && task.finished_at.is_none_or(|at| now.since(at) < RESULT_PATIENCE))
}

/// The JSON text of a place.
fn value_of(part: &StoredPart, known: &HashMap<String, Task>, name: &str) -> Result<String, String> {
    let (node, path) = split(name);
    let read = part.reads.get(node).ok_or_else(|| format!("{node} is no predecessor"))?;
    let value = result_of(read, known).ok_or_else(|| format!("the result of {node} is not kept any more"))?;
    match path {
        None => Ok(value.get().to_owned()),
        Some(path) => within(&value, path)
            .map(|value| value.get().to_owned())
            .ok_or_else(|| format!("the result of {node} has no {path}")),
    }
}

fn result_of(read: &Read, known: &HashMap<String, Task>) -> Option<Json> {
    let results: Vec<&Json> = read.ids.iter().map(|id| known.get(id)?.result.as_ref()).collect::<Option<_>>()?;
    if !read.is_list {
        return results.first().map(|result| (*result).clone());
    }
    let texts: Vec<&str> = results.iter().map(|result| result.get()).collect();
    Some(json::written(format!("[{}]", texts.join(", "))))
}

/// Nodes that ended badly, and all that follows them.
fn to_run_again(dag: &Dag, tasks: &HashMap<TaskId, Task>) -> BTreeSet<usize> {
    let is_bad = |node: usize| {
        let mut bad = false;
        let signature = &dag.nodes[node].signature;
        let ends = results(signature).ids;
        let has_succeeded = |id: &TaskId| tasks.get(id).is_some_and(|task| task.phase == Phase::Succeeded);
        if ends.iter().all(has_succeeded) {
            return false;
        }
        signature.visit(&mut |task| {
            let stands = task.task_id.as_ref().and_then(|id| tasks.get(id));
            bad |= stands
                .is_some_and(|task| task.phase.is_final() && task.phase != Phase::Succeeded && !task.options.branch);
        });
        bad
    };
    let mut again: BTreeSet<usize> = (0..dag.nodes.len()).filter(|node| is_bad(*node)).collect();
    for node in dag.order() {
        if dag.nodes[node].after.iter().any(|before| again.contains(before)) {
            again.insert(node);
        }
    }
    again
}

/// The DAG with new ids for what runs again, and the old id of each; the rest is kept.
fn rest_of(mut dag: Dag, again: &BTreeSet<usize>) -> (Dag, HashMap<TaskId, TaskId>) {
    let mut old_ids = HashMap::new();
    for (index, node) in dag.nodes.iter_mut().enumerate() {
        node.kept = !again.contains(&index);
        if node.kept {
            continue;
        }
        node.signature.visit_mut(&mut |task| {
            let id = TaskId::from(clock::new_id());
            if let Some(old) = task.task_id.replace(id.clone()) {
                old_ids.insert(id, old);
            }
        });
    }
    (dag, old_ids)
}

fn told(error: SubmitError) -> String {
    match error {
        SubmitError::Invalid(wrong) => {
            let one = |wrong: celery::task::Invalid| format!("{} {}", wrong.pointer, wrong.detail).trim().to_owned();
            wrong.into_iter().map(one).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}
