//! Takes messages from queues and reserves them in the same step, because an unreserved message is lost when its worker dies.
//!
//! While there is work, a script pops and reserves several messages at once, so nothing can be lost in between. An idle worker waits
//! with `BRPOP`, like kombu; the message that wakes it is reserved one round trip later, and a crash in that instant loses it (the
//! gateway's sweeper notices that).

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;
use redis::aio::MultiplexedConnection;

use super::{Broker, Error};
use celery::json;
use celery::task::{Priority, QueueName};
use runtime::clock::Time;

/// A message that was taken and reserved.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The queue it came from.
    pub queue: QueueName,
    /// Its field in `unacked`; `None` when it has no readable tag: such a message is not reserved.
    pub tag: Option<String>,
    /// The envelope as it was in the list.
    pub raw: Vec<u8>,
    /// How often its queue delivered it before; `None` where queues do not count.
    pub delivered_before: Option<u32>,
}

/// kombu's `queue_order_strategy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum QueueOrder {
    /// A queue that was served goes to the end.
    #[default]
    RoundRobin,
    /// In the order given, always.
    Priority,
    /// Alphabetical, always.
    Sorted,
}

/// KEYS: unacked, index, then the lists of each step (all queues at step 0, all at step 3 …).
/// ARGV: now, how many, number of queues, 1 to rotate, then the name of each queue as JSON.
/// Returns triples of queue position, tag (or empty) and message.
static FETCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        local queues, rotate = tonumber(ARGV[3]), ARGV[4] == '1'
        local limit, steps = tonumber(ARGV[2]) * 3, (#KEYS - 2) / queues
        local taken, order = {}, {}
        for i = 1, queues do order[i] = i end
        for step = 0, steps - 1 do
            local empty, at = 0, 1
            while empty < queues and #taken < limit do
                if at > queues then at = 1 end
                local queue = order[at]
                local message = redis.call('RPOP', KEYS[2 + step * queues + queue])
                if message then
                    local tag = ''
                    for found in string.gmatch(message, '"delivery_tag"%s*:%s*"([^"\\]+)"') do tag = found end
                    if tag ~= '' and string.sub(message, 1, 1) == '{' then
                        redis.call('ZADD', KEYS[2], ARGV[1], tag)
                        redis.call('HSET', KEYS[1], tag, '[' .. message .. ', "", ' .. ARGV[4 + queue] .. ']')
                    else
                        tag = ''
                    end
                    taken[#taken + 1] = queue
                    taken[#taken + 1] = tag
                    taken[#taken + 1] = message
                    empty = 0
                    if rotate then
                        table.remove(order, at)
                        order[queues] = queue
                    else
                        at = 1
                    end
                else
                    empty = empty + 1
                    at = at + 1
                end
            end
        end
        return taken
        "#,
    )
});

/// Consumes a changing set of queues over a dedicated connection.
pub struct Consumer {
    broker: Broker,
    order: QueueOrder,
    queues: Vec<QueueName>,
    connection: Option<MultiplexedConnection>,
}

impl Broker {
    /// A consumer of `queues`; connects when it is first used.
    pub fn consumer(&self, queues: Vec<QueueName>, order: QueueOrder) -> Consumer {
        let mut consumer = Consumer { broker: self.clone(), order, queues: Vec::new(), connection: None };
        consumer.set_queues(queues);
        consumer
    }
}

impl Consumer {
    /// Replaces the set of queues.
    pub fn set_queues(&mut self, queues: Vec<QueueName>) {
        self.queues = queues;
        if self.order == QueueOrder::Sorted {
            self.queues.sort();
        }
    }

    /// Takes at most `count` messages that are there now, reserved at `now`.
    ///
    /// # Cancel safety
    /// A dropped call may leave messages in `unacked`; they return after the visibility timeout.
    pub async fn take(&mut self, count: usize, now: Time) -> Result<Vec<Delivery>, Error> {
        if self.queues.is_empty() || count == 0 {
            return Ok(Vec::new());
        }
        let keys = &self.broker.keys;
        let mut call = FETCH.prepare_invoke();
        call.key(keys.unacked()).key(keys.unacked_index());
        for list in self.lists() {
            call.key(list);
        }
        call.arg(now.as_unix_secs()).arg(count).arg(self.queues.len());
        call.arg(u8::from(self.order == QueueOrder::RoundRobin));
        for queue in &self.queues {
            call.arg(quoted(queue.as_str()));
        }
        let taken: Vec<(usize, String, Vec<u8>)> = self.broker.link.script(&call).await?;
        let deliveries: Vec<Delivery> =
            taken.into_iter().map(|(position, tag, raw)| self.delivery(position, tag, raw)).collect();
        self.rotate_past(&deliveries);
        Ok(deliveries)
    }

    /// The lists in the order in which they are served: all queues at the first step, then all at the next.
    fn lists(&self) -> Vec<String> {
        let keys = &self.broker.keys;
        let list =
            |step: u8| self.queues.iter().map(move |queue| keys.queue(queue.as_str(), Priority::clamped(step.into())));
        keys.steps().iter().flat_map(|step| list(*step)).collect()
    }

    fn delivery(&self, position: usize, tag: String, raw: Vec<u8>) -> Delivery {
        let queue = self.queues[position - 1].clone();
        Delivery { queue, tag: Some(tag).filter(|tag| !tag.is_empty()), raw, delivered_before: None }
    }

    /// Waits for one message at most `timeout`, and reserves it.
    ///
    /// # Cancel safety
    /// None: a dropped call may lose the message that was just popped. Let it end.
    pub async fn wait(&mut self, timeout: Duration, now: impl Fn() -> Time) -> Result<Option<Delivery>, Error> {
        let lists = self.lists();
        let mut command = redis::cmd("BRPOP");
        command.arg(&lists);
        command.arg(timeout.as_secs_f64());
        let connection = match &mut self.connection {
            Some(connection) => connection,
            missing => missing.insert(self.broker.link.dedicated(Some(timeout + GRACE)).await?),
        };
        let popped: Result<Option<(String, Vec<u8>)>, _> = command.query_async(connection).await;
        let popped = popped.inspect_err(|_| self.connection = None)?;
        let Some((list, raw)) = popped else { return Ok(None) };
        let place = lists.iter().position(|name| *name == list);
        let queue = place.map(|place| self.queues[place % self.queues.len()].clone());
        let queue =
            queue.ok_or_else(|| Error::Unexpected(format!("a message from {list}, which was not asked for")))?;
        let delivery = Delivery { tag: tag(&raw), queue, raw, delivered_before: None };
        self.broker.reserve(&delivery, now()).await?;
        self.rotate_past(std::slice::from_ref(&delivery));
        Ok(Some(delivery))
    }

    /// Moves the queues just served to the end, in the order of serving.
    fn rotate_past(&mut self, served: &[Delivery]) {
        if self.order != QueueOrder::RoundRobin || self.queues.len() < 2 {
            return;
        }
        for delivery in served {
            if let Some(at) = self.queues.iter().position(|queue| *queue == delivery.queue) {
                let queue = self.queues.remove(at);
                self.queues.push(queue);
            }
        }
    }
}

/// Extra time for the answer of a blocking command beyond its own timeout.
const GRACE: Duration = Duration::from_secs(5);

impl Broker {
    /// Writes a popped message into `unacked`.
    async fn reserve(&self, delivery: &Delivery, now: Time) -> Result<(), Error> {
        let Some(tag) = &delivery.tag else { return Ok(()) };
        let mut entry = Vec::with_capacity(delivery.raw.len() + 40);
        entry.push(b'[');
        entry.extend_from_slice(&delivery.raw);
        entry.extend_from_slice(format!(", \"\", {}]", quoted(delivery.queue.as_str())).as_bytes());
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("ZADD").arg(self.keys.unacked_index()).arg(now.as_unix_secs()).arg(tag).ignore();
        pipeline.cmd("HSET").arg(self.keys.unacked()).arg(tag).arg(entry).ignore();
        self.link.pipeline(&pipeline).await
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::new();
    json::push_string(&mut out, text);
    out
}

/// The delivery tag, found in the same way as in the script: the last one in the text. Inside a JSON string its quotes would be escaped.
fn tag(raw: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(raw).ok().filter(|text| text.starts_with('{'))?;
    let mut after = text.rmatch_indices("\"delivery_tag\"").map(|(at, name)| &text[at + name.len()..]);
    after.find_map(|rest| {
        let value = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        let tag = &value[..value.find(['"', '\\'])?];
        (value[tag.len()..].starts_with('"') && !tag.is_empty()).then(|| tag.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_found_where_kombu_writes_it() {
        let message =
            br#"{"headers": {"argsrepr": "{\"delivery_tag\": \"no\"}"}, "properties": {"delivery_tag": "yes"}}"#;
        assert_eq!(tag(message).as_deref(), Some("yes"));
        assert_eq!(tag(b"[\"delivery_tag\": \"x\"]"), None);
        assert_eq!(tag(br#"{"delivery_tag": 5}"#), None);
        assert_eq!(tag(b"\xff"), None);
    }
}
