//! Inspects queues, and removes messages from them.
//!
//! A queue has a list for each priority step; the next message of a list is at its right end. Inspecting never removes anything.
//! Removed messages are returned to the caller, so that the ledger can record what happened to them.

use redis::RedisError;

use super::refusal::wrong_type;
use super::{Broker, Error};
use celery::Envelope;
use celery::task::Priority;

/// The number of messages in a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Depth {
    /// Priority steps with the number of messages in their lists, in the order in which they are served.
    pub lists: Vec<(u8, i64)>,
    /// The problem with one of its keys, which then counts as empty.
    pub trouble: Option<String>,
}

impl Depth {
    pub fn total(&self) -> i64 {
        self.lists.iter().map(|(_, count)| count).sum()
    }
}

/// Messages read at a time: some hundred kilobytes at ordinary size.
const CHUNK: i64 = 100;
/// How many messages of each list are searched, the next ones first. Messages further back are left to the broadcast revoke.
const SEARCH_DEPTH: i64 = 20_000;
/// A page of contents ends early after this many bytes.
const PAGE_BYTES: usize = 8 << 20;

/// A message in a list.
#[derive(Debug, Clone)]
pub struct Standing {
    /// 0, 3, 6 or 9 unless the fleet has other steps.
    pub step: u8,
    pub payload: Vec<u8>,
}

impl Broker {
    /// The number of messages per list of each queue, in the order of `queues`. A key that is not a list is reported and does not affect
    /// the others.
    pub async fn depths(&self, queues: &[String]) -> Result<Vec<Depth>, Error> {
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for list in queues.iter().flat_map(|queue| self.keys.queue_lists(queue)) {
            pipeline.cmd("LLEN").arg(list);
        }
        let lengths: Vec<Result<i64, RedisError>> = self.link.pipeline(pipeline.ignore_errors()).await?;
        let steps = self.keys.steps();
        queues.iter().zip(lengths.chunks_exact(steps.len())).map(|(queue, counts)| self.depth(queue, counts)).collect()
    }

    fn depth(&self, queue: &str, counts: &[Result<i64, RedisError>]) -> Result<Depth, Error> {
        let mut depth = Depth::default();
        for ((step, list), count) in self.keys.steps().iter().zip(self.keys.queue_lists(queue)).zip(counts) {
            let count = readable(count.clone())?;
            if count.is_none() {
                depth.trouble = Some(wrong_type(&list));
            }
            depth.lists.push((*step, count.unwrap_or(0)));
        }
        Ok(depth)
    }

    /// The next message of each non-empty list; the oldest message of the queue is among them.
    pub async fn heads(&self, queue: &str) -> Result<Vec<Standing>, Error> {
        let mut pipeline = redis::pipe();
        for list in self.keys.queue_lists(queue) {
            pipeline.cmd("LINDEX").arg(list).arg(-1);
        }
        let found: Vec<Result<Option<Vec<u8>>, RedisError>> = self.link.pipeline(pipeline.ignore_errors()).await?;
        let mut heads = Vec::new();
        for (step, payload) in self.keys.steps().iter().zip(found) {
            if let Some(payload) = readable(payload)?.flatten() {
                heads.push(Standing { step: *step, payload });
            }
        }
        Ok(heads)
    }

    /// Up to `limit` messages after the first `skip`, in the order in which they will be served. A page may be shorter than
    /// `limit` when its messages are large, but has at least one while there is one.
    pub async fn contents(&self, queue: &str, skip: i64, limit: i64) -> Result<Vec<Standing>, Error> {
        let Some(depth) = self.depths(&[queue.to_owned()]).await?.pop() else { return Ok(Vec::new()) };
        let (mut skip, mut bytes, mut page) = (skip, 0, Vec::new());
        for ((step, length), list) in depth.lists.into_iter().zip(self.keys.queue_lists(queue)) {
            while skip < length {
                let room = limit - i64::try_from(page.len()).unwrap_or(limit);
                if room <= 0 || bytes > PAGE_BYTES {
                    return Ok(page);
                }
                let chunk = self.chunk(&list, skip, room.min(CHUNK)).await?;
                if chunk.is_empty() {
                    break;
                }
                skip += i64::try_from(chunk.len()).unwrap_or(CHUNK);
                bytes += chunk.iter().map(Vec::len).sum::<usize>();
                page.extend(chunk.into_iter().map(|payload| Standing { step, payload }));
            }
            skip = (skip - length).max(0);
        }
        Ok(page)
    }

    /// `count` messages of one list after the first `skip`, the next to be served first.
    async fn chunk(&self, list: &str, skip: i64, count: i64) -> Result<Vec<Vec<u8>>, Error> {
        let mut command = redis::cmd("LRANGE");
        command.arg(list).arg(-skip - count).arg(-skip - 1);
        let mut chunk: Vec<Vec<u8>> = self.link.call(&command).await?;
        chunk.reverse();
        Ok(chunk)
    }

