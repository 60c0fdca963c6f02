//! Computes what a worker must send when a task has ended: messages, chord sizes and saved structures, as plain data.
//!
//! The rules are Celery's (callbacks before the chain; the rest of a chain replaces the next step's own, even when empty; a chord
//! takes what follows it into its body). The worker publishes, in this order: `saved_groups`, `chord_sizes`, `sends`; then it
//! stores the result with `children`, then returns its own part of a chord. Pure: times and new ids come from the [`Sender`].

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::json::{self, Fields};
use super::message::{Embed, Message};
use super::result::{ResultTuple, encode_saved_group};
use super::shape::{attach, flat, following, size, tuple};
use super::signature::{Form, Signature};
use super::{DecodeError, time};
use crate::task::{Expires, GroupId, Json, TaskId, TaskName};

/// The sender, and what it needs to build messages.
pub struct Sender<'a> {
    /// `countdown` and `expires` in seconds count from here.
    pub now: Timestamp,
    /// The `origin` header.
    pub origin: &'a str,
    /// The queue of signatures that name none.
    pub default_queue: &'a str,
    /// Makes new task and group ids.
    pub ids: &'a mut dyn FnMut() -> TaskId,
}

/// One message to publish.
#[derive(Debug, Clone)]
pub struct Send {
    pub message: Message,
    /// Empty for the default exchange; then `routing_key` is the queue.
    pub exchange: String,
    pub routing_key: String,
    pub priority: u8,
    /// The queue for its results, where its signature names one: Celery's `rpc://`.
    pub reply_to: Option<String>,
}

/// Everything that follows from the end of one task.
#[derive(Debug, Default)]
pub struct Continuation {
    /// `celery-taskset-meta-<id>`: JSON text.
    pub saved_groups: Vec<(String, String)>,
    /// `celery-taskset-meta-<id>.s`, with `.c` deleted.
    pub chord_sizes: Vec<(String, usize)>,
    pub sends: Vec<Send>,
    /// For the `children` of the sender's result.
    pub children: Vec<ResultTuple>,
}

/// A task that never runs because another one failed: its record gets that task's exception and traceback.
#[derive(Debug, Clone)]
pub struct Doomed {
    pub task_id: String,
    pub group: Option<String>,
    pub group_index: Option<i64>,
    /// Set for a member of a chord's header: its part must be returned as FAILURE too.
    pub chord: Option<Box<Signature>>,
}

/// What follows from a failure, in this order (after the failed task's own record and part).
#[derive(Debug, Default)]
pub struct Aftermath {
    pub doomed: Vec<Doomed>,
    pub errbacks: Vec<Send>,
}

/// After SUCCESS of `message` with `result`.
///
/// # Errors
/// When a signature names no valid task; nothing is sent then, and the task fails, as with Celery.
pub fn after_success(
    message: &Message,
    result: &RawValue,
    sender: &mut Sender<'_>,
) -> Result<Continuation, DecodeError> {
    after(message, Some(result.get()), sender)
}

/// After a step without a result to pass on: the next steps run with their own arguments.
///
/// # Errors
/// As [`after_success`].
pub fn after_nothing(message: &Message, sender: &mut Sender<'_>) -> Result<Continuation, DecodeError> {
    after(message, None, sender)
}

fn after(message: &Message, first: Option<&str>, sender: &mut Sender<'_>) -> Result<Continuation, DecodeError> {
    let mut work = Work::new(message, sender);
    match &message.embed.callbacks[..] {
        [] => {}
        [callback] => {
            let child = work.apply(callback.clone(), first, None)?;
            work.out.children.push(child);
        }
        several => work.callbacks(several, first)?,
    }
    if let Some((next, rest)) = message.embed.chain.as_deref().and_then(<[Signature]>::split_last) {
        let child = work.apply(next.clone(), first, Some(rest.to_vec()))?;
        work.out.children.push(child);
    }
    Ok(work.out)
}

/// After FAILURE of `message`. Not for RETRY; after REVOKED only the chord part is returned.
///
/// # Errors
/// When an errback names no valid task.
pub fn after_failure(message: &Message, sender: &mut Sender<'_>) -> Result<Aftermath, DecodeError> {
    let mut doomed = Vec::new();
    message.embed.chain.iter().flatten().for_each(|step| doom(step, &mut doomed));
    let errbacks = Work::new(message, sender).errbacks(&message.embed.errbacks, message.id.as_str())?;
    Ok(Aftermath { doomed, errbacks })
}

