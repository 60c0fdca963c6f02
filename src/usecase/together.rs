//! Revoke, retry and explain for all tasks of a group or a canvas: a verdict for each, and a sum.
//!
//! A group's id means its members and the steps that lead to them. A task's id means only that task; its canvas is included only if
//! the caller asks for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::Gateway;
use super::read::Graph;
use super::retry::RetryError;
use super::revoke::{CONFIRMATION, RevokeError, RevokeRequest, Revoked};
use crate::guard::tokens::Visibility;
use celery::task::{GroupId, Phase, TaskId};
use ledger::{EdgeKind, Error, Group, Task};

/// How many tasks are handled concurrently: each needs a few queries to the ledger and Redis.
const AT_ONCE: usize = 16;

/// The outcome for one failed member.
#[derive(Debug)]
pub enum Retried {
    /// It was sent again under this id.
    As(TaskId),
    /// It was left alone, for this reason.
    Left(String),
}

impl Gateway {
    /// The group with this id; `None` when it is a task's id, or unknown.
    ///
    /// # Errors
    /// Those of the ledger.
    pub async fn group_of(&self, id: &TaskId) -> Result<Option<GroupId>, Error> {
        if self.reads.task(id).await?.is_some() {
            return Ok(None);
        }
        let Ok(group) = GroupId::parse(id.as_str()) else { return Ok(None) };
        Ok(self.ledger.group(&group).await?.map(|group| group.id))
    }

    /// The canvas of a task or a group.
    ///
    /// # Errors
    /// Those of the ledger.
    pub async fn graph_of(&self, id: &TaskId) -> Result<Option<Graph>, Error> {
        if let Some(graph) = self.ledger.graph(id).await? {
            return self.with_kept(graph).await.map(Some);
        }
        let Ok(group) = GroupId::parse(id.as_str()) else { return Ok(None) };
        let Some(Group { members, .. }) = self.ledger.group(&group).await? else { return Ok(None) };
        let Some(member) = members.first() else { return Ok(Some((Vec::new(), Vec::new()))) };
        match self.ledger.graph(&member.task_id).await? {
            Some(graph) => self.with_kept(graph).await.map(Some),
            None => Ok(None),
        }
    }

    /// The graph of the rest of a DAG, with what ran before it.
    async fn with_kept(&self, (mut tasks, mut edges): Graph) -> Result<Graph, Error> {
        let Some(root) = tasks.first().map(|task| task.root_id.clone().unwrap_or_else(|| task.id.clone())) else {
            return Ok((tasks, edges));
        };
        let kept = self.kept_tasks(&root).await?;
        if kept.is_empty() {
            return Ok((tasks, edges));
        }
        tasks.extend(kept);
        let ids: HashMap<i64, TaskId> = tasks.iter().map(|task| (task.no, task.id.clone())).collect();
        let numbers: Vec<i64> = ids.keys().copied().collect();
        for before in self.ledger.predecessors(&numbers).await? {
            let edge = (before.task.id.clone(), ids[&before.of].clone(), before.kind);
            if ids.contains_key(&before.task.no) && !edges.contains(&edge) {
                edges.push(edge);
            }
        }
        Ok((tasks, edges))
    }

    /// Revokes every task of a group that has not ended, as far as the caller sees them. `None` when the ledger never saw the id.
    ///
    /// # Errors
    /// The first failure; repeating the call continues.
    ///
    /// # Cancel safety
    /// A dropped call may have revoked some tasks; repeating it returns all verdicts.
    pub async fn revoke_group(
        &self,
        id: &GroupId,
        visibility: &Visibility,
        request: &RevokeRequest,
    ) -> Result<Option<Vec<Revoked>>, RevokeError> {
        let Some(group) = self.ledger.group(id).await? else { return Ok(None) };
        let tasks = self.tasks_of(&group).await?;
        self.revoke_each(tasks, visibility, request).await.map(Some)
    }

