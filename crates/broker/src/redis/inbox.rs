//! Reply lists: the lists into which workers push their replies.
//!
//! A process reuses a few lists, so late replies do not pile up: the next request that uses a list empties it first, and recognises
//! its replies by their tickets. Lists of dead processes are removed by [`Broker::sweep_replies`], which finds them in a set in
//! Redis.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::control::Replies;
use super::{Broker, Error, Keys};
use celery::control;
use celery::task::Priority;
use runtime::clock::{self, Time};

/// Prefix of the names of lists; the rest is a `UUIDv7`.
const NAME: &str = "taskgate-";
/// The set of all lists in use, with the time of their last request.
const REGISTER: &str = "taskgate.replies";
/// No process waits for replies to an older request.
const ABANDONED: Duration = Duration::from_secs(600);
/// How long lists are remembered for late replies.
const MEMORY: Duration = Duration::from_hours(24);
/// Lists handled in one pass.
const PAGE: usize = 500;

/// The unused lists of this process. Cheap to clone; clones share the same lists.
#[derive(Debug, Clone, Default)]
pub(super) struct Inboxes(Arc<Mutex<Vec<String>>>);

/// A list and the ticket of one request. The list is free again when this is dropped.
pub(super) struct Inbox {
    pub ticket: String,
    /// The key in Redis.
    pub list: String,
    name: String,
    free: Inboxes,
}

impl Inboxes {
    pub fn take(&self, keys: &Keys) -> Inbox {
        let id = clock::new_id();
        let free = self.0.lock().expect("nothing panics under this lock").pop();
        let name = free.unwrap_or_else(|| format!("{NAME}{id}"));
        let list = keys.queue(&name, Priority::default());
        Inbox { ticket: id.to_string(), list, name, free: self.clone() }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.free.0.lock().expect("nothing panics under this lock").push(name);
    }
}

impl Inbox {
    /// The queue's name for workers, without the prefix.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a reply; `false` when it belongs to another request or is not a reply.
    pub fn take(&self, payload: &[u8], replies: &mut Replies) -> bool {
        match control::Reply::decode(payload) {
            Ok(reply) if reply.ticket.as_deref() == Some(&self.ticket) => {
                replies.insert(reply.node, reply.value);
                true
            }
            _ => false,
        }
    }
}

impl Broker {
    pub(super) fn remember_inbox(&self, pipeline: &mut redis::Pipeline, inbox: &Inbox) {
        let now = clock::now().as_unix_secs();
        pipeline.cmd("ZADD").arg(self.keys.prefixed(REGISTER)).arg(now).arg(&inbox.list).ignore();
    }

    /// Removes lists of dead processes with late replies. Returns how many.
    pub async fn sweep_replies(&self, now: Time) -> Result<usize, Error> {
        let register = self.keys.prefixed(REGISTER);
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(&register).arg("-inf").arg(now.minus(ABANDONED).as_unix_secs()).arg("LIMIT").arg(0).arg(PAGE);
        let lists: Vec<String> = self.link.call(&command).await?;
        if lists.is_empty() {
            return Ok(0);
        }
        // If a list is reused at this moment, it is created again in the same step as the request.
        let removed: usize = self.link.call(redis::cmd("DEL").arg(&lists)).await?;
        let mut forget = redis::cmd("ZREMRANGEBYSCORE");
        forget.arg(&register).arg("-inf").arg(now.minus(MEMORY).as_unix_secs());
        let _: u64 = self.link.call(&forget).await?;
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::Transport;

    fn reply(ticket: &str) -> Vec<u8> {
        let to = control::ReplyTo { ticket: String::new(), exchange: String::new(), routing_key: "list".into() };
        let value = control::ok("pong");
        control::Reply { ticket: Some(ticket.into()), clock: 1, node: "w1@h".into(), value }.encode(&to, "t")
    }

    #[test]
    fn a_list_is_used_again_with_another_ticket() {
        let (inboxes, keys) = (Inboxes::default(), Keys::new(Transport::default(), 0));
        let first = inboxes.take(&keys);
        let (ticket, list) = (first.ticket.clone(), first.list.clone());
        assert_ne!(inboxes.take(&keys).list, list, "it is in use");
        drop(first);
        let again = std::iter::repeat_with(|| inboxes.take(&keys)).take(2).find(|inbox| inbox.list == list).unwrap();
        assert_ne!(again.ticket, ticket);
    }

    #[test]
    fn a_reply_with_another_ticket_is_dropped() {
        let inbox = Inboxes::default().take(&Keys::new(Transport::default(), 0));
        let mut replies = Replies::new();
        assert!(!inbox.take(&reply("other"), &mut replies));
        assert!(!inbox.take(b"", &mut replies));
        assert!(inbox.take(&reply(&inbox.ticket), &mut replies));
        assert_eq!(replies["w1@h"].get(), r#"{"ok": "pong"}"#);
    }
}
