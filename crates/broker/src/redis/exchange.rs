//! Exchanges as kombu emulates them on Redis: direct and topic tables are sets of bindings, fanout is a channel.
//!
//! Who publishes to an exchange routes: reads the table and pushes to every queue that matches. We declare our bindings in both
//! sets that kombu knows, because a table without permanent members may be swept by any worker.

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

    /// Publishes to a fanout exchange. Returns how many listened; nobody else ever gets the message.
    pub async fn fan_out(&self, exchange: &str, routing_key: &str, envelope: &[u8]) -> Result<i64, Error> {
        let channel = self.keys.fanout(exchange, routing_key);
        self.link.call(redis::cmd("PUBLISH").arg(channel).arg(envelope)).await
    }
}