/// Sends the body of a chord whose header is complete. `member` is the message of the part that finished last.
///
/// # Errors
/// When the body names no valid task.
pub fn chord_body(
    member: &Message,
    body: &Signature,
    values: &RawValue,
    sender: &mut Sender<'_>,
) -> Result<Continuation, DecodeError> {
    let mut work = Work::new(member, sender);
    let child = work.apply(body.clone(), Some(values.get()), None)?;
    work.out.children.push(child);
    Ok(work.out)
}

/// Sends a signature from inside a running task.
///
/// # Errors
/// When the signature names no valid task; nothing is sent then.
pub fn child(parent: &Message, signature: &Signature, sender: &mut Sender<'_>) -> Result<Continuation, DecodeError> {
    let mut work = Work::new(parent, sender);
    let child = work.apply(signature.clone(), None, None)?;
    work.out.children.push(child);
    Ok(work.out)
}

/// After a failure in a chord's header: the body and the steps after it are doomed, and its errbacks run.
///
/// # Errors
/// When an errback names no valid task.
pub fn chord_failed(member: &Message, body: &Signature, sender: &mut Sender<'_>) -> Result<Aftermath, DecodeError> {
    let mut doomed = Vec::new();
    doom(body, &mut doomed);
    body.options.chain.iter().flatten().for_each(|step| doom(step, &mut doomed));
    let failed = body.options.task_id.clone().unwrap_or_default();
    let errbacks = Work::new(member, sender).errbacks(&body.options.link_error, &failed)?;
    Ok(Aftermath { doomed, errbacks })
}

/// Collects the tasks under a signature that will never run. For a chord that is the body, as in Celery; for a group or a chain it
/// is the members, so that an enclosing chord gets all the parts that it waits for.
fn doom(signature: &Signature, doomed: &mut Vec<Doomed>) {
    match &signature.form {
        Form::Task { .. } => doomed.extend(signature.options.task_id.as_ref().map(|id| Doomed {
            task_id: id.clone(),
            group: signature.options.group_id.clone(),
            group_index: signature.options.group_index,
            chord: signature.options.chord.clone(),
        })),
        Form::Chain(members) | Form::Group(members) => members.iter().for_each(|member| doom(member, doomed)),
        Form::Chord { body, .. } => doom(body, doomed),
    }
}

struct Work<'a, 'b> {
    sender: &'a mut Sender<'b>,
    parent: TaskId,
    root: TaskId,
    stamped_headers: Option<Json>,
    stamps: Option<Json>,
    out: Continuation,
}

impl<'a, 'b> Work<'a, 'b> {
    fn new(message: &Message, sender: &'a mut Sender<'b>) -> Self {
        Self {
            sender,
            parent: message.id.clone(),
            root: message.root_id.clone().unwrap_or_else(|| message.id.clone()),
            stamped_headers: message.stamped_headers.clone(),
            stamps: message.stamps.clone(),
            out: Continuation::default(),
        }
    }

    /// Sends callbacks: several of them as one new group; groups among them unchanged.
    fn callbacks(&mut self, callbacks: &[Signature], result: Option<&str>) -> Result<(), DecodeError> {
        let (groups, plain): (Vec<_>, Vec<_>) =
            callbacks.iter().cloned().partition(|callback| matches!(callback.form, Form::Group(_)));
        for group in groups {
            let child = self.apply(group, result, None)?;
            self.out.children.push(child);
        }
        if !plain.is_empty() {
            let child = self.group(None, plain, result, None)?;
            self.out.children.push(child);
        }
        Ok(())
    }

    /// One message for each errback, as members of a new group, with the failed task's id as the first argument.
    fn errbacks(mut self, errbacks: &[Signature], failed: &str) -> Result<Vec<Send>, DecodeError> {
        if errbacks.is_empty() {
            return Ok(Vec::new());
        }
        let mut id = String::new();
        json::push_string(&mut id, failed);
        if let Ok(failed) = TaskId::parse(failed) {
            self.parent = failed;
        }
        self.group(None, errbacks.to_vec(), Some(&id), None)?;
        Ok(self.out.sends)
    }

