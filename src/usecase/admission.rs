//! Checks submissions before a row is written: the backlog, the names that catalog and token allow, and that no step of a canvas would
//! run more than once.

use super::Gateway;
use super::rules;
use super::submit::{SubmitError, SubmitRequest, Submitted};
use crate::catalog::Entry;
use crate::guard::tokens::Visibility;
use crate::tell::webhooks::judge;
use celery::plan::Plan;
use celery::task::canvas::EdgeKind;
use celery::task::canvas::Node;
use celery::task::invalid::MAX_FOUND;
use celery::task::pause;
use celery::task::submission::Submission;
use celery::task::webhook::Webhook;
use celery::task::{Invalid, QueueName, Signature, Spread, TaskId, TaskName};

impl Gateway {
    /// Refuses submissions while the backlog is full, with the time it will take, so that the outbox does not grow without bound.
    pub fn check_backlog(&self) -> Result<(), SubmitError> {
        let (backlog, limit) = (self.relay.backlog(), self.limits.backlog);
        if u64::try_from(backlog).unwrap_or(0) < limit {
            return Ok(());
        }
        Err(SubmitError::Backlog { backlog, limit, retry_after: self.relay.drain_time() })
    }

    /// The checks before the file of a request is read: the backlog, and whether its caller may submit the task. The steps of a canvas
    /// are checked later.
    ///
    /// # Errors
    /// Why nothing would be accepted.
    pub fn check_caller(&self, entry: &Entry, visibility: &Visibility) -> Result<(), SubmitError> {
        self.check_backlog()?;
        if entry.calls_only(&|name| visibility.sees(Some(name))) {
            return Ok(());
        }
        Err(SubmitError::NotYours { name: entry.name.clone(), patterns: visibility.patterns() })
    }

    /// Declares the queue for waiting steps: RabbitMQ drops messages for queues that do not exist, and no worker declares this one.
    pub(super) async fn prepare_queue(&self, submission: &ledger::Submission) {
        if self.broker.lists().is_some() {
            return;
        }
        let is_ours = |task: &ledger::NewTask| pause::is_held_here(Some(task.queue.as_str()));
        let Some(task) = submission.tasks.iter().find(|task| is_ours(task)) else { return };
        // An existing queue with other arguments works too; the relay reports a broker that is down.
        let _ = self.broker.declare_queue(&task.queue, "{}").await;
    }

    /// The answer to an earlier submission of this id.
    pub async fn known(&self, id: &TaskId) -> Result<Submitted, SubmitError> {
        Ok(Submitted { joined: true, ..self.joined(id).await? })
    }

    /// Checks that the catalog and the caller's token allow the call.
    pub(crate) fn check_call(&self, request: &SubmitRequest) -> Result<(), SubmitError> {
        let signature = &request.submission.signature;
        if !request.trusted {
            self.check_names(signature)?;
        }
        if !request.trusted || request.whole {
            self.check_rules(&request.submission)?;
        }
        if let Some(name) = foreign_name(signature, &request.visibility) {
            return Err(SubmitError::NotYours { name, patterns: request.visibility.patterns() });
        }
        check_ids(request)
    }

    fn check_names(&self, signature: &Signature) -> Result<(), SubmitError> {
        let mut refused = None;
        signature.visit(&mut |task| {
            let is_allowed = pause::is_pause(task.task.as_str()) || self.catalog.permits(task.task.as_str());
            if refused.is_none() && !is_allowed {
                refused = Some(task.task.clone());
            }
        });
        let Some(name) = refused else { return Ok(()) };
        let nearest = celery::spelling::nearest(name.as_str(), &self.catalog.names()).map(str::to_owned);
        Err(SubmitError::NotAllowed { name, nearest })
    }

    /// Checks arguments, queues and time limits against the catalog's entries.
    pub(crate) fn check_rules(&self, submission: &Submission) -> Result<(), SubmitError> {
        let broken = rules::broken(&self.catalog, &self.learned, submission, self.keep);
        if broken.is_empty() { Ok(()) } else { Err(SubmitError::Invalid(broken)) }
    }

    /// Checks the addresses of a submission's webhooks.
    pub(crate) async fn check_hooks(&self, hooks: &[Webhook]) -> Result<(), SubmitError> {
        let mut wrong = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            if let Err(detail) = judge(&self.hooks, &hook.url).await {
                wrong.push(Invalid { pointer: format!("/webhooks/{index}/url"), detail });
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(SubmitError::Invalid(wrong)) }
    }

