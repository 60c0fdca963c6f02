//! Searches for messages: which tasks are in a queue's lists, and which are reserved by workers.
//!
//! It reads in pages while messages move. A message that moves from a list to `unacked` meanwhile is found in one of the two, because
//! lists are read first; one that is put back in the other direction may be missed, so absence must be confirmed by a second scan.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use redis::Script;

use super::queues::tolerant;
use super::{Broker, Depth, Error};
use celery::Envelope;
use celery::binding::Member;
use runtime::clock::Time;

/// Elements read in one call.
const PAGE: isize = 500;
/// Pages of a thousand keys each, to find the tables of bindings; this is done only after a loss.
const BINDING_PAGES: usize = 200;

/// A field of `unacked` and its value.
type Entry = (Vec<u8>, Vec<u8>);

/// KEYS: unacked, index. ARGV: tags. Returns the entries that contain the mark anywhere, with tag and score.
static MARKED: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        local marked = {}
        for _, tag in ipairs(ARGV) do
            local entry = redis.call('HGET', KEYS[1], tag)
            if entry and string.find(entry, '"redelivered": *true') then
                marked[#marked + 1] = {tag, redis.call('ZSCORE', KEYS[2], tag) or '', entry}
            end
        end
        return marked
        "#,
    )
});

/// Maximum number of returned messages, read from the head of a list.
const RETURNED: usize = 256;
/// Maximum size for all lists together, because the script blocks the server.
const RETURNED_BYTES: usize = 1 << 20;

/// KEYS: lists. ARGV: messages of a list, bytes of all. Returns the marked messages at the head, up to the first unmarked one.
static AT_FRONT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        local marked, bytes = {}, 0
        for _, list in ipairs(KEYS) do
            for place = 1, tonumber(ARGV[1]) do
                local message = redis.pcall('LINDEX', list, -place)
                if type(message) ~= 'string' or not string.find(message, '"redelivered": *true') then break end
                bytes = bytes + #message
                if bytes > tonumber(ARGV[2]) then return marked end
                marked[#marked + 1] = message
            end
        end
        return marked
        "#,
    )
});

/// The result of a scan, by task id.
#[derive(Debug, Default)]
pub struct Present {
    /// Waiting in a list.
    pub listed: HashSet<String>,
    /// Waiting in a list again: a worker had reserved it before.
    pub returned: HashSet<String>,
    /// Reserved by a worker: in `unacked`.
    pub reserved: HashMap<String, Reservation>,
    /// Queues with a key that is not a list: it is unknown which of their tasks are there.
    pub left_out: HashSet<String>,
    /// Whether the keys of reserved messages have a wrong type: then any task may be reserved.
    pub reserved_unread: bool,
    /// Tasks that sent one of these messages, with its name and id.
    pub sent_by: HashMap<String, String>,
}

/// A message in `unacked`, as it was when it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub tag: String,
    /// Its score in `unacked_index`, digit for digit; empty when it has none.
    pub score: String,
    /// Whether it went back to its list before.
    pub redelivered: bool,
}

impl Reservation {
    /// When it was taken or renewed, by the clock of the process that did it.
    pub fn since(&self) -> Option<Time> {
        self.score.parse().ok().map(Time::from_unix_secs)
    }
}

impl Present {
    pub fn contains(&self, id: &str) -> bool {
        self.listed.contains(id) || self.reserved.contains_key(id)
    }

    fn note_listed(&mut self, message: &[u8]) {
        let Some(seen) = listed(message) else { return };
        if seen.redelivered {
            self.returned.insert(seen.id.clone());
        }
        self.note_sender(&seen);
        self.listed.insert(seen.id);
    }

    fn note_reserved(&mut self, tag: &[u8], value: &[u8], score: Option<String>) {
        let Some(seen) = reserved(value) else { return };
        self.note_sender(&seen);
        let (tag, score) = (String::from_utf8_lossy(tag).into_owned(), score.unwrap_or_default());
        self.reserved.insert(seen.id, Reservation { tag, score, redelivered: seen.redelivered });
    }

    fn note_sender(&mut self, seen: &Seen) {
        if let Some(parent) = &seen.parent {
            self.sent_by.insert(parent.clone(), format!("{} ({})", seen.name, seen.id));
        }
    }
}

impl Broker {
    /// The number of messages in all lists of a queue.
    pub async fn queue_length(&self, queue: &str) -> Result<i64, Error> {
        let depths = self.depths(&[queue.to_owned()]).await?;
        Ok(depths.iter().map(Depth::total).sum())
    }

