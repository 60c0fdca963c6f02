//! Exchanges as kombu emulates them on Redis: direct and topic tables are sets of bindings, fanout is a channel.
//!
//! The publisher does the routing: it reads the table and pushes to every matching queue. We write our bindings into both sets that
//! kombu uses, because any worker may sweep a table without permanent members.

use super::{Broker, Error};
use celery::binding::Member;

impl Broker {
    /// Writes the bindings of an exchange where workers and producers look for them. Repeating it changes nothing.
    pub async fn declare(&self, exchange: &str, members: &[Member]) -> Result<(), Error> {
        if members.is_empty() {
            return Ok(());
        }
        if let Some(theirs) = self.refusals.theirs().filter(|theirs| theirs.sep != self.keys.transport().sep) {
            return Err(Error::Unexpected(format!("the fleet's separator is {:?}, not broker.sep", theirs.sep)));
        }
        let members: Vec<String> = members.iter().map(|member| member.encode(&self.keys.transport().sep)).collect();
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("SADD").arg(self.keys.binding(exchange)).arg(&members).ignore();
        pipeline.cmd("SADD").arg(self.keys.permanent_binding(exchange)).arg(&members).ignore();
        self.link.pipeline(&pipeline).await
    }

    /// Publishes to a fanout exchange. Returns the number of subscribers, the only ones that get the message.
    pub async fn fan_out(&self, exchange: &str, routing_key: &str, envelope: &[u8]) -> Result<i64, Error> {
        let channel = self.keys.fanout(exchange, routing_key);
        self.link.call(redis::cmd("PUBLISH").arg(channel).arg(envelope)).await
    }
}