    /// Where an exchange routes a node, if not just to its queue.
    pub(crate) fn spread(&self, node: &Node) -> Option<&Spread> {
        self.catalog.spread_for(node.task.task.as_str(), node.queue(), node.task.queue.is_some())
    }

    /// Checks that need every task's queue. A task that runs more than once cannot be part of a canvas, because it is undecidable which of
    /// its ends counts.
    pub(crate) fn check_plan(&self, plan: &Plan) -> Result<(), SubmitError> {
        self.check_chords(plan)?;
        self.check_spread(plan)?;
        self.check_priorities(plan)?;
        self.check_queues(plan)
    }

    /// Refuses priorities that a queue does not have.
    fn check_priorities(&self, plan: &Plan) -> Result<(), SubmitError> {
        for Node { task, defaults, .. } in plan.nodes.iter().map(|planned| &planned.node) {
            let queue = task.queue.as_ref().unwrap_or(&defaults.queue);
            let Some(why) = task.priority.and_then(|priority| self.catalog.refuses_priority(queue, priority)) else {
                continue;
            };
            let (pointer, detail) = match plan.nodes.len() {
                1 => ("/priority".to_owned(), why),
                _ => (String::new(), format!("the priority of {}: {why}", task.task)),
            };
            return Err(SubmitError::Invalid(vec![Invalid { pointer, detail }]));
        }
        Ok(())
    }

    /// Refuses queue names that the fleet's transport options forbid. Names that no fleet may use are refused when parsed.
    fn check_queues(&self, plan: &Plan) -> Result<(), SubmitError> {
        let Some(lists) = self.broker.lists() else { return Ok(()) };
        let transport = lists.keys().transport();
        let refused =
            |queue: &QueueName| Some(format!("the queue's name {queue} {}", transport.refuses(queue.as_str())?));
        match plan.nodes.iter().find_map(|planned| refused(planned.node.queue())) {
            Some(detail) => Err(SubmitError::Invalid(vec![Invalid { pointer: "/queue".to_owned(), detail }])),
            None => Ok(()),
        }
    }

    /// A step that follows members of a group is a chord's body: somebody must count the members. Celery does that in key-value stores;
    /// for `rpc://` it has no chords, and with a database its own clients poll.
    fn check_chords(&self, plan: &Plan) -> Result<(), SubmitError> {
        let has_chord =
            plan.edges.iter().any(|(from, _, kind)| *kind == EdgeKind::Next && plan.nodes[*from].node.group.is_some());
        let Some(results) = self.uncounted.filter(|_| has_chord) else { return Ok(()) };
        let detail = format!(
            "a chord needs a result backend that counts its parts, a key-value store such as Redis; {results} is none"
        );
        Err(SubmitError::Invalid(vec![Invalid { pointer: String::new(), detail }]))
    }

    pub(crate) fn check_spread(&self, plan: &Plan) -> Result<(), SubmitError> {
        let nodes = || plan.nodes.iter().map(|planned| &planned.node);
        let Some(node) = nodes().find(|node| plan.nodes.len() > 1 && self.spread(node).is_some()) else {
            return Ok(());
        };
        let (task, queue) = (&node.task.task, node.queue());
        let detail =
            format!("{task} goes through an exchange to more than one consumer ({queue} …): it must stand alone");
        Err(SubmitError::Invalid(vec![Invalid { pointer: String::new(), detail }]))
    }
}

/// Refuses chosen ids from tokens that see only some tasks: a conflict would reveal that another task has the id.
fn check_ids(request: &SubmitRequest) -> Result<(), SubmitError> {
    if !request.visibility.is_limited() {
        return Ok(());
    }
    let detail = "cannot be chosen by a token that is limited to names: leave it out, an Idempotency-Key makes a repetition harmless";
    let given = request.submission.given_ids().into_iter().take(MAX_FOUND);
    let refused: Vec<Invalid> = given.map(|(pointer, _)| Invalid { pointer, detail: detail.to_owned() }).collect();
    if refused.is_empty() { Ok(()) } else { Err(SubmitError::Invalid(refused)) }
}

/// The first task in a signature that the caller may not see.
pub(crate) fn foreign_name(signature: &Signature, visibility: &Visibility) -> Option<TaskName> {
    let mut foreign = None;
    signature.visit(&mut |task| {
        let is_own = pause::is_pause(task.task.as_str()) || visibility.sees(Some(task.task.as_str()));
        if foreign.is_none() && !is_own {
            foreign = Some(task.task.clone());
        }
    });
    foreign
}