    /// Queues with a binding in this Redis: kombu writes a binding for every queue that it declares.
    pub async fn bound_queues(&self) -> Result<Vec<String>, Error> {
        let mut tables: Vec<String> = Vec::new();
        let mut cursor = 0_u64;
        for _ in 0..BINDING_PAGES {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(self.keys.binding("*")).arg("COUNT").arg(1_000).arg("TYPE").arg("set");
            let (next, page): (u64, Vec<String>) = self.link.call(&command).await?;
            tables.extend(page);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let mut queues = Vec::new();
        for table in tables.iter().filter(|table| !table.ends_with(".pidbox")) {
            let members: Vec<String> = self.link.call(redis::cmd("SMEMBERS").arg(table)).await?;
            let queue = |member: String| Some(Member::decode(&member, &self.keys.transport().sep)?.queue);
            queues.extend(members.into_iter().filter_map(queue).filter(|queue| !queue.ends_with(".pidbox")));
        }
        Ok(queues)
    }

    /// Ids of all tasks in these queues and in `unacked`. Lists are read from the tail, so that messages taken meanwhile do not shift
    /// others past the reader.
    pub async fn present(&self, queues: &[String]) -> Result<Present, Error> {
        let mut present = Present::default();
        for queue in queues {
            for list in self.keys.queue_lists(queue) {
                if tolerant(self.scan_list(&list, &mut present).await)?.is_none() {
                    present.left_out.insert(queue.clone());
                }
            }
        }
        present.reserved_unread = tolerant(self.scan_unacked(&mut present).await)?.is_none();
        Ok(present)
    }

    /// Scans a list. New messages arrive at the left and shift the rest to the right, so the scan sees some twice but misses none.
    async fn scan_list(&self, list: &str, present: &mut Present) -> Result<(), Error> {
        let length: isize = self.link.call(redis::cmd("LLEN").arg(list)).await?;
        let mut end = length - 1;
        while end >= 0 {
            let start = (end - PAGE + 1).max(0);
            let page: Vec<Vec<u8>> = self.link.call(redis::cmd("LRANGE").arg(list).arg(start).arg(end)).await?;
            page.iter().for_each(|bytes| present.note_listed(bytes));
            end = start - 1;
        }
        let newest: Vec<Vec<u8>> = self.link.call(redis::cmd("LRANGE").arg(list).arg(0).arg(PAGE)).await?;
        newest.iter().for_each(|bytes| present.note_listed(bytes));
        Ok(())
    }

    async fn scan_unacked(&self, present: &mut Present) -> Result<(), Error> {
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(self.keys.unacked()).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, entries): (u64, Vec<Entry>) = self.link.call(&command).await?;
            let scores = self.scores(&entries).await?;
            for ((tag, value), score) in entries.iter().zip(scores) {
                present.note_reserved(tag, value, score);
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// Keys of reserved messages with a wrong type, each with the problem.
    pub async fn wrong_reservations(&self) -> Result<Vec<(String, String)>, Error> {
        let mut wrong = Vec::new();
        for (key, wanted) in [(self.keys.unacked(), "hash"), (self.keys.unacked_index(), "zset")] {
            let found: String = self.link.call(redis::cmd("TYPE").arg(&key)).await?;
            if found != wanted && found != "none" {
                let why = format!("the Redis key {key:?} should be a {wanted} and is a {found}; rename or remove it");
                wrong.push((key, why));
            }
        }
        Ok(wrong)
    }

    /// Up to about `limit` reserved messages, of all queues.
    pub async fn reserved_messages(&self, limit: usize) -> Result<Vec<Vec<u8>>, Error> {
        let mut command = redis::cmd("HSCAN");
        command.arg(self.keys.unacked()).arg(0).arg("COUNT").arg(limit);
        let read: Option<(u64, Vec<Entry>)> = tolerant(self.link.call(&command).await)?;
        let entries = read.map(|(_, entries)| entries).unwrap_or_default();
        let envelope = |entry: &Entry| {
            let parts: Vec<Box<serde_json::value::RawValue>> = serde_json::from_slice(&entry.1).ok()?;
            Some(parts.first()?.get().as_bytes().to_vec())
        };
        Ok(entries.iter().filter_map(envelope).collect())
    }

    async fn scores(&self, entries: &[Entry]) -> Result<Vec<Option<String>>, Error> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for (tag, _) in entries {
            pipeline.cmd("ZSCORE").arg(self.keys.unacked_index()).arg(tag);
        }
        self.link.pipeline(&pipeline).await
    }

    /// Messages reserved before `before`, oldest first, with their tasks' ids, after the first `skip`. A message without a task has an
    /// empty id.
    pub async fn reserved_before(
        &self,
        before: Time,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<(Reservation, String)>, Error> {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(self.keys.unacked_index()).arg("-inf").arg(before.as_unix_secs()).arg("WITHSCORES");
        command.arg("LIMIT").arg(skip).arg(limit);
        let places: Vec<(String, String)> = tolerant(self.link.call(&command).await)?.unwrap_or_default();
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let tags: Vec<&String> = places.iter().map(|(tag, _)| tag).collect();
        let entries: Option<Vec<Option<Vec<u8>>>> =
            tolerant(self.link.call(redis::cmd("HMGET").arg(self.keys.unacked()).arg(&tags)).await)?;
        let Some(entries) = entries else { return Ok(Vec::new()) };
        let read = |((tag, score), entry): ((String, String), Option<Vec<u8>>)| {
            let Seen { id, redelivered, .. } = entry.as_deref().and_then(reserved).unwrap_or_default();
            (Reservation { tag, score, redelivered }, id)
        };
        Ok(places.into_iter().zip(entries).map(read).collect())
    }

    /// Reserved messages with these delivery tags that went back to their lists before.
    pub async fn redelivered(&self, tags: &[&str]) -> Result<Vec<Reservation>, Error> {
        let mut found = Vec::new();
        for page in tags.chunks(PAGE as usize) {
            let mut call = MARKED.key(self.keys.unacked());
            call.key(self.keys.unacked_index()).arg(page);
            let marked: Vec<(String, String, Vec<u8>)> = self.link.script(&call).await?;
            found.extend(marked.into_iter().filter_map(|(tag, score, entry)| {
                let redelivered = reserved(&entry)?.redelivered;
                Some(Reservation { tag, score, redelivered })
            }));
        }
        Ok(found)
    }

    /// Tasks whose messages went back to these queues and are served next. kombu puts messages back at the head, so none is hidden behind
    /// others. Costs one read of each list's head if nothing went back.
    pub async fn at_front(&self, queues: &[String]) -> Result<Present, Error> {
        let mut present = Present::default();
        for page in queues.chunks(PAGE as usize) {
            let mut call = AT_FRONT.prepare_invoke();
            for list in page.iter().flat_map(|queue| self.keys.queue_lists(queue)) {
                call.key(list);
            }
            let marked: Vec<Vec<u8>> = self.link.script(call.arg(RETURNED).arg(RETURNED_BYTES)).await?;
            marked.iter().for_each(|bytes| present.note_listed(bytes));
        }
        Ok(present)
    }

    /// Removes every message of a list whose task `is_unwanted`, newest first. Returns the ids of removed tasks.
    pub async fn remove_listed(
        &self,
        queue: &str,
        is_unwanted: impl Fn(&str, i64) -> bool + Send + Sync,
    ) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        for list in self.keys.queue_lists(queue) {
            let length: Option<isize> = tolerant(self.link.call(redis::cmd("LLEN").arg(&list)).await)?;
            let mut end = length.unwrap_or(0) - 1;
            while end >= 0 {
                let start = (end - PAGE + 1).max(0);
                let page: Vec<Vec<u8>> = self.link.call(redis::cmd("LRANGE").arg(&list).arg(start).arg(end)).await?;
                for bytes in page {
                    let Some((id, retries)) = attempt(&bytes).filter(|(id, retries)| is_unwanted(id, *retries)) else {
                        continue;
                    };
                    tracing::debug!(retries, "message of task {id} is taken out of {queue}");
                    if self.link.call::<i64>(redis::cmd("LREM").arg(&list).arg(-1).arg(&bytes)).await? > 0 {
                        removed.push(id);
                    }
                }
                end = start - 1;
            }
        }
        Ok(removed)
    }
}

/// Task id and `retries` of a message.
fn attempt(bytes: &[u8]) -> Option<(String, i64)> {
    #[derive(serde::Deserialize)]
    struct Headers {
        id: Option<String>,
        retries: Option<i64>,
    }
    let envelope = Envelope::decode(bytes).ok()?;
    let headers: Headers = serde_json::from_str(&envelope.headers).ok()?;
    Some((headers.id?, headers.retries.unwrap_or(0)))
}

/// What a message says about its task.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    id: String,
    name: String,
    parent: Option<String>,
    /// Whether it went back to its list before.
    redelivered: bool,
}