    /// Applies a signature. `first` are arguments put before its own, as JSON without brackets; `chain` are the next steps, reversed,
    /// which replace the signature's own chain.
    fn apply(
        &mut self,
        signature: Signature,
        first: Option<&str>,
        chain: Option<Vec<Signature>>,
    ) -> Result<ResultTuple, DecodeError> {
        let Signature { form, args, kwargs, options, immutable } = signature;
        let chain = chain.or_else(|| options.chain.clone());
        match form {
            Form::Task { .. } => self.task(Signature { form, args, kwargs, options, immutable }, first, chain),
            Form::Chain(mut steps) => {
                let Some(last) = steps.last_mut() else {
                    return Err(DecodeError::Signature("is a chain without steps"));
                };
                last.options.link.extend(options.link);
                attach(last, options.group_id.as_deref(), options.group_index, options.chord.as_deref());
                steps.iter_mut().for_each(|step| step.options.link_error.extend_from_slice(&options.link_error));
                let mut rest = chain.unwrap_or_default();
                rest.extend(following(steps));
                let next = rest.pop().expect("a chain has a step");
                self.apply(next, joined(first, &args, immutable).as_deref(), Some(rest))
            }
            Form::Group(mut members) => {
                if let Some(chord) = &options.chord {
                    let mark = |(index, member)| {
                        attach(member, options.group_id.as_deref(), i64::try_from(index).ok(), Some(chord))
                    };
                    members.iter_mut().enumerate().for_each(mark);
                }
                members.iter_mut().for_each(|member| member.options.link_error.extend_from_slice(&options.link_error));
                self.group(options.task_id, members, joined(first, &args, immutable).as_deref(), chain)
            }
            Form::Chord { header, mut body } => {
                attach(&mut body, options.group_id.as_deref(), options.group_index, options.chord.as_deref());
                body.options.link.extend(options.link);
                body.options.link_error.extend(options.link_error);
                let id = options.task_id.or_else(|| header.options.task_id.clone());
                self.chord(id, *header, *body, joined(first, &args, immutable).as_deref(), chain)
            }
        }
    }

    fn group(
        &mut self,
        id: Option<String>,
        members: Vec<Signature>,
        first: Option<&str>,
        chain: Option<Vec<Signature>>,
    ) -> Result<ResultTuple, DecodeError> {
        let id = id.unwrap_or_else(|| self.new_id());
        let mut nodes = Vec::with_capacity(members.len());
        for (index, mut member) in flat(members).into_iter().enumerate() {
            attach(&mut member, Some(&id), i64::try_from(index).ok(), None);
            nodes.push(self.apply(member, first, chain.clone())?);
        }
        Ok(ResultTuple { id, parent: None, nodes: Some(nodes) })
    }

    fn chord(
        &mut self,
        id: Option<String>,
        header: Signature,
        mut body: Signature,
        first: Option<&str>,
        chain: Option<Vec<Signature>>,
    ) -> Result<ResultTuple, DecodeError> {
        let Form::Group(members) = header.form else {
            return Err(DecodeError::Signature("is a chord without a group as header"));
        };
        let id = id.unwrap_or_else(|| self.new_id());
        if let Some(chain) = chain {
            let own = body.options.chain.take().unwrap_or_default();
            body.options.chain = Some(chain.into_iter().chain(own).collect());
        }
        body.options.task_id.get_or_insert_with(|| self.new_id());
        body.options.root_id = Some(self.root.as_str().to_owned());
        let mut members = flat(members);
        if members.is_empty() {
            return self.apply(body, Some("[]"), None);
        }
        for (index, member) in members.iter_mut().enumerate() {
            self.name(member);
            attach(member, Some(&id), i64::try_from(index).ok(), Some(&body));
        }
        self.announce(&id, &members);
        let first = joined(first, &header.args, header.immutable);
        let nodes =
            members.into_iter().map(|member| self.apply(member, first.as_deref(), None)).collect::<Result<_, _>>()?;
        Ok(ResultTuple { id, parent: None, nodes: Some(nodes) })
    }

    /// Records the size of a header, and its structure when it is not flat.
    fn announce(&mut self, id: &str, members: &[Signature]) {
        self.out.chord_sizes.push((id.to_owned(), members.iter().map(size).sum()));
        let nodes: Vec<ResultTuple> = members.iter().map(tuple).collect();
        if nodes.iter().any(|node| node.nodes.is_some()) {
            let group = ResultTuple { id: id.to_owned(), parent: None, nodes: Some(nodes) };
            self.out.saved_groups.push((id.to_owned(), encode_saved_group(&group)));
        }
    }

    /// Gives every result under a signature an id now, because the saved structure must contain it.
    fn name(&mut self, signature: &mut Signature) {
        match &mut signature.form {
            Form::Task { .. } => {}
            Form::Chain(members) => members.iter_mut().for_each(|member| self.name(member)),
            Form::Group(members) => members.iter_mut().for_each(|member| self.name(member)),
            Form::Chord { header, body } => {
                self.name(header);
                self.name(body);
            }
        }
        if signature.options.task_id.is_none() {
            signature.options.task_id = Some(self.new_id());
        }
    }