    /// Revokes every unfinished task of a task's canvas that the caller may see.
    ///
    /// # Errors
    /// As [`Gateway::revoke_group`].
    pub async fn revoke_canvas(
        &self,
        id: &TaskId,
        visibility: &Visibility,
        request: &RevokeRequest,
    ) -> Result<Vec<Revoked>, RevokeError> {
        let (tasks, _) = self.ledger.graph(id).await?.ok_or_else(|| RevokeError::Unknown(id.clone()))?;
        self.revoke_each(tasks, visibility, request).await
    }

    /// Revokes those of the tasks that the caller sees. Waiting steps come first, one by one from the last: a step whose predecessor is
    /// revoked before it would be skipped.
    pub(super) async fn revoke_each(
        &self,
        mut tasks: Vec<Task>,
        visibility: &Visibility,
        request: &RevokeRequest,
    ) -> Result<Vec<Revoked>, RevokeError> {
        tasks.retain(|task| visibility.sees_task(task));
        tasks.sort_by_key(|task| (place(task.phase), Reverse(task.no)));
        let (steps, others) = tasks.split_at(tasks.partition_point(|task| task.phase == Phase::Waiting));
        let until = Instant::now() + CONFIRMATION;
        let mut revoked = Vec::with_capacity(tasks.len());
        for step in steps {
            revoked.push(self.revoke_until(&step.id, request, until).await?);
        }
        for chunk in others.chunks(AT_ONCE) {
            let each = chunk.iter().map(|task| self.revoke_until(&task.id, request, until));
            revoked.extend(try_join_all(each).await?);
        }
        Ok(revoked)
    }

    /// The members, and the steps inside the group that lead to them.
    async fn tasks_of(&self, group: &Group) -> Result<Vec<Task>, Error> {
        let Some(member) = group.members.first() else { return Ok(Vec::new()) };
        let Some((tasks, edges)) = self.ledger.graph(&member.task_id).await? else { return Ok(Vec::new()) };
        let members = group.members.iter().map(|member| member.task_id.clone()).collect();
        let inside = inside(members, &edges);
        Ok(tasks.into_iter().filter(|task| inside.contains(&task.id)).collect())
    }

    /// Sends every member again that failed or was lost, and has not been sent again yet: asking twice retries once. Members that
    /// the caller does not see are left alone and left out.
    ///
    /// # Errors
    /// When the ledger fails; members that were sent again have it in their history.
    pub async fn retry_group(
        &self,
        visibility: &Visibility,
        id: &GroupId,
    ) -> Result<Option<Vec<(TaskId, Retried)>>, RetryError> {
        let Some(group) = self.ledger.group(id).await? else { return Ok(None) };
        let ids: Vec<TaskId> = group.members.into_iter().map(|member| member.task_id).collect();
        let mut answers = Vec::with_capacity(ids.len());
        for task in self.ledger.tasks_by_id(&ids).await?.into_iter().filter(|task| visibility.sees_task(task)) {
            let retried = Box::pin(self.retry_member(visibility, &task)).await?;
            answers.push((task.id, retried));
        }
        Ok(Some(answers))
    }

