//! Looks for messages: which tasks are in a queue's lists, and which are reserved by workers.
//!
//! Reads in pages while everything moves. A message that moves from a list to `unacked` during the reading is found in one of
//! the two, because lists are read first; one that is put back the other way may be missed, so absence must be seen twice.

use std::collections::HashSet;

use super::{Broker, Error};
use crate::celery::Envelope;

/// Elements read in one call.
const PAGE: isize = 500;

/// A field of `unacked` and its value.
type Entry = (Vec<u8>, Vec<u8>);

/// What a scan found, by task id.
#[derive(Debug, Default)]
pub struct Present {
    /// Waiting in a list.
    pub listed: HashSet<String>,
    /// Reserved by a worker: in `unacked`.
    pub reserved: HashSet<String>,
}

impl Present {
    pub fn contains(&self, id: &str) -> bool {
        self.listed.contains(id) || self.reserved.contains(id)
    }
}

impl Broker {
    /// Messages in all four lists of a queue.
    pub async fn queue_length(&self, queue: &str) -> Result<i64, Error> {
        let mut pipeline = redis::pipe();
        for list in self.keys.queue_lists(queue) {
            pipeline.cmd("LLEN").arg(list);
        }
        let lengths: Vec<i64> = self.link.pipeline(&pipeline).await?;
        Ok(lengths.into_iter().sum())
    }

    /// Messages reserved by workers, of all queues.
    pub async fn reserved_count(&self) -> Result<i64, Error> {
        self.link.call(redis::cmd("HLEN").arg(self.keys.unacked())).await
    }

    /// Ids of all tasks in these queues and in `unacked`. Lists are read from the end that is served last, so that what is
    /// served meanwhile shifts nothing past the reader.
    pub async fn present(&self, queues: &[String]) -> Result<Present, Error> {
        let mut present = Present::default();
        for queue in queues {
            for list in self.keys.queue_lists(queue) {
                self.scan_list(&list, &mut present.listed).await?;
            }
        }
        self.scan_unacked(&mut present.reserved).await?;
        Ok(present)
    }

    /// New messages come in at the left and shift the rest to the right: reading leftwards sees some twice and misses none.
    async fn scan_list(&self, list: &str, ids: &mut HashSet<String>) -> Result<(), Error> {
        let length: isize = self.link.call(redis::cmd("LLEN").arg(list)).await?;
        let mut end = length - 1;
        while end >= 0 {
            let start = (end - PAGE + 1).max(0);
            let page: Vec<Vec<u8>> = self.link.call(redis::cmd("LRANGE").arg(list).arg(start).arg(end)).await?;
            ids.extend(page.iter().filter_map(|bytes| task_id(bytes)));
            end = start - 1;
        }
        let newest: Vec<Vec<u8>> = self.link.call(redis::cmd("LRANGE").arg(list).arg(0).arg(PAGE)).await?;
        ids.extend(newest.iter().filter_map(|bytes| task_id(bytes)));
        Ok(())
    }

    async fn scan_unacked(&self, ids: &mut HashSet<String>) -> Result<(), Error> {
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(self.keys.unacked()).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, entries): (u64, Vec<Entry>) = self.link.call(&command).await?;
            ids.extend(entries.iter().filter_map(|(_, value)| reserved_task_id(value)));
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}

fn task_id(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Headers {
        id: Option<String>,
    }
    let envelope = Envelope::decode(bytes).ok()?;
    serde_json::from_str::<Headers>(&envelope.headers).ok()?.id
}

/// An entry of `unacked` is `[envelope, exchange, routing_key]`.
fn reserved_task_id(bytes: &[u8]) -> Option<String> {
    let (envelope, _, _): (Box<serde_json::value::RawValue>, serde_json::Value, serde_json::Value) =
        serde_json::from_slice(bytes).ok()?;
    task_id(envelope.get().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_message_names_its_task() {
        let entry = br#"[{"body": "W10=", "headers": {"id": "t1", "task": "x"}, "properties": {"body_encoding": "base64"}}, "", "celery"]"#;
        assert_eq!(reserved_task_id(entry).as_deref(), Some("t1"));
        assert_eq!(reserved_task_id(b"nonsense"), None);
    }
}