    /// Takes up to `limit` messages out of a queue, the next to be served first. Empty when there is none.
    ///
    /// # Cancel safety
    /// None: messages that a dropped call removed are lost, and the sweeper finds their tasks missing.
    pub async fn take_out(&self, queue: &str, limit: usize) -> Result<Vec<Standing>, Error> {
        for (step, list) in self.lists(queue) {
            let mut pipeline = redis::pipe();
            pipeline.atomic();
            for _ in 0..limit {
                pipeline.cmd("RPOP").arg(&list);
            }
            let taken: Vec<Option<Vec<u8>>> = self.link.pipeline(&pipeline).await?;
            let taken: Vec<Standing> = taken.into_iter().flatten().map(|payload| Standing { step, payload }).collect();
            if !taken.is_empty() {
                return Ok(taken);
            }
        }
        Ok(Vec::new())
    }

    /// Removes exactly this message from its list. `false` when it is not there.
    pub async fn remove(&self, queue: &str, priority: Priority, payload: &[u8]) -> Result<bool, Error> {
        let list = self.keys.queue(queue, priority);
        Ok(self.link.call::<i64>(redis::cmd("LREM").arg(list).arg(1).arg(payload)).await? > 0)
    }

    /// Finds and removes messages of a task that differ from the published bytes: put back by a worker, sent again by a retry, sent as a
    /// canvas step. Returns the removed messages.
    pub async fn remove_task(&self, queue: &str, task_id: &str) -> Result<Vec<Standing>, Error> {
        self.remove_where(queue, task_id, |_| true).await
    }

    /// The same for the selected messages only; the others stay.
    pub async fn remove_where(
        &self,
        queue: &str,
        task_id: &str,
        wanted: impl Fn(&[u8]) -> bool + Send,
    ) -> Result<Vec<Standing>, Error> {
        let mut removed = Vec::new();
        for (step, list) in self.lists(queue) {
            for payload in self.search(&list, task_id).await?.into_iter().filter(|payload| wanted(payload)) {
                if self.link.call::<i64>(redis::cmd("LREM").arg(&list).arg(-1).arg(&payload)).await? > 0 {
                    removed.push(Standing { step, payload });
                }
            }
        }
        Ok(removed)
    }

    /// Each list of a queue with its step.
    fn lists(&self, queue: &str) -> Vec<(u8, String)> {
        self.keys.steps().iter().copied().zip(self.keys.queue_lists(queue)).collect()
    }

    async fn search(&self, list: &str, task_id: &str) -> Result<Vec<Vec<u8>>, Error> {
        let (mut found, mut skip) = (Vec::new(), 0);
        while skip < SEARCH_DEPTH {
            let Some(chunk) = tolerant(self.chunk(list, skip, CHUNK).await)? else { break };
            let full = chunk.len() == CHUNK as usize;
            found.extend(chunk.into_iter().filter(|payload| is_of(payload, task_id)));
            if !full {
                break;
            }
            skip += CHUNK;
        }
        Ok(found)
    }
}

/// `None` when the key has another type, so that it contains no messages.
fn readable<T>(answer: Result<T, RedisError>) -> Result<Option<T>, Error> {
    tolerant(answer.map_err(Error::from))
}

/// As [`readable`], for an answer that may have failed in other ways.
pub(super) fn tolerant<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_wrong_type() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a message belongs to this task.
fn is_of(payload: &[u8], task_id: &str) -> bool {
    let hint = payload.windows(task_id.len().max(1)).any(|part| part == task_id.as_bytes());
    // An id that JSON must escape is not in the text literally.
    if !hint && task_id.is_ascii() && !task_id.contains(['"', '\\']) {
        return false;
    }
    let Ok(envelope) = Envelope::decode(payload) else { return false };
    let headers = celery::json::Fields::parse(&envelope.headers).unwrap_or_default();
    match headers.text("id") {
        Some(id) => id == task_id,
        None => envelope.properties.correlation_id.as_deref() == Some(task_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use celery::{Properties, envelope};

    #[test]
    fn a_message_is_told_by_the_id_in_its_headers() {
        let message = |id: &str| {
            envelope(
                &format!(r#"{{"task": "t", "id": "{id}"}}"#),
                "[[\"b\"], {}, {}]",
                &Properties::task("x", "q", 0, "t"),
            )
        };
        assert!(is_of(&message("b"), "b"));
        assert!(!is_of(&message("a"), "b"));
        assert!(!is_of(&message("ab"), "b"));
        assert!(!is_of(b"not a message with b", "b"));
    }
}