    async fn retry_member(&self, visibility: &Visibility, task: &Task) -> Result<Retried, RetryError> {
        if let Some(next) = &task.retried_as {
            return Ok(Retried::Left(format!("it was sent again as {next} already")));
        }
        if !matches!(task.phase, Phase::Failed | Phase::Lost) {
            return Ok(Retried::Left(format!("it is {}: only what failed or was lost is sent again", task.phase)));
        }
        match Box::pin(self.retry(visibility, &task.id, false, None)).await {
            Ok(submitted) => {
                Ok(submitted.task_id.map_or_else(|| Retried::Left("it became no task".to_owned()), Retried::As))
            }
            Err(error @ RetryError::NotReplayable { .. }) => Ok(Retried::Left(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Counts the members by phase in a sentence, and explains the state of unfinished members.
    ///
    /// # Errors
    /// Those of the ledger.
    pub async fn explain_group(
        &self,
        visibility: &Visibility,
        id: &GroupId,
        most: usize,
    ) -> Result<Option<GroupExplanation>, Error> {
        let Some(group) = self.ledger.group(id).await? else { return Ok(None) };
        let mut phases: BTreeMap<&'static str, usize> = BTreeMap::new();
        for member in &group.members {
            *phases.entry(member.phase.as_str()).or_default() += 1;
        }
        let mut members = Vec::new();
        for member in group.members.iter().filter(|member| !member.phase.is_final()).take(most) {
            if let Some(explained) = self.explain(visibility, &member.task_id).await? {
                members.push((member.task_id.clone(), explained.sentence));
            }
        }
        Ok(Some(GroupExplanation { phase: overall(&group), sentence: sentence(&group, &phases), phases, members }))
    }
}

/// The explanation of a group's state.
#[derive(Debug)]
pub struct GroupExplanation {
    pub phase: Phase,
    pub sentence: String,
    pub phases: BTreeMap<&'static str, usize>,
    /// Some unfinished members, each with a sentence.
    pub members: Vec<(TaskId, String)>,
}

/// The order of revoking: tasks that only the ledger has, then tasks in a queue, then tasks at a worker.
fn place(phase: Phase) -> u8 {
    match phase {
        Phase::Waiting => 0,
        Phase::Held | Phase::Accepted => 1,
        Phase::Queued => 2,
        _ => 3,
    }
}

/// The members and all steps that lead to exactly one of them. A step that leads to several comes before the group, and so does a
/// step that leads to the only member.
fn inside(members: HashSet<TaskId>, edges: &[(TaskId, TaskId, EdgeKind)]) -> HashSet<TaskId> {
    if members.len() < 2 {
        return members;
    }
    let mut next: HashMap<&TaskId, Vec<&TaskId>> = HashMap::new();
    for (from, to, kind) in edges {
        if matches!(kind, EdgeKind::Next | EdgeKind::After) {
            next.entry(from).or_default().push(to);
        }
    }
    let mut inside = members;
    loop {
        let leads_in = |(from, to): (&&TaskId, &Vec<&TaskId>)| {
            (to.len() == 1 && inside.contains(to[0]) && !inside.contains(*from)).then(|| (*from).clone())
        };
        let found: Vec<TaskId> = next.iter().filter_map(leads_in).collect();
        if found.is_empty() {
            return inside;
        }
        inside.extend(found);
    }
}

fn overall(group: &Group) -> Phase {
    let phases = || group.members.iter().map(|member| member.phase);
    if group.completed() >= group.total {
        return if phases().all(|phase| phase == Phase::Succeeded) { Phase::Succeeded } else { Phase::Failed };
    }
    let started = phases().any(|phase| phase.is_final() || phase == Phase::Running);
    if started { Phase::Running } else { phases().next().unwrap_or(Phase::Waiting) }
}

fn sentence(group: &Group, phases: &BTreeMap<&'static str, usize>) -> String {
    let parts: Vec<String> = phases.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
    format!("{} of its {} members have ended: {}.", group.completed(), group.total, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TaskId {
        TaskId::parse(text).unwrap()
    }

    fn found(members: &[&str], edges: &[(&str, &str)]) -> Vec<String> {
        let edges: Vec<_> = edges.iter().map(|(from, to)| (id(from), id(to), EdgeKind::Next)).collect();
        let inside = inside(members.iter().map(|text| id(text)).collect(), &edges);
        let mut names: Vec<String> = inside.iter().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn a_group_of_chains_is_all_steps_of_its_chains() {
        assert_eq!(found(&["a3", "b2"], &[("a1", "a2"), ("a2", "a3"), ("b1", "b2")]), ["a1", "a2", "a3", "b1", "b2"]);
    }

    #[test]
    fn what_comes_before_or_after_a_group_is_not_in_it() {
        let edges = [("before", "a"), ("before", "b"), ("a", "body"), ("b", "body")];
        assert_eq!(found(&["a", "b"], &edges), ["a", "b"]);
        assert_eq!(found(&["only"], &[("before", "only")]), ["only"]);
    }

    #[test]
    fn a_chord_inside_a_group_is_in_it() {
        assert_eq!(found(&["r", "s"], &[("p", "r"), ("q", "r")]), ["p", "q", "r", "s"]);
    }
}