/// Reads a message's task id, and whether it went back to its list. The mark in its headers is not reliable, because Celery copies it
/// into the next attempt.
fn listed(bytes: &[u8]) -> Option<Seen> {
    #[derive(serde::Deserialize)]
    struct Headers {
        id: Option<String>,
        task: Option<String>,
        parent_id: Option<String>,
    }
    let envelope = Envelope::decode(bytes).ok()?;
    let headers: Headers = serde_json::from_str(&envelope.headers).ok()?;
    let (id, redelivered) = (headers.id?, envelope.properties.redelivered);
    let parent = headers.parent_id.filter(|parent| *parent != id);
    Some(Seen { id, name: headers.task.unwrap_or_default(), parent, redelivered })
}

/// The same for an entry of `unacked`, which is `[envelope, exchange, routing_key]`.
fn reserved(bytes: &[u8]) -> Option<Seen> {
    let (envelope, _, _): (Box<serde_json::value::RawValue>, serde_json::Value, serde_json::Value) =
        serde_json::from_slice(bytes).ok()?;
    listed(envelope.get().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_message_names_its_task() {
        let entry = br#"[{"body": "W10=", "headers": {"id": "t1", "task": "x"}, "properties": {"body_encoding": "base64"}}, "", "celery"]"#;
        let seen = reserved(entry).expect("a message");
        assert_eq!((seen.id.as_str(), seen.name.as_str(), seen.redelivered), ("t1", "x", false));
        assert_eq!(reserved(b"nonsense"), None);
        let again =
            br#"[{"headers": {"id": "t1"}, "properties": {"delivery_info": {"redelivered": true}}}, "", "celery"]"#;
        assert!(reserved(again).is_some_and(|seen| seen.redelivered));
    }
}
