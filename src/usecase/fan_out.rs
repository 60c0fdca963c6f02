//! Fan-out: a call that becomes many tasks. A few tasks are a group like any other; many are accepted as a single row with the data to
//! build them, and the expander writes them in pieces: the call is answered at once, and its memory and transaction do not grow
//! with the count. An accepted call is completely on disk.

use serde::{Deserialize, Serialize};

use std::sync::Arc;

use super::Gateway;
use super::submit::{Idempotency, SubmitError, SubmitRequest, Submitted};
use crate::catalog::{Damaged, FanOut};
use celery::task::limit::{Fair, KeyLimit, OnLimit};
use celery::task::signature::TaskSignature;
use celery::task::{GroupId, Invalid, Phase, Signature, Submission, TaskId};
use ledger::{Conflict, NewFanOut, NewGroup};
use runtime::clock;

/// Up to this many tasks are written with the request and listed in its answer.
pub const AT_ONCE: u32 = 1_000;

/// The stored form of a request whose tasks are written later.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    pub call: FanOut,
    pub traceparent: Option<String>,
    pub token: Option<String>,
    #[serde(default)]
    pub limits: Vec<KeyLimit>,
    #[serde(default)]
    pub labels: Vec<(String, String)>,
    #[serde(default)]
    pub fair: Option<Fair>,
}

impl Gateway {
    /// Accepts a fan-out as a group. Its tasks may be written later.
    ///
    /// # Cancel safety
    /// As [`Gateway::submit`].
    pub async fn fan_out(self: &Arc<Self>, call: FanOut, mut request: SubmitRequest) -> Result<Submitted, SubmitError> {
        if call.count() <= AT_ONCE {
            let tasks = tasks(&call, 0, AT_ONCE).map_err(damaged)?;
            request.submission.signature =
                Signature::Group(tasks.into_iter().map(|task| Signature::Task(Box::new(task))).collect());
            return self.submit(request).await;
        }
        self.check_backlog()?;
        // All tasks have the same name, so checking the first is enough.
        let first = tasks(&call, 0, 1).map_err(damaged)?;
        request.submission.signature =
            Signature::Group(first.into_iter().map(|task| Signature::Task(Box::new(task))).collect());
        self.check_call(&request)?;
        let now = clock::now();
        let total = i32::try_from(call.count()).unwrap_or(i32::MAX);
        let submitted = self.announced(&call, total)?;
        let (group_id, root_id) = (submitted.group_id.clone(), TaskId::from(clock::new_id()));
        let group_id = group_id.expect("announced with its group");
        let SubmitRequest { submission, idempotency, traceparent, token, .. } = request;
        let Submission { mut limits, fair, labels, .. } = submission;
        // The call is accepted before its tasks are written, so none of them can be refused later.
        limits.iter_mut().for_each(|limit| limit.on_limit = OnLimit::Hold);
        let plan = Kept { call, traceparent, token, limits, labels, fair };
        let plan = serde_json::to_string(&plan).expect("a call is JSON");
        let submission = ledger::Submission {
            at: now,
            tasks: Vec::new(),
            edges: Vec::new(),
            groups: vec![NewGroup {
                id: group_id.clone(),
                root_id: root_id.clone(),
                total,
                chord_size: None,
                structure: None,
            }],
            idempotency: idempotency.map(|given: Idempotency| self.idempotency_key(given, &submitted, now)),
            dag: None,
            fan_out: Some(NewFanOut { group_id, root_id, total, plan }),
            unique: None,
        };
        match self.commit.commit(submission).await? {
            Ok(_) => {
                self.expander.nudge();
                Ok(submitted)
            }
            Err(Conflict::Replay(answer)) => Err(SubmitError::Replay(answer)),
            Err(Conflict::KeyReused) => Err(SubmitError::KeyReused),
            Err(Conflict::TaskId(id) | Conflict::Joined(id)) => Err(SubmitError::taken(id.as_str())),
            Err(Conflict::GroupId(id)) => Err(SubmitError::taken(id.as_str())),
            Err(Conflict::Limited { key, wait }) => Err(SubmitError::limited(key, wait)),
        }
    }

    fn announced(&self, call: &FanOut, total: i32) -> Result<Submitted, SubmitError> {
        let first = tasks(call, 0, 1).map_err(damaged)?;
        let queue = first.first().map(|task| (task, task.queue.clone().unwrap_or_else(|| self.defaults(task).queue)));
        if let Some((task, queue)) = &queue
            && self.catalog.spread_for(task.task.as_str(), queue, task.queue.is_some()).is_some()
        {
            let detail = "its tasks go through an exchange to more than one consumer: they must stand alone";
            return Err(SubmitError::Invalid(vec![Invalid { pointer: String::new(), detail: detail.to_owned() }]));
        }
        let is_paused = queue.is_some_and(|(_, queue)| self.pauses.current().contains(queue.as_str()));
        let group_id = GroupId::parse(TaskId::from(clock::new_id()).as_str()).expect("what is a task id is a group id");
        Ok(Submitted {
            task_id: None,
            group_id: Some(group_id),
            phase: if is_paused { Phase::Held } else { Phase::Accepted },
            status: Phase::Accepted.status().to_owned(),
            task: None,
            queue: None,
            count: usize::try_from(total).unwrap_or_default(),
            children: Vec::new(),
            joined: false,
            warnings: Vec::new(),
            replaced: None,
        })
    }
}

pub(crate) fn tasks(call: &FanOut, first: u32, after: u32) -> Result<Vec<TaskSignature>, Damaged> {
    let task = |chunk: crate::catalog::Chunk| {
        let mut task = TaskSignature::new(chunk.task, chunk.args, chunk.kwargs);
        task.queue = chunk.queue;
        task
    };
    Ok(call.part(first, after)?.into_iter().map(task).collect())
}

/// A request that was just parsed should be complete. If it is not, the client gets the error.
fn damaged(error: Damaged) -> SubmitError {
    SubmitError::Invalid(vec![Invalid { pointer: String::new(), detail: error.to_string() }])
}