    fn task(
        &mut self,
        signature: Signature,
        first: Option<&str>,
        chain: Option<Vec<Signature>>,
    ) -> Result<ResultTuple, DecodeError> {
        const BAD: DecodeError = DecodeError::Signature("has a name or id that cannot be one");
        let name = TaskName::parse(signature.name()).map_err(|_| BAD)?;
        let options = signature.options;
        let limits = options.limits();
        let id = options.task_id.unwrap_or_else(|| self.new_id());
        let args = match joined(first, &json::written("[]".into()), signature.immutable) {
            Some(first) => super::plan::prepend(&first, &signature.args),
            None => signature.args,
        };
        let mut message = Message::new(name, TaskId::parse(&id).map_err(|_| BAD)?, args, signature.kwargs);
        message.limits = limits;
        message.root_id = Some(self.root.clone());
        message.parent_id = Some(self.parent.clone());
        message.group = options.group_id.as_deref().and_then(|group| GroupId::parse(group).ok());
        message.group_index = options.group_index;
        message.eta = options.eta.or_else(|| self.after(options.countdown?));
        message.expires = match options.expires {
            Some(Expires::At(at)) => Some(at),
            Some(Expires::After(seconds)) => self.after(seconds),
            None => None,
        };
        message.retries = options.retries.and_then(|retries| retries.try_into().ok()).unwrap_or(0);
        message.replaced_task_nesting =
            options.replaced_task_nesting.and_then(|nesting| nesting.try_into().ok()).unwrap_or(0);
        message.shadow = options.shadow;
        message.origin = self.sender.origin.to_owned();
        message.ignore_result = options.ignore_result;
        let headers = options.headers.as_deref().and_then(|headers| Fields::parse(headers.get()).ok());
        message.custom = headers.map(|headers| headers.members(|_| true)).unwrap_or_default();
        (message.stamped_headers, message.stamps) = self.stamps(&options.other);
        message.embed = Embed { callbacks: options.link, errbacks: options.link_error, chain, chord: options.chord };
        let queue = options.queue.unwrap_or_else(|| self.sender.default_queue.to_owned());
        let exchange = options.exchange.unwrap_or_default();
        let routing_key = if exchange.is_empty() { queue } else { options.routing_key.unwrap_or(queue) };
        let priority = u8::try_from(options.priority.unwrap_or(0).clamp(0, 9)).expect("clamped to one digit");
        self.out.sends.push(Send { message, exchange, routing_key, priority, reply_to: options.reply_to });
        Ok(ResultTuple::task(id))
    }

    /// A signature's own stamps, else those of the task that sends it.
    fn stamps(&self, other: &json::Members) -> (Option<Json>, Option<Json>) {
        let own = other.iter().find(|(name, value)| name == "stamped_headers" && value.get() != "null");
        let Some((_, names)) = own else { return (self.stamped_headers.clone(), self.stamps.clone()) };
        let mut stamps = String::from("{");
        for name in json::elements(names).unwrap_or_default().into_iter().filter_map(json::text) {
            if let Some((_, value)) = other.iter().find(|(key, _)| *key == name) {
                stamps.push_str(if stamps.len() > 1 { ", " } else { "" });
                json::push_string(&mut stamps, &name);
                stamps.extend([": ", value.get()]);
            }
        }
        stamps.push('}');
        (Some(names.clone()), Some(json::written(stamps)))
    }

    fn after(&self, seconds: f64) -> Option<Timestamp> {
        time::from_unix(time::to_unix(self.sender.now) + seconds)
    }

    fn new_id(&mut self) -> String {
        (self.sender.ids)().as_str().to_owned()
    }
}

/// The arguments that go before a signature's own: the caller's first, then the wrapper's, as JSON without brackets.
fn joined(first: Option<&str>, args: &RawValue, immutable: bool) -> Option<String> {
    let own = args.get()[1..args.get().len() - 1].trim();
    match (first.filter(|_| !immutable), own) {
        (None, "") => None,
        (None, own) => Some(own.to_owned()),
        (Some(first), "") => Some(first.to_owned()),
        (Some(first), own) => Some(format!("{first}, {own}")),
    }
}

#[cfg(test)]
#[path = "continuation_tests.rs"]
mod tests;
